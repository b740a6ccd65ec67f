"""Corpora: the token ids of train, valid and test, from any source.

source  →  pieces of texts  →  tokens  →  ids by first appearance  →  vocabulary  →  its ids
"""

import hashlib
import logging
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ptb.data import download, grammar, memmap
from ptb.data.files import SPLITS, DataError
from ptb.data.sources import Source, find_source, name_of, one_text, read_pieces
from ptb.data.tokens import EOS, UNK
from ptb.data.vocabulary import (
    Reading,
    TokenIds,
    UnknownTokens,
    Vocabulary,
    recognize_symbols,
    require_eos,
    unknown_tokens_error,
    warn_of_unknown,
)

FRACTIONS = (0.9, 0.05)  # of train and valid in one text that is cut into three

logger = logging.getLogger(__name__)


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
    fractions: tuple[float, float] = FRACTIONS,
    extend: bool = False,
    **options,
) -> Corpus:
    """Load the corpus that `--data_path` names. If `vocabulary` is None, build it from the training text.

    With `extend`, the words of the text that a given vocabulary lacks are added after its own.

    `data_path` is None for PTB (from the cache, or downloaded into it), "demo" for the built-in text of
    `ptb.data.grammar` (write "./demo" for a folder of that name), or a path for `read_corpus`, which has the `options`. If a
    folder has a text too large for memory, the ids are memory-mapped; see `ptb.data.memmap`.

    Raises DataError if the download fails, or if `read_corpus` or `memmap.read_ids` does.
    """
    if extend and vocabulary:
        vocabulary = vocabulary.extended(load_corpus(data_path, None, level, fractions, **options).vocabulary.words)
    reading = Reading(level, **options)
    if data_path == "demo":
        texts = (one_text(lines, split) for lines, split in zip(grammar.demo_text(seed=0), SPLITS))
        return _read_source(Source(tuple(texts), True), vocabulary, reading, fractions)
    path = download.download_ptb(download.ptb_cache()) if data_path is None else data_path
    source = find_source(path, reading.encoding)
    return (_map_source if source.is_large else _read_source)(source, vocabulary, reading, fractions)


def read_corpus(
    path: str | os.PathLike,
    vocabulary: Vocabulary | None = None,
    level: str = "word",
    fractions: tuple[float, float] = FRACTIONS,
    **options,
) -> Corpus:
    """Read a corpus from files into memory. If `vocabulary` is None, build it from the training text.

    `path` is one of:

    - a folder with `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt`, or `train.txt`, `valid.txt` and `test.txt`, or three
      files of other names with these words, such as `wiki.train.tokens`; in it or in its subfolder `data`;
    - a `.tgz` or a `.zip` of such a folder, which is read without unpacking it to disk;
    - one text file, split into train and valid by `fractions`, and test, which is the rest;
    - several documents, which are read as one text: a folder or an archive of `.txt`, a pattern (`books/*.txt`), or files with
      commas between.

    Files may be compressed: `.gz`, `.bz2`, `.xz`, `.zst`. The `options` are

    - `encoding`: a name that Python knows;
    - `lowercase`: make all letters small, except of words that a given vocabulary has;
    - `min_count`: `<unk>` replaces the tokens that train has less often;
    - `vocab_size`: `<unk>` replaces the rarest tokens, so that no more are left.

    Without the last two, a text that has `<unk>` is taken as it is. In one without, `<unk>` replaces the words that train has
    once, always if it is one text, and in three texts if valid or test has a word that train lacks, or with `vocab_size`.
    Characters are all kept; `<unk>` replaces those that train lacks. One text has the characters of the whole text, as in
    char-rnn (Karpathy 2015).

    Raises DataError if a file is missing, damaged or not text, or if `build_corpus` does.
    """
    reading = Reading(level, **options)
    return _read_source(find_source(path, reading.encoding), vocabulary, reading, fractions)


