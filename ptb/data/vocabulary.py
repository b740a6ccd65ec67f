"""Lines to tokens, tokens to ids, and back.

A token is a word, or at level "char" one character of a line, or at level "symbol" a character in a text whose characters are
separated by spaces. Each line ends in one `<eos>`, including an empty line and a last line without a newline. On PTB, whose
lines end in " \\n", this equals the rule of the TensorFlow tutorial (`reader.py`): `read().replace("\\n", "<eos>").split()`.
"""

import os
import re
import reprlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain
from logging import getLogger
from typing import NamedTuple

import numpy as np

from ptb.data.files import MAX_LINE, DataError, iterate_lines, open_binary

EOS = "<eos>"
UNK = "<unk>"
HEAD = 1 << 16  # characters by which a text is recognised
LEVELS = {"word": "words", "char": "characters", "symbol": "symbols"}  # level: the plural of its tokens, for messages

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
    def build(
        cls, tokens: Iterable[str] | Mapping[str, int], min_count: int = 1, max_size: int = 0, with_unk: bool = False
    ) -> "Vocabulary":
        """Build the vocabulary of tokens, or of counts by token, ordered by descending count, then by word.

        This is the order of `_build_vocab` in the TensorFlow tutorial. `<unk>` replaces tokens that occur less than `min_count`
        times, and with `max_size` the rarest ones, so that no more entries are left, `<unk>` and `<eos>` included. It is an
        entry if it is counted, if it replaces a token, or `with_unk`.
        """
        counts = Counter(tokens)
        kept = {word for word in counts if counts[word] >= min_count or word in (EOS, UNK)}
        if with_unk or len(kept) < len(counts):
            kept.add(UNK)
        if 0 < max_size < len(kept):
            reserved = {UNK, *kept & {EOS}}
            by_count = sorted(kept - reserved, key=lambda word: (-counts[word], word))
            kept = {*by_count[: max(0, max_size - len(reserved))], *reserved}
        counts[UNK] += sum(count for word, count in counts.items() if word not in kept)
        return cls(tuple(sorted(kept, key=lambda word: (-counts[word], word))))

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
        with open_binary(path) as file:
            lines = list(iterate_lines(file, path, keep_mark=True))
        if not lines or not lines[-1].endswith("\n"):
            raise DataError(f"{path}: is empty or truncated, not a saved vocabulary; restore it from a copy, or train again")
        try:
            return cls(tuple(line.removesuffix("\n") for line in lines))
        except DataError as error:
            raise DataError(f"{path}: {error}; restore it from a copy, or train again") from None


class Piece(NamedTuple):
    """The tokens of a piece of a text, `<eos>` included if a line ends there, and the number of its characters."""

    tokens: list[str]
    length: int
    ends_line: bool


def tokenize_pieces(
    pieces: Iterable[str], level: str = "word", lowercase: bool = False, known: Container[str] = (), name: str = "the text"
) -> Iterator[Piece]:
    """Yield the tokens of `files.iterate_pieces`, in which a long line comes in pieces. For the options see `split_line`.

    A piece may end within a word. Raises DataError, with `name`, if a word has `MAX_LINE` characters or more.
    """
    rest, goes_on = "", False
    for piece in pieces:
        continues, goes_on = goes_on, len(piece) > MAX_LINE and not piece.endswith("\n")
        text, rest = rest + piece, ""
        if goes_on and level != "char" and not text[-1].isspace():
            rest = text.rsplit(None, 1)[-1]
            text = text[: -len(rest)]
        framed = not continues and len(piece) <= MAX_LINE
        tokens = split_line(text, level, framed, lowercase, known)
        if len(text) + len(rest) >= MAX_LINE:
            _check_lengths([*tokens, rest], name)
        yield Piece(tokens if goes_on else [*tokens, EOS], len(piece), not goes_on)
    if goes_on:
        yield Piece([*split_line(rest, level, False, lowercase, known), EOS], 0, True)


def _check_lengths(words, name):
    long = next((word for word in words if len(word) >= MAX_LINE), None)
    if long:
        what = f"has a word of {MAX_LINE:,} characters or more ({long[:20]})"
        raise DataError(f"{name}: {what}; read characters with --set level=char")


def tokenize(
    lines: Iterable[str], level: str = "word", framed: bool = True, lowercase: bool = False, known: Container[str] = ()
) -> Iterator[str]:
    """Yield the tokens of each line, then one `<eos>` per line. For the options see `split_line`."""
    for line in lines:
        yield from split_line(line, level, framed, lowercase, known)
        yield EOS


def split_line(
    line: str, level: str = "word", framed: bool = True, lowercase: bool = False, known: Container[str] = ()
) -> list[str]:
    """Split a line into words, or at level "char" into characters; without `<eos>`.

    A character token never contains whitespace, so that it can be a vocabulary entry: a space becomes "_", and "_" and
    other whitespace become their code point, such as "<U+005F>". At level "symbol" the line has this form already, with
    spaces between: "t h e _ c a t".

    If `framed`, one space at both ends of a line is removed at level "char". PTB's files have it around every line;
    without it PTB has the 5,017,482 training characters that the literature counts.

    `lowercase` makes all letters small, but keeps words that are `known`, such as PTB's N for numbers.
    """
    if level != "char":
        words = line.split()
        return [word if word in known else word.lower() for word in words] if lowercase else words
    line = line.rstrip("\r\n")
    if framed and line.startswith(" ") and line.endswith(" "):
        line = line[1:-1]
    return list(map(_escape, line.lower() if lowercase else line))


