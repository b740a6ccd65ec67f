"""Checkpoints: files with everything that a run has learnt, the newest of which a run continues from.

A checkpoint holds arrays (weights, optimiser, recurrent state, sums) and a JSON record (place in the text, history, curves).
The format is NumPy's: a zip file with a CRC-32 of each member and no pickles, so reading one cannot execute code.
"""

import errno
import json
import logging
import pathlib
import re
from typing import NamedTuple

import numpy as np

from ptb.runs.storage import RunError, write_atomically

CHECKPOINTS_KEPT = 2
REWIND_FACTOR = 0.5  # of the learning rates, at each rewind
MAX_REWINDS = 10
RECORD = "__record__"  # name of the JSON record among the arrays
NOT_DAMAGE = (errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT)  # of a read: of the disk, the memory or the network

logger = logging.getLogger(__name__)


class _Damaged(Exception):
    """A checkpoint file that is not what was written. The message says how that shows."""


class Checkpoint(NamedTuple):
    """The content of a checkpoint and its file."""

    arrays: dict
    record: dict
    path: pathlib.Path

    @property
    def step(self) -> int:
        """Windows trained on since the beginning."""
        return _whole(self.record.get("step"))

    @property
    def best_step(self) -> int:
        """The step of the best validation so far; 0 if there was none, or if an older version wrote it."""
        return _whole(self.record.get("best_step"))


class CheckpointStore:
    """The checkpoints `checkpoint-<step>.npz` of a run folder. With `read_only`, as for further workers, it writes nothing."""

    def __init__(self, folder: pathlib.Path, read_only: bool = False):
        self.folder = folder
        self.read_only = read_only
        self._damaged: list[pathlib.Path] = []  # skipped while loading
        self._best_steps: dict[str, int] = {}  # of the checkpoint files that are known already

    def paths(self) -> list[pathlib.Path]:
        """Return the files, oldest first."""
        files = self.folder.glob("checkpoint-*.npz")
        return sorted(path for path in files if re.fullmatch(r"checkpoint-\d{9}\.npz", path.name))

    def save(self, step: int, arrays: dict, record: dict, epoch_step: int = 0) -> None:
        """Write a checkpoint atomically, then delete older ones.

        Keeps the last two; the one of `epoch_step`, to which a rewind returns; and for each of these the one of its
        `best_step`, which has the weights of the best validation. Damaged ones do not count and are deleted.
        """
        if self.read_only:
            return

        def write(file):
            np.savez(file, **{RECORD: np.frombuffer(json.dumps(record).encode(), np.uint8)}, **arrays)

        write_atomically(self.folder / checkpoint_name(step), write)
        for path in self._damaged:
            if path.name != checkpoint_name(step):
                path.unlink(missing_ok=True)
        self._damaged = []
        self._best_steps[checkpoint_name(step)] = record.get("best_step", 0)
        paths = self.paths()
        kept = {path.name for path in paths[-CHECKPOINTS_KEPT:]} | {checkpoint_name(epoch_step)}
        try:
            kept |= {checkpoint_name(best) for path in paths if path.name in kept and (best := self._best_step(path))}
        except (RunError, MemoryError):
            return  # which files to keep is not known now: the next checkpoint will delete what is old
        for old in paths:
            if old.name not in kept:
                old.unlink()

    def load(self, up_to: int | None = None) -> Checkpoint | None:
        """Return the newest intact checkpoint, of those up to a step if that is given; None if there is none.

        Skips damaged files with a warning if an intact one remains. Raises RunError if only damaged ones remain, or for a file
        that cannot be opened or read: it may be intact. So it may be if the memory is full: MemoryError.
        """
        damaged = []
        for path in self.paths()[::-1]:
            if up_to is not None and path.name > checkpoint_name(up_to):
                continue
            try:
                checkpoint = _read(path)
            except _Damaged as error:
                damaged.append(f"{path}: damaged checkpoint ({error})")
                self._damaged.append(path)
                continue
            for message in damaged:
                logger.warning("%s; continuing from %s", message, path.name)
            return checkpoint
        if damaged:
            raise RunError(f"{'; '.join(damaged)}; restore it from a copy, or delete it to start again")
        return None

    def load_step(self, step: int) -> Checkpoint | None:
        """Return the checkpoint of a step; None with a warning if it cannot be read. MemoryError means that memory is full."""
        path = self.folder / checkpoint_name(step)
        try:
            return _read(path)
        except (_Damaged, RunError) as error:
            logger.warning("%s: has the best weights and cannot be read (%s)", path, error)
            return None

    def delete_after(self, step: int) -> None:
        """Delete the checkpoints of later steps."""
        for path in self.paths():
            if path.name > checkpoint_name(step):
                path.unlink()

    def rewind(self) -> tuple[int, float]:
        """Return to the start of the epoch with lower learning rates, after training diverged.

        Deletes the checkpoints since then: they may have been written after the step that diverged, and depend on the clock.
        Returns the step to continue from and the remaining factor of the configuration's learning rates, `REWIND_FACTOR` per
        rewind. Raises RunError after `MAX_REWINDS`: lower rates do not help; or if there is no checkpoint to return to.
        """
        newest = self.load()  # all of it: a damaged one may be of another epoch
        if newest is None:
            raise RunError(f"{self.folder}: diverged before its first checkpoint; use a lower --set init_scale")
        epoch_step = newest.step - newest.record["window"]
        checkpoint = self.load(up_to=epoch_step)
        if checkpoint is None:
            raise RunError(f"{self.folder}: has no checkpoint of step {epoch_step}, the start of the epoch; train again")
        step, factor = checkpoint.record["step"], checkpoint.record.get("rate_factor", 1.0) * REWIND_FACTOR
        if factor < REWIND_FACTOR**MAX_REWINDS:
            cure = "use a lower --set learning_rate and another --save_path"
            raise RunError(f"{checkpoint.path}: diverged after {MAX_REWINDS} rewinds too; {cure}")
        self.delete_after(step)  # first: a crash here only repeats the rewind
        self.save(step, checkpoint.arrays, checkpoint.record | {"rate_factor": factor}, epoch_step=step)
        return step, factor

    def _best_step(self, path):
        if path.name not in self._best_steps:
            try:
                self._best_steps[path.name] = _read(path, record_only=True).best_step
            except _Damaged:  # load warns of it
                self._best_steps[path.name] = 0
        return self._best_steps[path.name]


