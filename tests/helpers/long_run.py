"""Trains for many steps, and watches what a process that runs for days must not let grow: memory, open files, traces.

    PYTHONPATH=. python tests/long_run.py 20000

With checkpoints, validations and samples of text on the way, all far more often than anybody has them.
"""

import dataclasses
import json
import os
import pathlib
import sys
import tempfile

import numpy as np
import processes

import configs
from ptb import training

EPOCH = 500  # steps
PERIOD = 50  # steps from one look to the next
MOST_GROWTH = 16 << 20  # bytes, over the second half of a run


@dataclasses.dataclass
class Watch:
    """Called in a process before training: brings in a configuration, and writes a line to `path` every `PERIOD` steps."""

    path: str
    steps: int

    def __call__(self):
        configs.CONFIGS["long"] = dataclasses.replace(
            configs.TEST, num_epochs=self.steps // EPOCH, hidden_size=8, num_layers=2, keep_prob=0.5, validate_every=200
        )
        make_train_step = training.make_train_step

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

        training.make_train_step = make_watched_step

    def note(self, **record):
        resident = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        with open(self.path, "a") as file:
            file.write(json.dumps(record | {"resident": resident, "files": len(os.listdir("/proc/self/fd"))}) + "\n")


def watch(steps, folder):
    """Trains for so many steps in `folder`. Returns what was noted on the way, a record every `PERIOD` steps."""
    rng = np.random.default_rng(0)
    words = [f"w{index}" for index in range(30)]
    windows = {"train": EPOCH + 1, "valid": 20, "test": 20}
    for split, count in windows.items():
        lines = count * configs.TEST.batch_size * configs.TEST.num_steps // 5
        (folder / f"{split}.txt").write_text("".join(" ".join(rng.choice(words, 4)) + "\n" for _ in range(lines)))
    arguments = [f"--data_path={folder}", f"--save_path={folder}/run", "--checkpoint_minutes=0.01", "--sample_every=100"]
    process = processes.start("train.py", "--model=long", *arguments, folder=folder, before=Watch(str(folder / "notes"), steps))
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
