"""Corpora: the token ids of train, valid and test, from any source."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import NamedTuple

import numpy as np

from ptb.data import download, files, grammar, memmap
from ptb.data.files import SPLITS, DataError
from ptb.data.vocabulary import (
    UNK,
    Vocabulary,
    require_eos,
    split_line,
    tokenize,
    unknown_tokens_error,
    warn_of_unknown,
)


class Corpus(NamedTuple):
    """A text in three splits, each int32 `[N]`, and the vocabulary of their ids."""

    vocabulary: Vocabulary
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits of a SHA-256 over the vocabulary, the ids and the lengths of the splits.

        A run records it to detect another text, or the same text split elsewhere.
        """
        digest = hashlib.sha256()
        for part in ("\n".join(self.vocabulary.words).encode(), self.train, self.valid, self.test):
            digest.update(f"{len(part)}:".encode())
            digest.update(part)
        return digest.hexdigest()[:16]


def load_corpus(
    data_path: str | os.PathLike | None,
    vocabulary: Vocabulary | None = None,
    level: str = "word",
    fractions: tuple[float, float] = (0.9, 0.05),
    extend: bool = False,
) -> Corpus:
    """Load the corpus that `--data_path` names. If `vocabulary` is None, build it from the training text.

    With `extend`, the words of the text that a given vocabulary lacks are added after its own.

    `data_path` is None for PTB (from the cache, or downloaded into it), "demo" for the built-in text of
    `ptb.data.grammar` (write "./demo" for a folder of that name), or a path for `read_corpus`. If a folder has a text too
    large for memory, the ids are memory-mapped; see `ptb.data.memmap`.

    Raises DataError if the download fails, or if `read_corpus` or `memmap.read_ids` does.
    """
    if extend and vocabulary:
        vocabulary = vocabulary.extended(load_corpus(data_path, None, level, fractions).vocabulary.words)
    if data_path == "demo":
        return build_corpus(*grammar.demo_text(seed=0), vocabulary=vocabulary, level=level)
    path = download.download_ptb(download.ptb_cache()) if data_path is None else data_path
    if large := files.large_files(path):
        return _map_corpus(large, vocabulary, level)
    return read_corpus(path, vocabulary, level, fractions)


def read_corpus(
    path: str | os.PathLike,
    vocabulary: Vocabulary | None = None,
    level: str = "word",
    fractions: tuple[float, float] = (0.9, 0.05),
) -> Corpus:
    """Read a corpus from files into memory. If `vocabulary` is None, build it from the training text.

    `path` is one of:

    - a folder with `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt`, or `train.txt`, `valid.txt` and `test.txt`;
    - a folder with these files in `data/`, such as `simple-examples`;
    - `simple-examples.tgz` itself, which is read without unpacking it to disk;
    - one text file, split into train and valid by `fractions`, and test, which is the rest.

    One text file has no `<unk>` of its own, so its vocabulary differs. At level "char" it is all characters of the file,
    as in char-rnn (Karpathy 2015). At level "word" `<unk>` replaces the words that occur once in train, unless train
    contains `<unk>`.

    Raises DataError if a file is missing, damaged or not text, or if `build_corpus` does.
    """
    texts = files.load_splits(path, fractions)
    if vocabulary is None and files.is_single_file(path):
        if level == "char":
            vocabulary = Vocabulary.build(tokenize(chain(*texts.values()), level))
        else:
            vocabulary = Vocabulary.build(tokenize(next(iter(texts.values()))), rare=1)
    return build_corpus(*texts.values(), vocabulary=vocabulary, names=tuple(texts), level=level)


def read_tokens(path: str | os.PathLike, vocabulary: Vocabulary, level: str = "word") -> np.ndarray:
    """Read the token ids of one text file, int32 `[N]`. Warns and raises as `read_corpus`."""
    path = os.path.expanduser(path)
    return _encode({path: files.read_lines(path)}, vocabulary, level)[0]


def build_corpus(
    train: Sequence[str],
    valid: Sequence[str],
    test: Sequence[str],
    vocabulary: Vocabulary | None = None,
    names: Sequence[str] = SPLITS,
    level: str = "word",
) -> Corpus:
    """Build a corpus from three lists of lines. If `vocabulary` is None, build it from `train` alone.

    Unknown words become `<unk>`, with one warning that counts them. `names` are the three texts' names for messages.

    Raises DataError if valid or test is the training text, because its score would be meaningless; or if a word is
    unknown and the vocabulary has no `<unk>`.
    """
    texts = dict(zip(names, (train, valid, test), strict=True))
    for name in names[1:]:
        if all(a == b for a, b in zip_longest(tokenize(texts[name], level), tokenize(train, level))):
            raise _same_text_error(name, names[0])
    if vocabulary is None:
        vocabulary = Vocabulary.build(tokenize(train, level))
    return Corpus(vocabulary, *_encode(texts, vocabulary, level))


def _map_corpus(paths: Sequence[str], vocabulary: Vocabulary | None, level: str) -> Corpus:
    """Read a corpus from the files of train, valid and test into memory-mapped arrays. Raises as `build_corpus`.

    Two texts with equal ids are taken for the same text, although their unknown words may differ.
    """
    splits = []
    for path in paths:
        vocabulary, ids = memmap.read_ids(path, vocabulary, level)
        if splits and np.array_equal(ids, splits[0]):
            raise _same_text_error(path, paths[0])
        splits.append(ids)
    return Corpus(vocabulary, *splits)


def _same_text_error(name: str, train_name: str) -> DataError:
    return DataError(f"{name}: is the same text as {train_name}; give a text that is not used for training")


def _encode(texts: Mapping[str, Sequence[str]], vocabulary: Vocabulary, level: str) -> list[np.ndarray]:
    """Return the ids of named texts, each int32 `[N]`. Logs one warning for the unknown words of all texts."""
    require_eos(vocabulary, ", ".join(texts))
    ids = vocabulary.ids
    unknown_counts = {}
    for name, lines in texts.items():
        numbered = enumerate(lines, 1)
        unknown = ((token, number) for number, line in numbered for token in split_line(line, level) if token not in ids)
        first = list(islice(unknown, 5))
        if first and UNK not in ids:
            raise unknown_tokens_error(name, level, first)
        if first:
            unknown_counts[name] = len(first) + sum(1 for _ in unknown)
    if unknown_counts:
        warn_of_unknown(unknown_counts, level)
    return [vocabulary.encode(tokenize(lines, level)) for lines in texts.values()]
