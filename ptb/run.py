"""What a run leaves in its folder, and how it survives a crash.

    config.json              what was asked for
    vocabulary.txt           one word a line, in the order of the ids
    checkpoint-<step>.npz    everything the run has learnt, the last two kept
    history.jsonl            one line an epoch
    events…, train/, valid/  the same and more, as curves for TensorBoard
    result.json              the final score

A checkpoint holds arrays (weights, recurrent state, running sums) and a JSON record (where the run is, its history, its
curves). Whatever else changes while a run goes on is written anew from the newest checkpoint when it is resumed, so no crash
can leave the files at odds with each other. The format is NumPy's: a zip file with a CRC-32 of each member, and no pickle, so
nothing in it can be executed.
"""

import json
import os
import pathlib
import re
import warnings
import zipfile

import numpy as np

CHECKPOINTS_KEPT = 2


class RunError(Exception):
    """A run folder that cannot be used; the message names the file and says what to do."""


class Run:
    """A run's folder."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.vocabulary_path = self.path / "vocabulary.txt"

    @property
    def config(self):
        """What `config.json` holds; None before the run has begun."""
        return self._read_json("config.json")

    @property
    def result(self):
        """What `result.json` holds; None before the run has finished."""
        return self._read_json("result.json")

    def begin(self, config):
        """Makes the folder and writes `config.json`, or checks that a run that has begun there is the same one."""
        begun = self.config
        if begun is None:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_json("config.json", config)
            return
        differing = [
            f"{name} was {begun.get(name)!r}, now {config.get(name)!r}"
            for name in sorted({*begun, *config} - {"data_path"})  # the text may have moved; its hash is compared
            if begun.get(name) != config.get(name)
        ]
        if differing:
            raise RunError(f"{self.path}: holds another run ({'; '.join(differing)}); choose another --save_path")

    def write_json(self, name, record):
        write_atomically(self.path / name, (json.dumps(record, indent=2) + "\n").encode())

    def write_history(self, history):
        """Writes `history.jsonl`, one line for each record."""
        lines = [json.dumps(record) + "\n" for record in history]
        write_atomically(self.path / "history.jsonl", "".join(lines).encode())

    def save_checkpoint(self, step, arrays, record):
        """Writes a checkpoint of `{name: array}` and a JSON record, aside and then renamed, and drops the oldest."""

        def write(file):
            np.savez(file, __record__=np.frombuffer(json.dumps(record).encode(), np.uint8), **arrays)

        write_atomically(self.path / f"checkpoint-{step:09d}.npz", write)
        for old in self._checkpoints()[:-CHECKPOINTS_KEPT]:
            old.unlink()

    def load_checkpoint(self):
        """Returns `(arrays, record)` of the newest checkpoint that is whole, or None if there is none yet.

        A damaged one is passed over with a warning, if there is an older one to go back to.
        """
        damaged = []
        for path in reversed(self._checkpoints()):
            try:
                with np.load(path, allow_pickle=False) as file:
                    arrays = {name: file[name] for name in file.files}
                record = json.loads(arrays.pop("__record__").tobytes())
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
                damaged.append(f"{path}: damaged checkpoint ({error})")
                continue
            for message in damaged:
                warnings.warn(f"{message}; going back to {path.name}", stacklevel=2)
            return arrays, record
        if damaged:
            raise RunError(f"{'; '.join(damaged)}; delete it to begin anew")
        return None

    def _checkpoints(self):
        """Returns the checkpoints, oldest first."""
        return sorted(path for path in self.path.glob("checkpoint-*.npz") if re.fullmatch(r"checkpoint-\d{9}\.npz", path.name))

    def _read_json(self, name):
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RunError(f"{path}: damaged ({error}); restore it or choose another --save_path") from None


def write_atomically(path, content):
    """Writes bytes, or what `content(file)` writes, so that `path` holds either all of it or what it held before."""
    aside = path.parent / ".writing"  # always the same name, so that crashes leave no more than one such file behind
    with open(aside, "wb") as file:
        content(file) if callable(content) else file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)  # the rename itself
    os.close(folder)
