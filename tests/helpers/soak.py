"""Kill real training processes with SIGKILL, again and again, and compare where they end with an unbroken run.

    PYTHONPATH=.:tests python -m helpers.soak 200

Every other kill comes at a random moment. The others are provoked inside a write: while half of a file is on disk, before it is
renamed, between the renaming of one file and the write of the next. Training writes a checkpoint after each of its steps.
"""

import dataclasses
import math
import os
import pathlib
import signal
import stat
import sys
import tempfile
import time

import numpy as np

from helpers import processes
from helpers.run_files import assert_same_run
from helpers.training_runs import settings

MOMENTS = ("in the middle", "before", "after")
CALLS = ("fsync", "replace", "unlink")
CHANGES = {"num_epochs": 3, "layers": (8, 8), "dropout": 0.5}


@dataclasses.dataclass
class DieAt:
    """Called in a process before training: a death at one of the calls that make files last."""

    call: float = math.inf  # from this one on, counted from 1
    moment: str = ""

    def __call__(self):
        for name in CALLS:
            setattr(os, name, self._deadly(getattr(os, name)))

    def _deadly(self, function):
        def call(target, *arguments, **options):
            self.call -= 1
            due = self.call <= 0
            if due and self.moment == "in the middle" and function.__name__ == "fsync" and not is_folder(target):
                os.ftruncate(target, os.fstat(target).st_size // 2)
                die()
            if due and self.moment == "before":
                die()
            function(target, *arguments, **options)
            if due and self.moment == "after":
                die()

        return call


def is_folder(descriptor):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def survive(kills, folder, seed=0):
    """Train in `folder`, killed `kills` times, as many runs as that takes. Compare each of them with an unbroken one.

    Return the numbers of kills and of runs.
    """
    rng = np.random.default_rng(seed)
    words = [f"w{index}" for index in range(30)]
    corpus = folder / "corpus"
    corpus.mkdir()
    for split, lines in (("train", 180), ("valid", 30), ("test", 40)):
        (corpus / f"{split}.txt").write_text("".join(" ".join(rng.choice(words, 6)) + "\n" for _ in range(lines)))

    def start(save_path, before=None):
        arguments = ["--model=test", f"--data_path={corpus}", f"--save_path={save_path}", "--checkpoint_minutes=0"]
        return processes.start("train.py", *arguments, *settings(CHANGES), folder=folder, before=before)

    def end(process):
        process.join(300)
        exit_code = process.exitcode  # None if it hangs
        process.kill()
        errors = (folder / "stderr").read_text()
        assert exit_code in (0, -signal.SIGKILL), f"exit code {exit_code}: {errors}"
        assert not errors, errors
        return exit_code != 0

    unbroken = folder / "unbroken"
    began = time.monotonic()
    end(start(unbroken))
    seconds = time.monotonic() - began

    killed, finished = 0, 0
    while killed < kills or not finished:
        save_path = folder / f"run-{finished}"
        if killed >= kills:
            died = end(start(save_path))
        elif killed % 2:
            died = end(start(save_path, DieAt(int(rng.integers(1, 150)), MOMENTS[killed // 2 % len(MOMENTS)])))
        else:
            process = start(save_path)
            process.join(rng.uniform(0, seconds))
            process.kill()
            died = end(process)
        killed += died
        if not died:
            assert_same_run(save_path, unbroken)
            finished += 1
    return killed, finished


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        killed, finished = survive(int(sys.argv[1]), pathlib.Path(folder))
    print(f"{killed} kills survived in {finished} runs, each with the weights, history, curves and score of an unbroken one")