def read_tokens(path: str | os.PathLike, vocabulary: Vocabulary, level: str = "word", **options) -> np.ndarray:
    """Read the token ids of one text whole, int32 `[N]`. `path`, `options` and warnings are those of `read_corpus`."""
    reading = Reading(level, **options)
    source = find_source(path, reading.encoding)
    if source.is_split:
        raise DataError(f"{path}: holds train, valid and test; name one of its files")
    name, token_ids = name_of(source.texts), TokenIds(vocabulary)
    require_eos(vocabulary, name)
    pieces, reading = recognize_symbols(read_pieces(source.texts), reading, name)
    ids, _ = _number(pieces, name, token_ids, vocabulary, reading)
    return _encode({name: ids}, token_ids, vocabulary, reading.level)[0]


def is_one_text(path: str | os.PathLike) -> bool:
    """Return whether `path` names one text, perhaps of several documents, and not train, valid and test."""
    return not find_source(path).is_split


def build_corpus(
    train: Sequence[str],
    valid: Sequence[str],
    test: Sequence[str],
    vocabulary: Vocabulary | None = None,
    names: Sequence[str] = SPLITS,
    level: str = "word",
    **options,
) -> Corpus:
    """Build a corpus from three lists of lines. If `vocabulary` is None, build it from `train` alone.

    Unknown words become `<unk>`, with one warning that counts them. `names` are the three texts' names for messages.
    The `options` are those of `read_corpus`. Warns if valid or test is the training text.

    Raises DataError if a word is unknown and the given vocabulary has no `<unk>`.
    """
    texts = tuple(one_text(lines, name) for lines, name in zip((train, valid, test), names, strict=True))
    return _read_source(Source(texts, True), vocabulary, Reading(level, **options), FRACTIONS)


def _read_source(source: Source, vocabulary: Vocabulary | None, reading: Reading, fractions) -> Corpus:
    """Read the texts of a source into memory: pieces, tokens, ids by first appearance, vocabulary, ids of the vocabulary."""
    token_ids = TokenIds(vocabulary)
    if vocabulary is not None:
        require_eos(vocabulary, ", ".join(text.name for text in source.texts))
    first, others = (source.texts[:1], source.texts[1:]) if source.is_split else (source.texts, ())
    name = name_of(first)
    pieces, reading = recognize_symbols(read_pieces(first), reading, name)
    ids, line_ends = _number(pieces, name, token_ids, vocabulary, reading)
    if source.is_split:
        splits = {name: ids}
        for text in others:
            splits[text.name], _ = _number(read_pieces([text]), text.name, token_ids, vocabulary, reading)
    else:
        splits = {f"{name} ({split})": part for split, part in zip(SPLITS, _cut(ids, line_ends, fractions, name))}
    _warn_of_same_text(splits)
    if vocabulary is None:
        vocabulary = _build_vocabulary([*splits.values()], token_ids, reading, source.is_split)
    return Corpus(vocabulary, *_encode(splits, token_ids, vocabulary, reading.level, is_cut=not source.is_split))


def _number(pieces: Iterable[str], name: str, token_ids: TokenIds, vocabulary: Vocabulary | None, reading: Reading):
    """Return the provisional ids of one text, int32 `[N]`, and of each line its end in characters and tokens."""
    ids, line_ends, length = array("i"), array("q"), 0
    for piece in reading.tokenize(pieces, vocabulary, name):
        ids.extend(map(token_ids.__getitem__, piece.tokens))
        length += piece.length
        if piece.ends_line:
            line_ends.extend((length, len(ids)))
    return np.frombuffer(ids, np.int32), np.frombuffer(line_ends, np.int64).reshape(-1, 2)


