"""Text to arrays: `Vocabulary`, `Corpus`, and the windows `[batch, num_steps]` that training and evaluation run over.

A text is UTF-8, one sentence a line, words separated by whitespace. Every line ends in one `<eos>`; so do an empty line
and a last line without a newline. On PTB, with its space before each newline, that is the tutorial's rule:
`read().replace("\\n", "<eos>").split()`. At the level "char" tokens are the characters of a line, "_" for the space.
"""

import hashlib
import math
import os
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice, zip_longest
from logging import getLogger
from typing import NamedTuple

import numpy as np

from textfiles import SPLITS, DataError, is_one_text, iterate_lines, opened, read_file, read_texts

EOS = "<eos>"
UNK = "<unk>"
TOKENS = {"word": "words", "char": "characters"}  # of each level

logger = getLogger(__name__)


@dataclass(frozen=True)
class Vocabulary:
    """The words of a model; the id of a word is its place in `words`."""

    words: tuple[str, ...] = field(repr=False)

    def __post_init__(self):
        seen = set()
        for number, word in enumerate(self.words, 1):
            if word.split() != [word]:
                raise DataError(f"entry {number} of the vocabulary, {reprlib.repr(word)}, is not one word")
            if word in seen:
                raise DataError(f"entry {number} of the vocabulary, {reprlib.repr(word)}, stands there twice")
            seen.add(word)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def build(cls, tokens: Iterable[str], rare: int = 0) -> "Vocabulary":
        """Ids by descending count, then by word, as in the tutorial's `_build_vocab`.

        Words that occur no more than `rare` times are left out for `<unk>`, unless the text has that already.
        """
        counts = Counter(tokens)
        if rare and UNK not in counts:
            counts[UNK] = sum(counts.pop(word) for word in list(counts) if counts[word] <= rare and word != EOS)
        return cls(tuple(sorted(counts, key=lambda word: (-counts[word], word))))

    def encode(self, tokens: Iterable[str]) -> np.ndarray:
        """The ids of tokens, int32 `[N]`. A word outside the vocabulary becomes `<unk>`; DataError if there is none."""
        ids = self.ids
        if UNK in ids:
            unknown = ids[UNK]
            return np.fromiter((ids.get(token, unknown) for token in tokens), np.int32)
        try:
            return np.fromiter((ids[token] for token in tokens), np.int32)
        except KeyError as error:
            word = reprlib.repr(error.args[0])
            raise DataError(f"{word} is not in the vocabulary, which has no {UNK}; use words that it has") from None

    def to_bytes(self) -> bytes:
        """What a vocabulary's file holds: one word a line, by id, UTF-8."""
        return "".join(f"{word}\n" for word in self.words).encode()

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Vocabulary":
        """Reads what `to_bytes` gave. Raises DataError for a file that is missing, cut off or otherwise no vocabulary."""
        with opened(path) as file:
            lines = list(iterate_lines(file, path))
        if not lines or not lines[-1].endswith("\n"):
            raise DataError(f"{path}: is empty or cut off, not a saved vocabulary; restore it from a copy, or train again")
        try:
            return cls(tuple(line.removesuffix("\n") for line in lines))
        except DataError as error:
            raise DataError(f"{path}: {error}; restore it from a copy, or train again") from None


class Corpus(NamedTuple):
    """A text in its three splits, each int32 `[N]`, and the vocabulary of their ids."""

    vocabulary: Vocabulary
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def fingerprint(self) -> str:
        """A short hash by which a run knows its text again: other words, or another cut of the same text, have another."""
        digest = hashlib.sha256()
        for part in ("\n".join(self.vocabulary.words).encode(), self.train, self.valid, self.test):
            digest.update(f"{len(part)}:".encode())
            digest.update(part)
        return digest.hexdigest()[:16]


