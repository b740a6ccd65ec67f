"""Texts too large for memory: their token ids, in a file beside each text, memory-mapped.

A text is read once, line by line. It leaves `train.txt.<key>.ids`, int32 after int32, `train.txt.<key>.words`, the vocabulary
of these ids, and `train.txt.<key>.json`, which says what they were made of, with a checksum of both; the key stands for the
level of the tokens and for the vocabulary asked for. What no longer fits is made anew.
"""

import hashlib
import json
import os
import reprlib
import zlib
from array import array
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

import numpy as np

from reader import EOS, UNK, Corpus, Vocabulary, split_line
from textfiles import DataError, iterate_lines, opened

CHUNK = 1 << 20  # ids at a time

logger = getLogger(__name__)


def read_corpus(files: Sequence[str], vocabulary: Vocabulary | None = None, level: str = "word") -> Corpus:
    """The corpus of the files of train, valid and test, as `reader.read_corpus` gives it, in memory-mapped arrays.

    DataError as there, and where the files beside the texts cannot be written.
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
    asked = hashlib.sha256(f"{level}\n".encode())
    asked.update("\n".join(vocabulary.words if vocabulary else ()).encode())
    ids_path, words_path, json_path = (f"{path}.{asked.hexdigest()[:8]}.{ending}" for ending in ("ids", "words", "json"))
    with opened(path) as file:
        status = os.stat(file.fileno())
    source = {"bytes": status.st_size, "modified": status.st_mtime_ns}
    try:
        record = json.loads(Path(json_path).read_bytes())
        ids = np.memmap(ids_path, np.int32, "r")
        if record == {"source": source, "crc32": _checksum(ids, words_path)}:
            return Vocabulary.load(words_path), ids
    except (OSError, ValueError, LookupError, TypeError):  # the first time, or damaged
        pass
    try:
        vocabulary, unknown = _write_ids(path, f"{ids_path}.{os.getpid()}", vocabulary, level)
        os.replace(f"{ids_path}.{os.getpid()}", ids_path)
        vocabulary.save(words_path)
        ids = np.memmap(ids_path, np.int32, "r")
        Path(json_path).write_text(json.dumps({"source": source, "crc32": _checksum(ids, words_path)}))
    except OSError as error:
        raise DataError(
            f"{ids_path}: cannot be written ({error.strerror}); so large a text needs room beside it for its ids, "
            "4 bytes a token: make room, or move it to a folder that can be written to"
        ) from None
    finally:
        Path(f"{ids_path}.{os.getpid()}").unlink(missing_ok=True)
    if unknown:
        logger.warning("%ss outside the vocabulary, read as %s: %s in %s", level, UNK, f"{unknown:,}", path)
    return vocabulary, ids


def _write_ids(path, ids_path, vocabulary, level):
    """Returns the vocabulary of the ids written, and how many words were outside the one that was given."""
    known = _Known(vocabulary)
    waiting = array("i")
    with opened(path) as text, open(ids_path, "wb") as file:
        for known.line, line in enumerate(iterate_lines(text, path), 1):
            try:
                waiting.extend(map(known.__getitem__, split_line(line.removeprefix("\ufeff"), level)))
                waiting.append(known[EOS])
            except KeyError as error:
                raise DataError(
                    f"{path}: has {reprlib.repr(error.args[0])} in line {known.line}, which the vocabulary lacks, and the "
                    f"vocabulary has no {UNK} for it; write {UNK} for rare words in every split, or take them out"
                ) from None
            if len(waiting) >= CHUNK:
                waiting.tofile(file)
                del waiting[:]
        waiting.tofile(file)
    if len(known) < 2 and vocabulary is None or not os.path.getsize(ids_path):
        raise DataError(f"{path}: holds no words; give it a text with one sentence a line")
    ids = np.memmap(ids_path, np.int32, "r+")
    if vocabulary is None:
        vocabulary = _renumber(ids, list(known))
    ids.flush()
    return vocabulary, known.unknown


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
    return Vocabulary(tuple(words[index] for index in order))


def _checksum(ids, words_path):
    checksum = zlib.crc32(Path(words_path).read_bytes())
    for chunk in _chunks(ids):
        checksum = zlib.crc32(chunk, checksum)
    return checksum


def _chunks(ids):
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