def _cut(ids: np.ndarray, line_ends: np.ndarray, fractions: tuple[float, float], name: str) -> list[np.ndarray]:
    """Cut one text into train, valid and test so that each has its fraction of the characters.

    Cuts are between lines. If there are too few lines, they are between tokens.
    """
    characters, tokens = line_ends.T
    whole_lines = np.searchsorted(characters, np.rint(np.cumsum(fractions) * characters[-1]), side="right")
    parts = np.split(ids, np.append(0, tokens)[whole_lines])
    if not all(map(len, parts)):
        parts = np.split(ids, np.rint(np.cumsum(fractions) * (len(ids) - 1)).astype(int))
    if not all(map(len, parts)):
        raise DataError(f"{name}: has {len(ids)} tokens, too few for {', '.join(SPLITS)}; give a longer text, or three files")
    return parts


def _build_vocabulary(splits: list[np.ndarray], token_ids: TokenIds, reading: Reading, is_split: bool) -> Vocabulary:
    """Build the vocabulary of the training text, of which `splits` has the provisional ids."""
    words = list(token_ids)
    train, *others = (np.bincount(ids, minlength=len(words)) for ids in splits)
    if not is_split and reading.level != "word":
        train = train + sum(others)
    has_unseen = any(np.any((other > 0) & (train == 0)) for other in others)
    has_rare = reading.level == "word" and (has_unseen or not is_split)
    return reading.build_vocabulary({word: count for word, count in zip(words, train.tolist()) if count}, has_rare, has_unseen)


def _encode(
    splits: Mapping[str, np.ndarray], token_ids: TokenIds, vocabulary: Vocabulary, level: str, is_cut: bool = False
) -> list[np.ndarray]:
    """Return the ids of named texts in a vocabulary. Logs one warning for the unknown words of all texts.

    If one text was cut into the splits, lines are counted from its beginning.
    """
    words, ids, lines_before = list(token_ids), vocabulary.ids, 0
    is_unknown = np.array([word not in ids for word in words])
    counts, unknown = {}, set()
    for name, numbers in splits.items():
        places = np.flatnonzero(is_unknown[numbers])
        if len(places) and UNK not in ids:
            line = np.cumsum(numbers == token_ids[EOS]) + 1 + lines_before
            raise unknown_tokens_error(name, level, [(words[numbers[at]], line[at]) for at in places[:5]], vocabulary)
        if len(places):
            counts[name] = len(places)
            unknown.update(np.unique(numbers[places]).tolist())
        lines_before += is_cut * np.count_nonzero(numbers == token_ids[EOS])
    if counts:
        warn_of_unknown(counts, level, (words[number] for number in unknown), vocabulary)
    new_ids = np.array([ids.get(word, ids.get(UNK, 0)) for word in words], np.int32)
    return [new_ids[numbers] for numbers in splits.values()]


def _map_source(source: Source, vocabulary: Vocabulary | None, reading: Reading, fractions) -> Corpus:
    """Read a corpus of plain files into memory-mapped arrays, with the result of `_read_source`.

    Two texts with equal ids are taken for the same text, although their unknown words may differ.
    """
    _, reading = recognize_symbols(read_pieces(source.texts[:1]), reading, source.texts[0].name)
    try:
        return _map_splits(source, vocabulary, reading)
    except UnknownTokens:
        if vocabulary is not None or reading.min_count:
            raise
        return _map_splits(source, None, reading._replace(min_count=2 if reading.level == "word" else 1))


def _map_splits(source, vocabulary, reading):
    splits = {}
    for text in source.texts:
        vocabulary, splits[text.name] = memmap.read_ids(text.path, vocabulary, reading)
    _warn_of_same_text(splits)
    return Corpus(vocabulary, *splits.values())


def _warn_of_same_text(splits: Mapping[str, np.ndarray]) -> None:
    (train_name, train), *others = splits.items()
    same = [name for name, ids in others if np.array_equal(ids, train)]
    if same:
        cure = "a score on it tells what the model has learnt by heart, not how it does on a new text"
        logger.warning("%s: the same text as %s; %s", " and ".join(same), train_name, cure)
