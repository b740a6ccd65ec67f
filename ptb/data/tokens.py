"""Lines to tokens, and back.

A token is a word, or at level "char" one character of a line, or at level "symbol" a character in a text whose characters are
separated by spaces. Each line ends in one `<eos>`, including an empty line and a last line without a newline. On PTB, whose
lines end in " \\n", this equals the rule of the TensorFlow tutorial (`reader.py`): `read().replace("\\n", "<eos>").split()`.
"""

import re
from collections.abc import Container, Iterable, Iterator
from functools import cache
from typing import NamedTuple

from ptb.data.files import MAX_LINE, DataError

EOS = "<eos>"
UNK = "<unk>"
LEVELS = {"word": "words", "char": "characters", "symbol": "symbols"}  # level: the plural of its tokens, for messages


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