def checkpoint_name(step: int) -> str:
    return f"checkpoint-{step:09d}.npz"


def _whole(number):
    return number if isinstance(number, int) else 0


def _read(path, record_only=False):
    """Return a checkpoint, without its arrays if only the record is asked for.

    Raises _Damaged, or RunError if the file cannot be opened or read: it may be intact. So it may be if the memory is full:
    MemoryError.
    """
    try:
        opened = path.open("rb")
    except OSError as error:
        cure = "make it readable, or move it elsewhere to continue without it"
        raise RunError(f"{path}: cannot be read ({error.strerror}); {cure}") from None
    try:
        arrays = _read_arrays(opened, path, record_only)
        record = json.loads(arrays.pop(RECORD).tobytes())
        if not isinstance(record, dict):
            raise ValueError("its record is not a JSON object")
    except MemoryError:
        raise
    except Exception as error:  # zipfile, NumPy and json raise a dozen types for damaged bytes
        if isinstance(error, OSError) and error.errno in NOT_DAMAGE:
            raise RunError(f"{path}: cannot be read ({error.strerror}); try again, or copy it to another disk") from None
        raise _Damaged(f"{type(error).__name__}: {error}") from None
    return Checkpoint(arrays, record, path)


def _read_arrays(opened, path, record_only):
    """Return the arrays of a file by name. MemoryError means that the memory is full, not that damage made a size too large."""
    with opened, np.load(opened, allow_pickle=False) as file:
        if sum(member.file_size for member in file.zip.infolist()) > path.stat().st_size:
            raise ValueError("unpacks to more than its size")  # ours are not compressed: this is a decompression bomb
        try:
            return {name: file[name] for name in ([RECORD] if record_only else file.files)}
        except MemoryError:
            if damaged := file.zip.testzip():
                raise ValueError(f"{damaged} is damaged") from None
            raise
