"""Tokens to ids, and back: the vocabulary of a text."""

import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from logging import getLogger
from typing import NamedTuple

import numpy as np

from ptb.data.files import DataError, iterate_lines, open_binary
from ptb.data.tokens import EOS, LEVELS, UNK, Piece, shows_symbols, tokenize_pieces

HEAD = 1 << 16  # characters by which a text is recognised

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