def build_corpus(
    train: Sequence[str],
    valid: Sequence[str],
    test: Sequence[str],
    vocabulary: Vocabulary | None = None,
    names: Sequence[str] = SPLITS,
    level: str = "word",
) -> Corpus:
    """The corpus of three texts, each the list of its lines. Where no vocabulary is given it is that of train alone.

    Words outside the vocabulary become `<unk>`, with one warning that counts them. Raises DataError, with the text's
    name out of `names`, for such words where the vocabulary has no `<unk>`, and for a valid or test text that is the
    training text: a score on it would be worth nothing.
    """
    texts = dict(zip(names, (train, valid, test), strict=True))
    for name in names[1:]:
        if all(a == b for a, b in zip_longest(tokenize(texts[name], level), tokenize(train, level))):
            raise DataError(f"{name}: is the same text as {names[0]}; give a text that is not trained on")
    if vocabulary is None:
        vocabulary = Vocabulary.build(tokenize(train, level))
    return Corpus(vocabulary, *_encode(texts, vocabulary, level))


def read_corpus(
    path: str | os.PathLike,
    vocabulary: Vocabulary | None = None,
    level: str = "word",
    fractions: tuple[float, float] = (0.9, 0.05),
) -> Corpus:
    """Reads a corpus, with the vocabulary given or else that of its training text.

    `path` is a folder with `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt` (or `train.txt`, `valid.txt` and
    `test.txt`), a folder with these in `data/`, such as simple-examples, `simple-examples.tgz`, which is read without unpacking
    it to disk, or one text file, of which train and valid get these `fractions` and test the rest. The vocabulary of such a
    file has all its characters, as in char-rnn, or at the level of words those that train has more than once and `<unk>`,
    unless there is some `<unk>` in train. Raises DataError for files that are missing, damaged or not text, and where
    `build_corpus` does.
    """
    texts = read_texts(path, fractions)
    if vocabulary is None and is_one_text(path):
        if level == "char":
            vocabulary = Vocabulary.build(tokenize(chain(*texts.values()), level))
        else:
            vocabulary = Vocabulary.build(tokenize(next(iter(texts.values()))), rare=1)
    return build_corpus(*texts.values(), vocabulary=vocabulary, names=tuple(texts), level=level)


def read_tokens(path: str | os.PathLike, vocabulary: Vocabulary, level: str = "word") -> np.ndarray:
    """Reads one text file, int32 `[N]`. Warns and raises as `read_corpus` does."""
    path = os.path.expanduser(path)
    return _encode({path: read_file(path)}, vocabulary, level)[0]


def tokenize(lines: Iterable[str], level: str = "word", framed: bool = True) -> Iterator[str]:
    """The words, or characters, of each line, then one `<eos>`."""
    for line in lines:
        yield from split_line(line, level, framed)
        yield EOS


def split_line(line: str, level: str = "word", framed: bool = True) -> list[str]:
    """The words of a line, or its characters, each written so that it could be a word: "_" is a space, "<U+005F>" is "_".

    The spaces with which PTB's files frame every line are no part of it, so that PTB has the 5,017,482 characters for training
    that the literature counts; unless `framed` is false.
    """
    if level == "word":
        return line.split()
    line = line.rstrip("\r\n")
    if framed and line.startswith(" ") and line.endswith(" "):
        line = line[1:-1]
    return [_written(character) for character in line]


def join_tokens(tokens: Iterable[str], level: str = "word") -> Iterator[str]:
    """The text that tokens stand for, piece by piece: that of `tokenize`, but for its separators, frames and line ends."""
    separator = ""
    for token in tokens:
        if token == EOS:
            yield "\n"
            separator = ""
        elif level == "char":
            yield _meant(token)
        else:
            yield separator + token
            separator = " "


def _written(character: str) -> str:
    if character == " ":
        return "_"
    return f"<U+{ord(character):04X}>" if character == "_" or character.isspace() else character


def _meant(token: str) -> str:
    if token == "_":
        return " "
    code = re.fullmatch(r"<U\+([0-9A-F]{4})>", token)
    return chr(int(code[1], 16)) if code else token


