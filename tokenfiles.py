"""Texts too large for memory: their token ids, in a file beside each text, memory-mapped.

A text is read once, line by line. It leaves `train.txt.<key>.ids`, int32 after int32, and `train.txt.<key>.words`, the
vocabulary of these ids; the key stands for that vocabulary and for the level of the tokens. `train.txt.<key>.json` says what
they were made of, with a checksum of both, `train.txt.<level>.json` the same of a text read without a vocabulary. What no
longer fits is made anew; whatever lies beside a text can be deleted.
"""

import contextlib
import hashlib
import json
import os
import reprlib
import shutil
import tempfile
import time
import zlib
from array import array
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

import numpy as np

from reader import EOS, TOKENS, UNK, Corpus, Vocabulary, cure_of_unknown, split_line
from textfiles import DataError, iterate_text, opened

CHUNK = 1 << 20  # ids at a time
DAY = 24 * 60 * 60  # seconds, in which ids of any text are made

logger = getLogger(__name__)


def read_corpus(files: Sequence[str], vocabulary: Vocabulary | None = None, level: str = "word") -> Corpus:
    """The corpus of the files of train, valid and test, as `reader.read_corpus` gives it, in memory-mapped arrays.

    DataError as there, and where nothing can be written beside the texts; texts whose ids are equal are the same text, whatever
    their unknown words; the warning of these comes when ids are made.
    """
    texts = []
    for file in files:
        vocabulary, ids = read_ids(file, vocabulary, level)
        if texts and np.array_equal(ids, texts[0]):
            raise DataError(f"{file}: is the same text as {files[0]}; give a text that is not trained on")
        texts.append(ids)
    return Corpus(vocabulary, *texts)


def read_ids(path: str, vocabulary: Vocabulary | None = None, level: str = "word") -> tuple[Vocabulary, np.ndarray]:
    """The ids of a text, int32 `[N]`, memory-mapped, in the vocabulary given or else in the text's own."""
    if vocabulary and EOS not in vocabulary.ids:
        raise DataError(f"{path}: the vocabulary to read with has no {EOS}; use that of a trained model")
    with opened(path) as file:
        status = os.stat(file.fileno())
    source = {"bytes": status.st_size, "modified": status.st_mtime_ns}
    asked = _key(vocabulary, level) if vocabulary else level
    try:
        record = json.loads(Path(f"{path}.{asked}.json").read_bytes())
        made = f"{path}.{record['key']}"
        if record == {"key": record["key"], "source": source, "crc32": _checksum(made)}:
            return Vocabulary.load(f"{made}.words"), _mapped(f"{made}.ids")
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # the first time, or damaged
        pass
    try:
        return _make(path, source, vocabulary, level)
    except OSError as error:
        raise DataError(
            f"{path}: nothing can be written beside it ({error.strerror}); so large a text needs room there for its ids, "
            "4 bytes a token: make room, or move it to a folder that can be written to"
        ) from None


def _make(path, source, vocabulary, level):
    """Returns the vocabulary and the ids, and leaves them beside the text; processes that do so at once do not meet."""
    folder = os.path.dirname(os.path.abspath(path))
    _drop_what_was_left(folder)
    with tempfile.TemporaryDirectory(prefix=".ids-", dir=folder) as aside:
        known = _write_ids(path, f"{aside}/new.ids", vocabulary, level)
        own = vocabulary is None
        if own:
            vocabulary = _renumber(_mapped(f"{aside}/new.ids", "r+"), list(known))
        Path(f"{aside}/new.words").write_bytes(vocabulary.to_bytes())
        made = f"{path}.{_key(vocabulary, level)}"
        record = {"key": _key(vocabulary, level), "source": source, "crc32": _checksum(f"{aside}/new")}
        for ending in ("ids", "words"):
            os.replace(f"{aside}/new.{ending}", f"{made}.{ending}")
        for name in (made, f"{path}.{level}") if own else (made,):
            Path(f"{aside}/new.json").write_text(json.dumps(record))
            os.replace(f"{aside}/new.json", f"{name}.json")
    if known.unknown:
        logger.warning("%s outside the vocabulary, read as %s: %s in %s", TOKENS[level], UNK, f"{known.unknown:,}", path)
    return vocabulary, _mapped(f"{made}.ids")


def _drop_what_was_left(folder):
    """Deletes what processes that were killed have left of the ids that they were making."""
    for aside in Path(folder).glob(".ids-*"):
        with contextlib.suppress(OSError):  # another process deletes it too
            if time.time() - aside.stat().st_mtime > DAY:
                shutil.rmtree(aside)


def _write_ids(path, ids_path, vocabulary, level):
    """Writes the ids, without a vocabulary by first appearance. Returns the ids of all words."""
    known = _Known(vocabulary)
    waiting, has_words = array("i"), False
    with opened(path) as text, open(ids_path, "wb") as file:
        for number, line in enumerate(iterate_text(text, path), 1):
            tokens = split_line(line, level)
            has_words = has_words or bool(line.split())
            try:
                waiting.extend(map(known.__getitem__, tokens))
            except KeyError as error:
                raise DataError(
                    f"{path}: has {reprlib.repr(error.args[0])} in line {number}, which the vocabulary lacks, and the "
                    f"vocabulary has no {UNK} for it; {cure_of_unknown(level)}"
                ) from None
            waiting.append(known[EOS])
            if len(waiting) >= CHUNK:
                waiting.tofile(file)
                del waiting[:]
        waiting.tofile(file)
    if not has_words:
        raise DataError(f"{path}: holds no words; give it a text with one sentence a line")
    return known


class _Known(dict):
    """The ids of words. A new word gets the next one where no vocabulary was given, else that of `<unk>`, or is a KeyError."""

    def __init__(self, vocabulary):
        super().__init__(vocabulary.ids if vocabulary else ())
        self.grows = vocabulary is None
        self.unknown = 0

    def __missing__(self, word):
        if self.grows:
            return self.setdefault(word, len(self))
        if UNK not in self:
            raise KeyError(word)
        self.unknown += 1
        return self[UNK]


def _renumber(ids, words):
    """Turns ids by first appearance, in place, into those of the vocabulary that it returns: by descending count, then word."""
    counts = sum(np.bincount(chunk, minlength=len(words)) for chunk in _chunks(ids))
    order = sorted(range(len(words)), key=lambda index: (-counts[index], words[index]))
    new_ids = np.empty(len(words), np.int32)
    new_ids[order] = np.arange(len(words))
    for chunk in _chunks(ids):
        chunk[:] = new_ids[chunk]
    ids.flush()
    return Vocabulary(tuple(words[index] for index in order))


def _key(vocabulary, level):
    return hashlib.sha256("\n".join([level, *vocabulary.words]).encode()).hexdigest()[:8]


def _checksum(made):
    checksum = zlib.crc32(Path(f"{made}.words").read_bytes())
    for chunk in _chunks(_mapped(f"{made}.ids")):
        checksum = zlib.crc32(chunk, checksum)
    return checksum


def _mapped(path, mode="r"):
    return np.memmap(path, np.int32, mode)


def _chunks(ids):
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
