"""What a run leaves in its folder, and how it survives a crash.

    config.json              what was asked for
    vocabulary.txt           one word a line, in the order of the ids
    checkpoint-<step>.npz    everything the run has learnt: the last two, and that of the beginning of the epoch
    history.jsonl            one line an epoch
    events…, train/, valid/  the same and more, as curves for TensorBoard
    result.json              the final score
    lock                     the process that trains here, or did last

A checkpoint holds arrays (weights, recurrent state, running sums) and a JSON record (where the run is, its history, its
curves). Whatever else changes while a run goes on is written anew from the newest checkpoint when it is resumed, so no crash
can leave the files at odds with each other. The format is NumPy's: a zip file with a CRC-32 of each member, and no pickle, so
nothing in it can be executed.
"""

import contextlib
import fcntl
import json
import logging
import os
import pathlib
import re
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

CHECKPOINTS_KEPT = 2
FILES = ("checkpoint-*.npz", "vocabulary.txt", "history.jsonl", "result.json")
CURVES = ("events.out.*", "train/events.out.*", "valid/events.out.*")

logger = logging.getLogger(__name__)


class RunError(Exception):
    """A run folder that cannot be used; the message names the file and says what to do."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds, and where it lies."""

    arrays: dict
    record: dict
    path: pathlib.Path


class Run:
    """A run's folder; with `read_only`, as workers beside the first have it, nothing is ever written to it."""

    def __init__(self, path, read_only=False):
        self.path = pathlib.Path(os.path.expanduser(path))
        self.read_only = read_only
        self._damaged = []  # checkpoints that were passed over
        self.vocabulary_path = self.path / "vocabulary.txt"

    @property
    def config(self):
        """What `config.json` holds; None before the run has begun."""
        return self._read_json("config.json", "restore it from a copy, or choose another --save_path")

    @property
    def result(self):
        """What `result.json` holds; None before the run has finished, and where the file is damaged: it can be made again."""
        try:
            return self._read_json("result.json", "it is made again", "test_perplexity")
        except RunError as error:
            logger.warning("%s", error)
            return None

    def holds(self, config, defaults=MappingProxyType({})):
        """Returns whether the run of this configuration has begun here; RunError where another has.

        Where there is no `config.json`, what runs leave is another's too, or nobody knows whose. `defaults` are
        the values of fields that older versions of the program did not write.
        """
        if self.config is None:
            strange = [path for pattern in FILES + CURVES for path in self.path.glob(pattern)]
            if strange and not self.read_only:  # other workers may find what the first has just written
                raise RunError(f"{strange[0]}: is of a run without config.json; restore that, or choose another --save_path")
            return False
        begun = {**defaults, **self.config}
        differing = [
            f"{name} was {begun.get(name)!r}, now {config.get(name)!r}"
            for name in sorted({*begun, *config} - {"data_path"})  # the text may have moved; its hash is compared
            if begun.get(name) != config.get(name)
        ]
        if differing:
            raise RunError(
                f"{self.path}: holds another run ({'; '.join(differing)}); choose another --save_path (of reproduce.py: --runs)"
            )
        return True

    def begin(self, config, defaults=MappingProxyType({})):
        """Makes the folder and writes `config.json`; RunError where another run has begun here, but its text may have moved."""
        self.holds(config, defaults)
        if config != self.config and not self.read_only:
            self._make_folder()
            self.write_json("config.json", config)

    @contextlib.contextmanager
    def locked(self):
        """Makes the folder and keeps other processes from training in it; RunError where one does.

        The lock is the kernel's, on the open file: it ends with the process, however that ends, so it is never stale.
        """
        if self.read_only:
            yield
            return
        self._make_folder()
        path = self.path / "lock"
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with open(descriptor, "r+b", buffering=0) as file:  # closing it has nothing left to write, and so cannot fail
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{self.path}: process {file.read().decode(errors='replace')} is training here; wait until it ends, or "
                    "choose another --save_path"
                ) from None
            except OSError as error:
                raise RunError(
                    f"{path}: cannot be locked ({error.strerror}); choose a --save_path on a file system that knows flock"
                ) from None
            with writing(path):
                file.truncate()
                file.write(str(os.getpid()).encode())
            yield

    def write_vocabulary(self, vocabulary):
        self._write(self.vocabulary_path.name, vocabulary.to_bytes())

    def write_json(self, name, record):
        self._write(name, (json.dumps(record, indent=2) + "\n").encode())

    def write_history(self, history):
        """Writes `history.jsonl`, one line for each record."""
        lines = [json.dumps(record) + "\n" for record in history]
        self._write("history.jsonl", "".join(lines).encode())

    def save_checkpoint(self, step, arrays, record, epoch_step=0):
        """Writes a checkpoint of `{name: array}` and a JSON record, aside and then renamed, and drops older ones.

        The last two are kept, and that of `epoch_step`, to which a run goes back when it diverges; damaged ones, which would
        count as the last two, are not.
        """

        def write(file):
            np.savez(file, __record__=np.frombuffer(json.dumps(record).encode(), np.uint8), **arrays)

        self._write(checkpoint_name(step), write)
        if self.read_only:
            return
        for path in self._damaged:
            if path.name != checkpoint_name(step):
                path.unlink(missing_ok=True)
        self._damaged = []
        for old in self.checkpoints()[:-CHECKPOINTS_KEPT]:
            if old.name != checkpoint_name(epoch_step):
                old.unlink()

    def drop_checkpoints_after(self, step):
        for path in self.checkpoints():
            if path.name > checkpoint_name(step):
                path.unlink()

    def load_checkpoint(self, up_to=None):
        """Returns the newest `Checkpoint` that is whole, of those up to a step if that is given; None without any.

        A damaged one is passed over with a warning, if there is one to take in its place; else it is a RunError, as is one that
        cannot be opened, which may be whole.
        """
        damaged = []
        for path in self.checkpoints()[::-1]:
            if up_to is not None and path.name > checkpoint_name(up_to):
                continue
            try:
                checkpoint = _read_checkpoint(path)
            except RunError:
                raise
            except Exception as error:  # of damaged bytes zipfile, NumPy and json make a dozen types of them
                damaged.append(f"{path}: damaged checkpoint ({type(error).__name__}: {error})")
                self._damaged.append(path)
                continue
            for message in damaged:
                logger.warning("%s; going on from %s", message, path.name)
            return checkpoint
        if damaged:
            raise RunError(f"{'; '.join(damaged)}; restore it from a copy, or delete it to begin anew")
        return None

    def _write(self, name, content):
        if not self.read_only:
            write_atomically(self.path / name, content)

    def checkpoints(self):
        """Returns the checkpoints, oldest first."""
        return sorted(path for path in self.path.glob("checkpoint-*.npz") if re.fullmatch(r"checkpoint-\d{9}\.npz", path.name))

    def _make_folder(self):
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def _read_json(self, name, cure, *numbers):
        path = self.path / name
        try:
            with reading(path, cure):
                record = json.loads(path.read_bytes())
                if not isinstance(record, dict) or not all(isinstance(record.get(number), float) for number in numbers):
                    raise ValueError(" ".join(["not the expected object", *numbers]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error.strerror}); name a folder that can be") from None
        return record