def windows(
    tokens: np.ndarray,
    batch_size: int,
    num_steps: int,
    drop_remainder: bool = True,
    overlap: int = 0,
    name: str = "the text",
) -> "Windows":
    """Cuts tokens, int32 `[N]`, into `batch_size` contiguous streams, and these into windows of `num_steps`.

    Gives a sequence of `(inputs, targets)`, both views of `tokens`, `[batch_size, num_steps]`; targets are one step
    ahead, and row b of a window continues row b of the one before. A stream has N // batch_size tokens. What is left
    over is dropped as in the tutorial's `ptb_producer`: the tokens after the last stream, and the steps after the last
    whole window. With `drop_remainder` false these steps come as a last, shorter window. With an `overlap` windows are that
    much longer, and each begins `num_steps` after the one before.

    Raises DataError, with `name`, where the text is too short for one window.
    """
    if batch_size < 1 or num_steps < 1:
        raise ValueError(f"batch_size {batch_size} and num_steps {num_steps} have to be 1 or more")
    stream_length = len(tokens) // batch_size
    predictions = stream_length - 1 - overlap
    count = predictions // num_steps if drop_remainder else math.ceil(predictions / num_steps)
    if count < 1:
        needed = batch_size * (1 + overlap + (num_steps if drop_remainder else 1))
        raise DataError(
            f"{name}: has {len(tokens):,} tokens, too few for one window of batch_size {batch_size} and num_steps "
            f"{num_steps}, which takes {needed:,}; use a longer text or a smaller batch_size or num_steps"
        )
    streams = np.asarray(tokens)[: batch_size * stream_length].reshape(batch_size, stream_length)
    return Windows(streams, num_steps, overlap, range(count))


def scoring_windows(tokens: np.ndarray) -> "Windows":
    """The windows to score a text in: batch 1, every prediction. The state being carried, their length changes nothing."""
    return windows(tokens, 1, 500, drop_remainder=False)


@dataclass(frozen=True, eq=False)
class Windows(Sequence):
    """The windows numbered `indices` over streams `[batch_size, stream_length]`; see `windows`. A slice is lazy too."""

    streams: np.ndarray
    num_steps: int
    overlap: int
    indices: range

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Windows(self.streams, self.num_steps, self.overlap, self.indices[index])
        start = self.indices[index] * self.num_steps
        stop = min(start + self.num_steps + self.overlap, self.streams.shape[1] - 1)
        return self.streams[:, start:stop], self.streams[:, start + 1 : stop + 1]


def cure_of_unknown(level: str) -> str:
    """What to do about tokens that neither the vocabulary nor its `<unk>` stands for."""
    return f"write {UNK} for rare words in every split, or take them out" if level == "word" else "take them out"


def _encode(texts: Mapping[str, Sequence[str]], vocabulary: Vocabulary, level: str) -> list[np.ndarray]:
    """The ids of named texts, one int32 `[N]` for each, with one warning for the unknown words of all."""
    if EOS not in vocabulary.ids:
        raise DataError(f"{', '.join(texts)}: the vocabulary to read with has no {EOS}; use that of a trained model")
    ids = vocabulary.ids
    unknown_counts = {}
    for name, lines in texts.items():
        numbered = enumerate(lines, 1)
        unknown = ((token, number) for number, line in numbered for token in split_line(line, level) if token not in ids)
        first = list(islice(unknown, 5))
        if first and UNK not in ids:
            places = ", ".join(f"{reprlib.repr(word)} in line {number}" for word, number in first)
            raise DataError(
                f"{name}: has {TOKENS[level]} that the vocabulary lacks ({places}) and the vocabulary has no {UNK} for them; "
                f"{cure_of_unknown(level)}"
            )
        if first:
            unknown_counts[name] = len(first) + sum(1 for _ in unknown)
    if unknown_counts:
        counts = ", ".join(f"{count:,} in {name}" for name, count in unknown_counts.items())
        total = sum(unknown_counts.values())
        logger.warning("%s outside the vocabulary, read as %s: %s (%s)", TOKENS[level], UNK, f"{total:,}", counts)
    return [vocabulary.encode(tokenize(lines, level)) for lines in texts.values()]
