"""The folder of a run.

    config.json              the configuration, what was overridden, seed, precision and fingerprint of the text
    vocabulary.txt           one word per line, in the order of the ids
    checkpoint-<step>.npz    everything the run has learnt: the last two, the one of the start of the epoch, and the one with
                             the best validation
    history.jsonl            one line per epoch
    events…                  the same and more, as curves for TensorBoard; older versions: also in train/ and valid/
    result.json              the final score; result-<step>.json, then result-<step>-2.json, … if the run went on after that
    lock                     the process that trains here, or did last

A resumed run writes every other file that changes during training again, from the newest checkpoint. So no crash can leave
files that contradict each other.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ptb.config import Config, ConfigError, flatten, from_json, non_defaults, upgrade, value_text
from ptb.data.vocabulary import Vocabulary
from ptb.runs.changes import Change, check_place, find_changes
from ptb.runs.checkpoint import Checkpoint, CheckpointStore
from ptb.runs.storage import RunError, reading, write_atomically, writing
from ptb.training.state import StateMismatch, TrainState, best_weights, model_weights

try:
    import fcntl
except ImportError:  # Windows, where the commands end with one line (cli.py) and the library can still load runs
    fcntl = None

FILES = ("checkpoint-*.npz", "vocabulary.txt", "history.jsonl", "result.json")
CURVES = ("events.out.*", "train/events.out.*", "valid/events.out.*")
OTHER_PATH = "choose another --save_path (reproduce.py: --runs)"
KEPT = ("first_config", "changes", "init_from")  # of config.json, as they were when they were written
LONGEST_NAME = 255  # bytes, of a folder
REQUIRED = {"model": str, "seed": int, "precision": str, "corpus": str, "data_path": (str, type(None))}  # of config.json
COMPARED = ("seed", "precision", "corpus", "retired")  # of config.json, besides the configuration itself
EPOCH = ("epoch", "seconds", "learning_rate", "train_perplexity", "valid_perplexity")  # numbers in a record of history.jsonl

logger = logging.getLogger(__name__)


class ChosenWeights(NamedTuple):
    """The best or the last weights of a run, and what they are."""

    arrays: dict[str, np.ndarray]  # by name
    step: int
    path: pathlib.Path  # of the checkpoint that has them
    are_best: bool  # not if the best were asked for but cannot be read
    best_step: int
    last_step: int
    best_are_averages: bool  # of the weights during training

    @property
    def best_are_last(self) -> bool:
        return self.best_step == self.last_step and not self.best_are_averages


class RunFolder:
    """The folder of a run. With `read_only`, as for workers other than the first, nothing is ever written to it."""

    def __init__(self, path: str | os.PathLike, read_only: bool = False):
        self.path = pathlib.Path(os.path.expanduser(path))  # Path.expanduser raises for ~nobody
        self.read_only = read_only
        self.checkpoints = CheckpointStore(self.path, read_only)
        self.vocabulary_path = self.path / "vocabulary.txt"
        self._digests: dict[str, str] = {}  # known when the run begins

    @property
    def record(self) -> dict[str, Any] | None:
        """The content of `config.json`, in today's form; None before the run has begun."""
        record = self._read_json("config.json", "restore it from a copy, or choose another --save_path")
        try:
            return record and upgrade(record)
        except ConfigError as error:
            raise RunError(f"{self.path / 'config.json'}: {error}") from None

    def read_config(self) -> tuple[dict[str, Any], Config]:
        """Return the content of `config.json` and the configuration in it. Raises RunError if no run has begun here."""
        record, path = self.record, self.path / "config.json"
        if record is None:
            raise RunError(f"{self.path}: holds no run (no config.json); name the --save_path of a training run")
        try:
            wrong = [name for name, kind in REQUIRED.items() if not isinstance(record.get(name, ...), kind)]
            if wrong:
                raise ConfigError(f"{', '.join(wrong)}: is missing or of the wrong type")
            return record, from_json(record["config"])
        except (ConfigError, LookupError) as error:
            raise RunError(
                f"{path}: {error}; restore it from a copy, or use the version of this program that wrote it"
            ) from None

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of `result.json`; None before the run has finished, or if the file is damaged."""
        try:
            return self._read_json("result.json", "the command that trains the run writes it again", "test_perplexity")
        except RunError as error:
            logger.warning("%s", error)
            return None

    def adaptations(self, method: str) -> dict[pathlib.Path, dict[str, Any]]:
        """The contents of `adapt-<method>.json` and of the earlier ones beside it, by path, without those that are damaged."""
        found = {}
        for path in [self.path / f"adapt-{method}.json", *sorted(self.path.glob(f"adapt-{method}-[0-9]*.json"))]:
            try:
                if content := self._read_json(path.name, "it is written again"):
                    found[path] = content
            except RunError as error:
                logger.warning("%s", error)
        return found

    def write_adaptation(self, method: str, record: dict[str, Any]) -> None:
        """Write `adapt-<method>.json`; one of other weights or texts stays beside it as `adapt-<method>-2.json`, and so on."""
        if self.read_only:
            return
        path = self.path / f"adapt-{method}.json"
        kept = self.adaptations(method) if path.is_file() else {}
        continued = [other for other, content in kept.items() if content.get("of") == record["of"]]
        with writing(self.path):
            if path in kept and path not in continued:
                os.replace(path, self._free_path(path.stem))
            self.write_json(path.name, record)
            for other in continued:  # the new record has its trials
                if other != path:
                    other.unlink()

    def matches(self, record: dict[str, Any], with_changes: bool = False) -> bool:
        """Return whether this run has begun here; False if none has. Raises RunError if another run has.

        The text may have moved, and the configuration may have another name: fingerprint and fields are compared. With
        `with_changes` fields may differ that a run can change; the result is False then. RunError if no run has begun.
        """
        begun = self.record
        if begun is None:
            if with_changes:
                raise RunError(f"{self.path}: holds no run to resume with changes; name the --save_path of one")
            unowned = [path for pattern in FILES + CURVES for path in self.path.glob(pattern)]
            if unowned and not self.read_only:  # other workers may see what the first has just written
                raise RunError(f"{unowned[0]}: is of a run without config.json; restore that, or choose another --save_path")
            return False
        changes = self._changes(begun, record)
        fixed = [change for change in changes if not change.may_happen()]
        if fixed and with_changes:
            raise RunError(f"{self.path}: cannot change in a run: {_listed(fixed)}; {self._other_run(fixed)}")
        if changes and not with_changes:
            cure = OTHER_PATH if fixed else f"add --resume_with_changes to go on with that, or {OTHER_PATH}"
            raise RunError(f"{self.path}: holds another run ({_listed(changes)}); {cure}")
        return not changes

    def begin(self, record: dict[str, Any], vocabulary: Vocabulary, with_changes: bool = False) -> list[Change]:
        """Make the folder and write `config.json` and `vocabulary.txt`. Return what has changed, with `with_changes`.

        Raises RunError if another run has begun here, or if a change comes too late.
        """
        self.matches(record, with_changes)
        begun = self.record or {}
        changes = self._changes(begun, record) if begun else []
        if self.read_only:
            return changes
        self._make_folder()
        record = record | {name: begun[name] for name in KEPT if name in begun}
        if changes:
            record |= self._go_on(begun, record, changes)
        if record != self._read_json("config.json", ""):
            self.write_json("config.json", record)
        self._write(self.vocabulary_path.name, vocabulary.to_bytes())
        self._digests = digests(record, vocabulary)
        return changes

    def changes_between(self, first: int, last: int) -> list[dict[str, Any]]:
        """Return the records of the changes after `first` or more and fewer than `last` steps."""
        return [change for change in (self.record or {}).get("changes", []) if first <= change["step"] < last]

    def _go_on(self, begun, record, changes):
        """Return what config.json says of changes. The result of a run that was finished stays as result-<step>.json."""
        newest = self.checkpoints.load()
        if newest:
            check_place(changes, from_json(record["config"]), newest)
        step = newest.step if newest else 0
        if (self.path / "result.json").exists():  # before config.json: with the new one it would be its result
            with writing(self.path):
                os.replace(self.path / "result.json", self._free_path(f"result-{step}"))  # may finish twice at a step
        first = begun.get("first_config", begun["config"])
        return {"first_config": first, "changes": begun.get("changes", []) + [change.to_record(step) for change in changes]}

    def _free_path(self, stem):
        """Return `stem`.json, or `stem`-2.json and so on if there is one."""
        stems = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        return next(path for stem in stems if not (path := self.path / f"{stem}.json").exists())

    def _other_run(self, fixed):
        """Return how to train what this run cannot become."""
        fits = not any(change.field.startswith("model.") for change in fixed)
        return OTHER_PATH + (f"; --init_from={self.path} begins there with the weights of this run" if fits else "")

    def _changes(self, begun, record):
        before, now = self._comparable(begun), self._comparable(record)
        if is_same_source(before["init_from"], now["init_from"]):
            now["init_from"] = before["init_from"]
        return find_changes(before, now)

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

        Raises RunError for a checkpoint of another run, or of another version of this program.
        """
        checkpoint = self.checkpoints.load()
        if checkpoint is None:
            return False
        check_digests(checkpoint, self._digests)
        record = {name: value for name, value in checkpoint.record.items() if name != "digests"}
        try:
            state.restore(checkpoint.arrays, record)
        except StateMismatch as error:
            raise RunError(f"{checkpoint.path}: {error}; use the program that wrote it") from None
        return True

    def restore_best(self, state: TrainState) -> None:
        """Assign the weights of the best validation so far to the model. Raises RunError if they cannot be read."""
        weights = state.best_weights
        if not weights and state.best_step not in (0, state.step):
            best = self.checkpoints.load_step(state.best_step)
            if best is None:
                raise RunError(f"{self.path}: the best weights, of step {state.best_step}, are lost; restore them from a copy")
            weights = model_weights(best.arrays)
        for name, array in weights.items():
            state.variables[name].assign(array)

    def choose_weights(self, newest: Checkpoint, which: str = "best") -> "ChosenWeights":
        """Return the "best" or the "last" weights up to a checkpoint.

        The last ones are the best if there was no validation, or if an older version trained the run and kept no best.
        """
        averages, best_step = best_weights(newest.arrays), newest.best_step or newest.step
        arrays, step, path = model_weights(newest.arrays), newest.step, newest.path
        if which == "best":
            if averages:
                arrays, step = averages, best_step
            elif best_step != step and (best := self.checkpoints.load_step(best_step)):
                arrays, step, path = model_weights(best.arrays), best_step, best.path
        return ChosenWeights(arrays, step, path, which == "best" and step == best_step, best_step, newest.step, bool(averages))

    def write_json(self, name: str, record: dict[str, Any]) -> None:
        self._write(name, (json.dumps(record, indent=2) + "\n").encode())

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Write `history.jsonl`, one line per record."""
        self._write("history.jsonl", "".join(json.dumps(record) + "\n" for record in history).encode())

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of the finished epochs. Raises RunError if `history.jsonl` is damaged."""
        path = self.path / "history.jsonl"
        if not path.exists():
            return []
        with reading(path, "restore it from a copy, or run the training command again: it writes the file anew"):
            history = [json.loads(line) for line in path.read_bytes().splitlines()]
            for epoch in history:
                known = epoch if isinstance(epoch, dict) else {}
                missing = [name for name in EPOCH if not isinstance(known.get(name), int | float)]
                if missing:
                    raise ValueError(f"an epoch lacks {', '.join(missing)}")
        return history

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
        return config | {name: record.get(name) for name in (*COMPARED, "init_from")}

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


