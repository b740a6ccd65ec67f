"""The folder of a run.

    config.json              the configuration, what was overridden, seed, precision and fingerprint of the text
    vocabulary.txt           one word per line, in the order of the ids
    checkpoint-<step>.npz    everything the run has learnt: the last two, and the one of the start of the epoch
    history.jsonl            one line per epoch
    events…, train/, valid/  the same and more, as curves for TensorBoard
    result.json              the final score
    lock                     the process that trains here, or did last

A resumed run rewrites whatever else changes during training from the newest checkpoint, so no crash can leave files that
contradict each other.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from ptb.config import ConfigError, flatten, from_json, non_defaults, upgrade
from ptb.data.vocabulary import Vocabulary
from ptb.runs.checkpoint import CheckpointStore
from ptb.runs.storage import RunError, reading, write_atomically, writing
from ptb.training.state import StateMismatch, TrainState

try:
    import fcntl
except ImportError:  # Windows, where the commands end with one line (cli.py) and the library can still load runs
    fcntl = None

FILES = ("checkpoint-*.npz", "vocabulary.txt", "history.jsonl", "result.json")
CURVES = ("events.out.*", "train/events.out.*", "valid/events.out.*")
COMPARED = ("seed", "precision", "corpus", "retired")  # of config.json, besides the configuration itself

logger = logging.getLogger(__name__)


class RunFolder:
    """The folder of a run. With `read_only`, as for workers other than the first, nothing is ever written to it."""

    def __init__(self, path: str | os.PathLike, read_only: bool = False):
        self.path = pathlib.Path(os.path.expanduser(path))  # Path.expanduser raises for ~nobody
        self.read_only = read_only
        self.checkpoints = CheckpointStore(self.path, read_only)
        self.vocabulary_path = self.path / "vocabulary.txt"
        self._digests: dict[str, str] = {}  # known when the run begins

    @property
    def config(self) -> dict[str, Any] | None:
        """The content of `config.json`, in today's form; None before the run has begun."""
        record = self._read_json("config.json", "restore it from a copy, or choose another --save_path")
        try:
            return record and upgrade(record)
        except ConfigError as error:
            raise RunError(f"{self.path / 'config.json'}: {error}") from None

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of `result.json`; None before the run has finished, or if the file is damaged: it is written again."""
        try:
            return self._read_json("result.json", "it is written again", "test_perplexity")
        except RunError as error:
            logger.warning("%s", error)
            return None

    def matches(self, config: dict[str, Any]) -> bool:
        """Return whether this run has begun here; False if none has. Raises RunError if another run has.

        The text may have moved, and the configuration may have another name: fingerprint and fields are compared.
        """
        begun = self.config
        if begun is None:
            unowned = [path for pattern in FILES + CURVES for path in self.path.glob(pattern)]
            if unowned and not self.read_only:  # other workers may see what the first has just written
                raise RunError(f"{unowned[0]}: is of a run without config.json; restore that, or choose another --save_path")
            return False
        before, now = (self._comparable(record) for record in (begun, config))
        differing = [
            f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]
        if differing:
            raise RunError(
                f"{self.path}: holds another run ({'; '.join(differing)}); choose another --save_path (reproduce.py: --runs)"
            )
        return True

    def begin(self, config: dict[str, Any], vocabulary: Vocabulary) -> None:
        """Make the folder and writes `config.json` and `vocabulary.txt`. Raises RunError if another run has begun here."""
        self.matches(config)
        if self.read_only:
            return
        self._make_folder()
        if config != self._read_json("config.json", ""):
            self.write_json("config.json", config)
        self._write(self.vocabulary_path.name, vocabulary.to_bytes())
        self._digests = digests(config, vocabulary)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and keep other processes from training in it. Raises RunError if one does.

        The kernel holds the lock on the open file. It ends with the process, however that ends, so it is never stale.
        """
        if self.read_only:
            yield
            return
        self._make_folder()
        path = self.path / "lock"
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with open(descriptor, "r+b", buffering=0) as file:  # unbuffered: closing it writes nothing and cannot fail
            self._lock(file, path)
            with writing(path):
                file.truncate()
                file.write(str(os.getpid()).encode())
            yield

    def _lock(self, file, path):
        if fcntl is None:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = file.read().decode(errors="replace")
            raise RunError(
                f"{self.path}: process {owner} is training here; wait until it ends, or choose another --save_path"
            ) from None
        except OSError as error:
            raise RunError(
                f"{path}: cannot be locked ({error.strerror}); choose a --save_path on a file system that supports flock"
            ) from None

    def save(self, state: TrainState) -> None:
        """Write a checkpoint of the state. Raises Diverged instead if a number in it is not finite."""
        arrays, record = state.to_arrays(), state.to_record() | {"digests": self._digests}
        self.checkpoints.save(state.step, arrays, record, epoch_step=state.step - state.window)
        state.mark_saved()

    def restore(self, state: TrainState) -> bool:
        """Restore the state from the newest checkpoint and return True; False if there is none.

        Raises RunError for a checkpoint of another model or of another version of this program.
        """
        checkpoint = self.checkpoints.load()
        if checkpoint is None:
            return False
        record = {name: value for name, value in checkpoint.record.items() if name != "digests"}
        try:
            state.restore(checkpoint.arrays, record)
        except StateMismatch as error:
            raise RunError(f"{checkpoint.path}: {error}; use the program that wrote it") from None
        return True

    def write_json(self, name: str, record: dict[str, Any]) -> None:
        self._write(name, (json.dumps(record, indent=2) + "\n").encode())

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Write `history.jsonl`, one line per record."""
        self._write("history.jsonl", "".join(json.dumps(record) + "\n" for record in history).encode())

    def _write(self, name, content):
        if not self.read_only:
            write_atomically(self.path / name, content)

    def _make_folder(self):
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def _comparable(self, record):
        try:
            config = flatten(from_json(record["config"]))
        except (ConfigError, LookupError) as error:
            raise RunError(f"{self.path / 'config.json'}: {error}; another version of this program wrote it") from None
        return config | {name: record.get(name) for name in COMPARED}

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
            raise RunError(f"{path}: cannot be read ({error.strerror}); name a folder that is readable") from None
        return record


def digests(config: dict[str, Any], vocabulary: Vocabulary) -> dict[str, str]:
    """Return short hashes of a config.json and a vocabulary, by which a checkpoint recognises them as its own.

    Only fields that differ from their defaults count, so that a later version can add fields.
    """
    fields = json.dumps(non_defaults(from_json(config["config"])), sort_keys=True).encode()
    contents = {"config.json": fields, "vocabulary.txt": vocabulary.to_bytes()}
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in contents.items()}