def checkpoint_name(step):
    return f"checkpoint-{step:09d}.npz"


def _read_checkpoint(path):
    try:
        opened = path.open("rb")
    except OSError as error:
        cure = "make it readable, or move it elsewhere to go on without it"
        raise RunError(f"{path}: cannot be read ({error.strerror}); {cure}") from None
    with opened, np.load(opened, allow_pickle=False) as file:
        if sum(member.file_size for member in file.zip.infolist()) > path.stat().st_size:
            raise ValueError("unpacks to more than it is")  # ours are not compressed: this is a bomb
        arrays = {name: file[name] for name in file.files}
    record = json.loads(arrays.pop("__record__").tobytes())
    if not isinstance(record, dict):
        raise ValueError("its record is no JSON object")
    return Checkpoint(arrays, record, path)


@contextlib.contextmanager
def reading(path, cure):
    """Makes a RunError, which names the file and says the cure, of the errors that damaged JSON gives."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged ({error}); {cure}") from None


@contextlib.contextmanager
def writing(path):
    """Makes an OSError a RunError that names the file: most often the disk is full or the folder read-only."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or choose a folder that can be written to: "
            "the same command goes on from the last checkpoint"
        ) from None


def write_atomically(path, content):
    """Writes bytes, or what `content(file)` writes, so that `path` holds either all of it or what it held before."""
    aside = path.parent / ".writing"  # always the same name, so that crashes leave no more than one such file behind
    with writing(path):
        try:
            with open(aside, "wb") as file:
                content(file) if callable(content) else file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            aside.unlink(missing_ok=True)  # half a file would keep a full disk full
            raise
        os.replace(aside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # the rename itself
        os.close(folder)