def _listed(changes):
    return "; ".join(map(str, changes))


def check_digests(checkpoint: Checkpoint, own: dict[str, str]) -> None:
    """Raise RunError if a checkpoint was not written with the config.json or vocabulary that have the digests `own`."""
    known = checkpoint.record.get("digests", {})  # older checkpoints have none: their shapes must fit
    if not isinstance(known, dict):
        raise RunError(f"{checkpoint.path}: its digests are not an object; restore it from a copy")
    for name, digest in own.items():
        if known.get(name, digest) != digest:
            raise RunError(f"{checkpoint.path.parent / name}: is not the one of {checkpoint.path.name}; restore it from a copy")


def digests(record: dict[str, Any], vocabulary: Vocabulary) -> dict[str, str]:
    """Return short hashes of a config.json and a vocabulary, by which a checkpoint recognises them as its own.

    Only fields that differ from their defaults count, so that a later version can add fields. The configuration is the one that
    the run began with: later changes leave its checkpoints valid.
    """
    try:
        first = from_json(record.get("first_config", record["config"]))
    except (ConfigError, LookupError) as error:
        raise RunError(f"config.json: {error}; restore it from a copy") from None
    fields = json.dumps(non_defaults(first), sort_keys=True).encode()
    contents = {"config.json": fields, "vocabulary.txt": vocabulary.to_bytes()}
    return {name: hashlib.sha256(content).hexdigest()[:16] for name, content in contents.items()}


def identity(record: dict[str, Any], vocabulary: Vocabulary) -> str:
    """Return a short hash by which a run is known wherever its folder is: of its configuration, vocabulary, seed and text."""
    facts = digests(record, vocabulary) | {name: record.get(name) for name in COMPARED}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def is_same_source(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Return whether two values of `init_from` name the same run; those of older versions have only its path."""
    if not one or not other:
        return one == other
    if "digest" in one and "digest" in other:
        return one["digest"] == other["digest"]
    return os.path.realpath(one["run"]) == os.path.realpath(other["run"])


def run_name(model: str, overrides: dict, seed: int) -> str:
    """Return the name of a run's folder, which tells runs with other overrides apart: small-learning_rate=0.5-1.

    A hash replaces the end of a name that is too long for a folder.
    """
    changes = [f"{path.rpartition('.')[2]}={value_text(value)}" for path, value in sorted(overrides.items())]
    name = re.sub(r"[^\w.,=+-]", "_", "-".join([model, *changes, str(seed)]))
    if len(name.encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}-{digest}"
