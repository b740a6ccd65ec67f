"""Lines to tokens, tokens to ids, and back.

A token is a word, or at level "char" one character of a line. Each line ends in one `<eos>`, including an empty line and
a last line without a newline. On PTB, whose lines end in " \\n", this equals the rule of the TensorFlow tutorial
(`reader.py`): `read().replace("\\n", "<eos>").split()`.
"""

import os
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from logging import getLogger

import numpy as np

from ptb.data.files import DataError, iterate_lines, open_text

EOS = "<eos>"
UNK = "<unk>"
LEVELS = {"word": "words", "char": "characters"}  # level: the plural of its tokens, for messages

logger = getLogger(__name__)


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of words; the id of a word is its index in `words`.

    Raises DataError if an entry is not one word or appears twice.
    """

    words: tuple[str, ...] = field(repr=False)

    def __post_init__(self):
        seen = set()
        for number, word in enumerate(self.words, 1):
            if word.split() != [word]:
                raise DataError(f"vocabulary entry {number}, {reprlib.repr(word)}, is not one word")
            if word in seen:
                raise DataError(f"vocabulary entry {number}, {reprlib.repr(word)}, is a duplicate")
            seen.add(word)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each word."""
        return {word: index for index, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def build(cls, tokens: Iterable[str], rare: int = 0) -> "Vocabulary":
        """Build the vocabulary of `tokens`, ordered by descending count, then by word.

        This is the order of `_build_vocab` in the TensorFlow tutorial. If `rare` > 0 and `<unk>` is not among the tokens,
        `<unk>` replaces the words that occur at most `rare` times.
        """
        counts = Counter(tokens)
        if rare and UNK not in counts:
            counts[UNK] = sum(counts.pop(word) for word in list(counts) if counts[word] <= rare and word != EOS)
        return cls(tuple(sorted(counts, key=lambda word: (-counts[word], word))))

    def extended(self, words: Iterable[str]) -> "Vocabulary":
        """Return a vocabulary with new words after those of this one, whose ids stay as they are."""
        return Vocabulary((*self.words, *(word for word in words if word not in self.ids)))

    def encode(self, tokens: Iterable[str]) -> np.ndarray:
        """Return the ids of tokens, int32 `[N]`. Unknown tokens get the id of `<unk>`.

        Raises DataError if a token is unknown and the vocabulary has no `<unk>`.
        """
        ids = self.ids
        if UNK in ids:
            unknown = ids[UNK]
            return np.fromiter((ids.get(token, unknown) for token in tokens), np.int32)
        try:
            return np.fromiter((ids[token] for token in tokens), np.int32)
        except KeyError as error:
            word = reprlib.repr(error.args[0])
            raise DataError(f"{word} is not in the vocabulary, which has no {UNK}; use words of the vocabulary") from None

    def to_bytes(self) -> bytes:
        """Serialize to the format of `load`: one word per line in the order of ids, UTF-8."""
        return "".join(f"{word}\n" for word in self.words).encode()

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Vocabulary":
        """Read a file that holds the result of `to_bytes`.

        Raises DataError if the file is missing, truncated, not UTF-8, or not a vocabulary.
        """
        with open_text(path) as file:
            lines = list(iterate_lines(file, path))
        if not lines or not lines[-1].endswith("\n"):
            raise DataError(f"{path}: is empty or truncated, not a saved vocabulary; restore it from a copy, or train again")
        try:
            return cls(tuple(line.removesuffix("\n") for line in lines))
        except DataError as error:
            raise DataError(f"{path}: {error}; restore it from a copy, or train again") from None


def tokenize(lines: Iterable[str], level: str = "word", framed: bool = True) -> Iterator[str]:
    """Yield the tokens of each line, then one `<eos>` per line. For `level` and `framed` see `split_line`."""
    for line in lines:
        yield from split_line(line, level, framed)
        yield EOS


def split_line(line: str, level: str = "word", framed: bool = True) -> list[str]:
    """Split a line into words, or at level "char" into characters; without `<eos>`.

    A character token never contains whitespace, so that it can be a vocabulary entry: a space becomes "_", and "_" and
    other whitespace become their code point, such as "<U+005F>".

    If `framed`, one space at both ends of a line is removed at level "char". PTB's files have it around every line;
    without it PTB has the 5,017,482 training characters that the literature counts.
    """
    if level == "word":
        return line.split()
    line = line.rstrip("\r\n")
    if framed and line.startswith(" ") and line.endswith(" "):
        line = line[1:-1]
    return [_escape(character) for character in line]


def join_tokens(tokens: Iterable[str], level: str = "word") -> Iterator[str]:
    """Yield the text of `tokens` piece by piece, the inverse of `tokenize`.

    Words are separated by one space and lines end in "\\n", whatever separators, frames and line ends the original had.
    """
    separator = ""
    for token in tokens:
        if token == EOS:
            yield "\n"
            separator = ""
        elif level == "char":
            yield _unescape(token)
        else:
            yield separator + token
            separator = " "


def require_eos(vocabulary: Vocabulary, name: str | os.PathLike) -> None:
    """Raise DataError, with the name of the text to read, if the vocabulary has no `<eos>`."""
    if EOS not in vocabulary.ids:
        raise DataError(f"{name}: the given vocabulary has no {EOS}; use the vocabulary of a trained model")


class UnknownTokens(DataError):
    """A text has tokens that its vocabulary lacks, and there is no `<unk>` for them."""


def unknown_tokens_error(name: str | os.PathLike, level: str, places: Iterable[tuple[str, int]]) -> UnknownTokens:
    """Return the error for the text `name` with tokens that a vocabulary without `<unk>` lacks.

    `places` are pairs of an unknown token and the number of its line.
    """
    found = ", ".join(f"{reprlib.repr(token)} in line {number}" for token, number in places)
    remedy = f"write {UNK} for rare words in every split, or remove them" if level == "word" else "remove them"
    return UnknownTokens(f"{name}: has unknown {LEVELS[level]} ({found}), and the vocabulary has no {UNK} for them; {remedy}")


def warn_of_unknown(counts: Mapping[str, int], level: str) -> None:
    """Log one warning: how many tokens of each text became `<unk>`. `counts` is keyed by the name of the text."""
    details = ", ".join(f"{count:,} in {name}" for name, count in counts.items())
    total = f"{sum(counts.values()):,}"
    logger.warning("%s outside the vocabulary, read as %s: %s (%s)", LEVELS[level], UNK, total, details)


def _escape(character: str) -> str:
    if character == " ":
        return "_"
    return f"<U+{ord(character):04X}>" if character == "_" or character.isspace() else character


def _unescape(token: str) -> str:
    if token == "_":
        return " "
    code = re.fullmatch(r"<U\+([0-9A-F]{4})>", token)
    return chr(int(code[1], 16)) if code else token
