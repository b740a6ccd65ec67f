"""Texts too large for memory: the token ids in a memory-mapped file beside each text.

A text is read once, line by line. The result is stored in three files beside, for example, `train.txt`:

| file | contents |
|---|---|
| `train.txt.<key>.ids` | token ids, int32, without a header |
| `train.txt.<key>.words` | the vocabulary of these ids, in the format of `Vocabulary.to_bytes` |
| `train.txt.<key>.json` | the key, size and modification time of the text, CRC-32 of `.words` and `.ids` |

The key is a hash of the vocabulary and of how the text is read. If it was read without a vocabulary, `train.txt.<level>.json`
is a copy of the record, with the options in its name if they are not the usual ones (`train.txt.word-min_count=2.json`).

If a file is missing, damaged or older than the text, all are made again; a user may delete them.
"""

import hashlib
import json
import os
import tempfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ptb.data.files import DataError, delete_abandoned, open_binary, read_file
from ptb.data.sources import Text, read_pieces
from ptb.data.tokens import UNK
from ptb.data.vocabulary import Reading, TokenIds, Vocabulary, require_eos, unknown_tokens_error, warn_of_unknown

CHUNK = 1 << 20  # ids processed at a time


def read_ids(path: str, vocabulary: Vocabulary | None = None, reading: Reading = Reading()) -> tuple[Vocabulary, np.ndarray]:
    """Return the vocabulary and the memory-mapped ids of a text, int32 `[N]`. Reads the text only if no ids are stored.

    If `vocabulary` is None, build it from the text. The warning of unknown words appears only when ids are made.

    Raises DataError if the text cannot be read, has no words, or has a word that neither the vocabulary nor its `<unk>`
    covers; or if nothing can be written beside it.
    """
    if vocabulary is not None:
        require_eos(vocabulary, path)
    with open_binary(path) as file:
        status = os.stat(file.fileno())
    source = {"bytes": status.st_size, "modified": status.st_mtime_ns}
    stored = _load(path, _label(reading) if vocabulary is None else _key(vocabulary, reading), source)
    if stored:
        return stored
    try:
        return _make(path, source, vocabulary, reading)
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


def _make(path: str, source: dict, vocabulary: Vocabulary | None, reading: Reading) -> tuple[Vocabulary, np.ndarray]:
    """Read a text, store its ids beside it, and return them as `read_ids` does.

    Files are written in a temporary folder and then renamed, so several processes can do this at the same time.
    """
    folder = os.path.dirname(os.path.abspath(path))
    delete_abandoned(folder, ".ids-*")
    with tempfile.TemporaryDirectory(prefix=".ids-", dir=folder) as temporary:
        new = f"{temporary}/new"
        words = _write_ids(path, f"{new}.ids", vocabulary, reading)
        ids, is_own = _map(f"{new}.ids", "r+"), vocabulary is None
        counts = sum(np.bincount(chunk, minlength=len(words)) for chunk in _chunks(ids))
        if is_own:
            vocabulary = reading.build_vocabulary(dict(zip(words, counts.tolist())))
        unknown = [index for index, word in enumerate(words) if word not in vocabulary.ids and counts[index]]
        if is_own or unknown:
            _renumber(ids, vocabulary, words)
        Path(f"{new}.words").write_bytes(vocabulary.to_bytes())
        key = _key(vocabulary, reading)
        base = f"{path}.{key}"
        record = {"key": key, "source": source, "crc32": _checksum(new)}
        for ending in ("ids", "words"):
            os.replace(f"{new}.{ending}", f"{base}.{ending}")
        for name in (key, _label(reading)) if is_own else (key,):
            Path(f"{new}.json").write_text(json.dumps(record))
            os.replace(f"{new}.json", f"{path}.{name}.json")
    if unknown:
        warn_of_unknown({path: int(counts[unknown].sum())}, reading.level, (words[index] for index in unknown), vocabulary)
    return vocabulary, _map(f"{base}.ids")


def _write_ids(path: str, ids_path: str, vocabulary: Vocabulary | None, reading: Reading) -> list[str]:
    """Write ids of a text to `ids_path` and return their words: those of the vocabulary, then new ones by first appearance.

    Raises UnknownTokens if a word is new to a vocabulary without `<unk>`.
    """
    token_ids, buffer, number = TokenIds(vocabulary), array("i"), 1
    is_closed = vocabulary is not None and UNK not in vocabulary.ids
    text = Text(path, lambda: read_file(path, reading.encoding))
    with open(ids_path, "wb") as file:
        for piece in reading.tokenize(read_pieces([text]), vocabulary, path):
            buffer.extend(map(token_ids.__getitem__, piece.tokens))
            if is_closed and len(token_ids) > len(vocabulary):
                raise unknown_tokens_error(path, reading.level, [([*token_ids][len(vocabulary)], number)], vocabulary)
            number += piece.ends_line
            if len(buffer) >= CHUNK:
                buffer.tofile(file)
                del buffer[:]
        buffer.tofile(file)
    return list(token_ids)


def _renumber(ids: np.ndarray, vocabulary: Vocabulary, words: Sequence[str]) -> None:
    """Replace ids, which index `words`, in place by the ids of these words in a vocabulary."""
    new_ids = vocabulary.encode(words)
    for chunk in _chunks(ids):
        chunk[:] = new_ids[chunk]
    ids.flush()


def _label(reading: Reading) -> str:
    """Return a name for how a text is read: the level, and what is not usual."""
    usual = Reading()._asdict()
    options = [f"{name}={value}" for name, value in reading._asdict().items() if value != usual[name] and name != "level"]
    return "-".join([reading.level, *options])


def _key(vocabulary: Vocabulary, reading: Reading) -> str:
    label = _label(reading._replace(min_count=0, vocab_size=0))
    return hashlib.sha256("\n".join([label, *vocabulary.words]).encode()).hexdigest()[:8]


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
