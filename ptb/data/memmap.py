"""Texts too large for memory: the token ids in a memory-mapped file beside each text.

A text is read once, line by line. The result is stored in three files beside, for example, `train.txt`:

| file | contents |
|---|---|
| `train.txt.<key>.ids` | token ids, int32, without a header |
| `train.txt.<key>.words` | the vocabulary of these ids, in the format of `Vocabulary.to_bytes` |
| `train.txt.<key>.json` | the key, size and modification time of the text, CRC-32 of `.words` and `.ids` |

The key is a hash of the vocabulary and the level. If the text was read without a vocabulary, `train.txt.<level>.json` is a
copy of the record. If a file is missing, damaged or older than the text, all are made again; a user may delete them.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ptb.data.files import DataError, iterate_nonempty_text, open_text
from ptb.data.vocabulary import EOS, UNK, Vocabulary, require_eos, split_line, unknown_tokens_error, warn_of_unknown

CHUNK = 1 << 20  # ids processed at a time
DAY = 24 * 60 * 60  # seconds; upper bound on the time to read any text


def read_ids(path: str, vocabulary: Vocabulary | None = None, level: str = "word") -> tuple[Vocabulary, np.ndarray]:
    """Return the vocabulary and the memory-mapped ids of a text, int32 `[N]`. Reads the text only if no ids are stored.

    If `vocabulary` is None, build it from the text. The warning of unknown words appears only when ids are made.

    Raises DataError if the text cannot be read, has no words, or has a word that neither the vocabulary nor its `<unk>`
    covers; or if nothing can be written beside it.
    """
    if vocabulary is not None:
        require_eos(vocabulary, path)
    with open_text(path) as file:
        status = os.stat(file.fileno())
    source = {"bytes": status.st_size, "modified": status.st_mtime_ns}
    stored = _load(path, level if vocabulary is None else _key(vocabulary, level), source)
    if stored:
        return stored
    try:
        return _make(path, source, vocabulary, level)
    except OSError as error:
        raise DataError(
            f"{path}: cannot write token ids beside this text ({error.strerror}); a large text needs 4 bytes per token "
            "there: free disk space, or move the text to a writable folder"
        ) from None


def _load(path: str, name: str, source: dict) -> tuple[Vocabulary, np.ndarray] | None:
    """Load stored ids by the record `<path>.<name>.json`. Returns None if they are missing, damaged or out of date."""
    try:
        record = json.loads(Path(f"{path}.{name}.json").read_bytes())
        base = f"{path}.{record['key']}"
        if record == {"key": record["key"], "source": source, "crc32": _checksum(base)}:
            return Vocabulary.load(f"{base}.words"), _map(f"{base}.ids")
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # any JSON value may be in a damaged record
        pass
    return None


def _make(path: str, source: dict, vocabulary: Vocabulary | None, level: str) -> tuple[Vocabulary, np.ndarray]:
    """Read a text, store its ids beside it, and return them as `read_ids` does.

    Files are written in a temporary folder and then renamed, so several processes can do this at the same time.
    """
    folder = os.path.dirname(os.path.abspath(path))
    _delete_abandoned(folder)
    with tempfile.TemporaryDirectory(prefix=".ids-", dir=folder) as temporary:
        new = f"{temporary}/new"
        token_ids = _write_ids(path, f"{new}.ids", vocabulary, level)
        is_own = vocabulary is None
        if is_own:
            vocabulary = _sort_ids(_map(f"{new}.ids", "r+"), list(token_ids))
        Path(f"{new}.words").write_bytes(vocabulary.to_bytes())
        key = _key(vocabulary, level)
        base = f"{path}.{key}"
        record = {"key": key, "source": source, "crc32": _checksum(new)}
        for ending in ("ids", "words"):
            os.replace(f"{new}.{ending}", f"{base}.{ending}")
        for name in (key, level) if is_own else (key,):
            Path(f"{new}.json").write_text(json.dumps(record))
            os.replace(f"{new}.json", f"{path}.{name}.json")
    if token_ids.num_unknown:
        warn_of_unknown({path: token_ids.num_unknown}, level)
    return vocabulary, _map(f"{base}.ids")


def _delete_abandoned(folder: str) -> None:
    """Delete the temporary folders of killed processes, known by an age of over one day."""
    for temporary in Path(folder).glob(".ids-*"):
        with contextlib.suppress(OSError):  # another process may delete it at the same time
            if time.time() - temporary.stat().st_mtime > DAY:
                shutil.rmtree(temporary)


def _write_ids(path: str, ids_path: str, vocabulary: Vocabulary | None, level: str) -> "_TokenIds":
    """Write the ids of a text to `ids_path`. Without a vocabulary, ids are numbered by first appearance."""
    token_ids = _TokenIds(vocabulary)
    buffer = array("i")
    with open_text(path) as text, open(ids_path, "wb") as file:
        for number, line in enumerate(iterate_nonempty_text(text, path), 1):
            try:
                buffer.extend(map(token_ids.__getitem__, split_line(line, level)))
            except KeyError as error:
                raise unknown_tokens_error(path, level, [(error.args[0], number)]) from None
            buffer.append(token_ids[EOS])
            if len(buffer) >= CHUNK:
                buffer.tofile(file)
                del buffer[:]
        buffer.tofile(file)
    return token_ids


class _TokenIds(dict):
    """A map from token to id. Without a vocabulary, a new token gets the next id.

    With a vocabulary, an unknown token gets the id of `<unk>` and is counted in `num_unknown`. Raises KeyError if the
    vocabulary has no `<unk>`.
    """

    def __init__(self, vocabulary: Vocabulary | None):
        super().__init__(() if vocabulary is None else vocabulary.ids)
        self.grows = vocabulary is None
        self.num_unknown = 0

    def __missing__(self, token: str) -> int:
        if self.grows:
            return self.setdefault(token, len(self))
        if UNK not in self:
            raise KeyError(token)
        self.num_unknown += 1
        return self[UNK]


def _sort_ids(ids: np.ndarray, words: Sequence[str]) -> Vocabulary:
    """Renumber ids in place to the order of `Vocabulary.build`, and return that vocabulary.

    `words` are in the order of the old ids.
    """
    counts = sum(np.bincount(chunk, minlength=len(words)) for chunk in _chunks(ids))
    order = sorted(range(len(words)), key=lambda index: (-counts[index], words[index]))
    new_ids = np.empty(len(words), np.int32)
    new_ids[order] = np.arange(len(words))
    for chunk in _chunks(ids):
        chunk[:] = new_ids[chunk]
    ids.flush()
    return Vocabulary(tuple(words[index] for index in order))


def _key(vocabulary: Vocabulary, level: str) -> str:
    return hashlib.sha256("\n".join([level, *vocabulary.words]).encode()).hexdigest()[:8]


def _checksum(base: str) -> int:
    """Return the CRC-32 of `<base>.words` followed by `<base>.ids`."""
    checksum = zlib.crc32(Path(f"{base}.words").read_bytes())
    for chunk in _chunks(_map(f"{base}.ids")):
        checksum = zlib.crc32(chunk, checksum)
    return checksum


def _map(path: str, mode: str = "r") -> np.ndarray:
    return np.memmap(path, np.int32, mode)


def _chunks(ids: np.ndarray) -> Iterator[np.ndarray]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
