"""Train for many steps, and watch what must not grow in a process that runs for days: memory, open files, traces.

    PYTHONPATH=.:tests python -m helpers.long_run 20000

Checkpoints, validations and samples of text come far more often than in real runs.
"""

import dataclasses
import json
import os
import pathlib
import sys
import tempfile

import numpy as np

from configs import TEST
from helpers import processes
from helpers.training_runs import settings
from ptb.training import step

EPOCH = 500  # steps
PERIOD = 50  # steps from one look to the next
MOST_GROWTH = 16 << 20  # bytes, over the second half of a run


@dataclasses.dataclass
class Watch:
    """Called in a process before training: write a line to `path` every `PERIOD` steps."""

    path: str

    def __call__(self):
        make_train_step = step.make_train_step

        def make_watched_step(*arguments):
            train_step = make_train_step(*arguments)
            steps = 0

            def watched(*arguments):
                nonlocal steps
                steps += 1
                if steps % PERIOD == 0:
                    self.note(step=steps, traces=train_step.experimental_get_tracing_count())
                return train_step(*arguments)

            return watched

        step.make_train_step = make_watched_step  # before train.py imports it

    def note(self, **record):
        resident = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        with open(self.path, "a") as file:
            file.write(json.dumps(record | {"resident": resident, "files": len(os.listdir("/proc/self/fd"))}) + "\n")


def watch(steps, folder):
    """Train for so many steps in `folder`. Return the notes, one every `PERIOD` steps."""
    rng = np.random.default_rng(0)
    words = [f"w{index}" for index in range(30)]
    windows = {"train": EPOCH + 1, "valid": 20, "test": 20}
    for split, count in windows.items():
        lines = count * TEST.batch_size * TEST.num_steps // 5
        (folder / f"{split}.txt").write_text("".join(" ".join(rng.choice(words, 4)) + "\n" for _ in range(lines)))
    changes = {"num_epochs": steps // EPOCH, "layers": (8, 8), "dropout": 0.5, "validate_every": 200}
    arguments = ["--model=test", f"--data_path={folder}", f"--save_path={folder}/run", *settings(changes)]
    arguments += ["--checkpoint_minutes=0.01", "--sample_every=100"]
    process = processes.start("train.py", *arguments, folder=folder, before=Watch(str(folder / "notes")))
    process.join(60 + steps)
    process.kill()
    process.join()
    assert process.exitcode == 0, (folder / "stderr").read_text()
    return [json.loads(line) for line in (folder / "notes").read_text().splitlines()]


def assert_steady(notes):
    """One trace, as many files open at the end as halfway, and next to no more memory."""
    later = notes[len(notes) // 2 :]
    assert {note["traces"] for note in notes} == {1}
    assert {note["files"] for note in later} == {later[0]["files"]}
    resident = [note["resident"] for note in later]
    assert max(resident) - resident[0] < MOST_GROWTH, resident


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        notes = watch(int(sys.argv[1]), pathlib.Path(folder))
    for note in notes[:: max(len(notes) // 10, 1)] + notes[-1:]:
        print(f"step {note['step']:6d}   {note['resident'] / 2**20:7.1f} MiB   {note['files']} files   {note['traces']} trace")
    assert_steady(notes)
    print("steady")