def shows_symbols(head: str) -> bool:
    """Return whether a text begins like character PTB: `t h e _ c a t`, single characters with spaces between.

    An entry such as `<unk>` counts as a character too. Some twenty tokens are needed to tell.
    """
    tokens = head.split()[:-1]  # the last may be cut off
    is_symbol = [len(token) == 1 or token in (UNK, EOS) for token in tokens]
    return len(tokens) >= 20 and all(is_symbol) and len(tokens) > 2 * head.count("\n")


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


class Reading(NamedTuple):
    """How a text becomes tokens, and which of them become entries of its vocabulary; see `corpus.load_corpus`."""

    level: str = "word"
    lowercase: bool = False
    encoding: str = "utf-8"
    min_count: int = 0
    vocab_size: int = 0

    def tokenize(self, pieces: Iterable[str], vocabulary: Vocabulary | None, name: str) -> Iterator[Piece]:
        """Yield the tokens of the pieces of a text; see `tokenize_pieces`."""
        return tokenize_pieces(pieces, self.level, self.lowercase, vocabulary.ids if vocabulary else (), name)

    def build_vocabulary(self, counts: Mapping[str, int], has_rare: bool = False, has_unseen: bool = False) -> Vocabulary:
        """Build a vocabulary of the counts of a training text.

        Without a `min_count`, `<unk>` replaces the tokens that occur once if `has_rare`, and is an entry if other texts have
        `has_unseen` tokens. With a `vocab_size` words are taken to have rare ones. With either, `<unk>` always is an entry.
        """
        has_rare = has_rare or (self.level == "word" and self.vocab_size > 0)
        min_count = self.min_count or (2 if has_rare and UNK not in counts else 1)
        with_unk = has_unseen or min_count > 1 or bool(self.min_count or self.vocab_size)
        return Vocabulary.build({EOS: 0} | dict(counts), min_count, self.vocab_size, with_unk)


class TokenIds(dict):
    """A map from token to id in which a new token gets the next id, after those of a vocabulary if one is given."""

    def __init__(self, vocabulary: Vocabulary | None = None):
        super().__init__(() if vocabulary is None else vocabulary.ids)

    def __missing__(self, token: str) -> int:
        return self.setdefault(token, len(self))


def recognize_symbols(pieces: Iterable[str], reading: Reading, name: str) -> tuple[Iterator[str], Reading]:
    """Return the pieces of a text and how to read it: as symbols if its characters turn out to be separated by spaces."""
    pieces, head, length = iter(pieces), [], 0
    while reading.level == "char" and length < HEAD and (piece := next(pieces, None)) is not None:
        head.append(piece)
        length += len(piece)
    if shows_symbols("".join(head)[:HEAD]):
        logger.warning("%s: its characters are separated by spaces, which are not counted (as with --set level=symbol)", name)
        reading = reading._replace(level="symbol")
    return chain(head, pieces), reading


class UnknownTokens(DataError):
    """A text has tokens that its vocabulary lacks, and there is no `<unk>` for them."""


def require_eos(vocabulary: Vocabulary, name: str | os.PathLike) -> None:
    """Raise DataError, with the name of the text to read, if the vocabulary has no `<eos>`."""
    if EOS not in vocabulary.ids:
        raise DataError(f"{name}: the given vocabulary has no {EOS}; use the vocabulary of a trained model")


def unknown_tokens_error(
    name: str | os.PathLike, level: str, places: Iterable[tuple[str, int]], vocabulary: Vocabulary
) -> UnknownTokens:
    """Return the error for the text `name` with tokens that a vocabulary without `<unk>` lacks.

    `places` are pairs of an unknown token and the number of its line.
    """
    places = list(places)
    found = ", ".join(f"{reprlib.repr(token)} in line {number}" for token, number in places)
    remedy = lowercase_hint((token for token, _ in places), vocabulary)
    remedy = remedy or "; remove them, or train with --set min_count=2, which adds one"
    return UnknownTokens(f"{name}: has unknown {LEVELS[level]} ({found}), and the vocabulary has no {UNK} for them{remedy}")


def warn_of_unknown(counts: Mapping[str, int], level: str, unknown: Iterable[str], vocabulary: Vocabulary) -> None:
    """Log one warning: how many tokens of each text became `<unk>`. `counts` is keyed by the name of the text.

    It says if `lowercase` would make most of the `unknown` tokens known to the vocabulary.
    """
    details = ", ".join(f"{count:,} in {name}" for name, count in counts.items())
    total = f"{sum(counts.values()):,}"
    hint = lowercase_hint(unknown, vocabulary)
    logger.warning("%s outside the vocabulary, read as %s: %s (%s)%s", LEVELS[level], UNK, total, details, hint)


def quoted(words: Sequence[str]) -> str:
    """Return words for a message, the first ten if there are more."""
    return ", ".join(map(repr, words[:10])) + (f" and {len(words) - 10:,} more" if len(words) > 10 else "")


def lowercase_hint(unknown: Iterable[str], vocabulary: Vocabulary) -> str:
    """Return the end of a message: that --lowercase helps if it makes half of the unknown tokens known; otherwise ""."""
    known = [token.lower() in vocabulary.ids for token in unknown]
    return "; the vocabulary is in lower case: add --lowercase" if known and 2 * sum(known) >= len(known) else ""


@cache
def _escape(character: str) -> str:
    if character == " ":
        return "_"
    return f"<U+{ord(character):04X}>" if character == "_" or character.isspace() else character


def _unescape(token: str) -> str:
    if token == "_":
        return " "
    code = re.fullmatch(r"<U\+([0-9A-F]{4})>", token)
    return chr(int(code[1], 16)) if code else token
