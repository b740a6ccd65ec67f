"""Lines to tokens and back, against cases worked by hand."""

import io

import pytest

from helpers.texts import raises_one_line
from ptb.data import files
from ptb.data.files import DataError
from ptb.data.tokens import EOS, join_tokens, shows_symbols, split_line, tokenize, tokenize_pieces
from ptb.data.vocabulary import Vocabulary


def test_symbols_of_a_line_are_separated_by_spaces():
    assert split_line(" t h e _ c a t \n", "symbol") == ["t", "h", "e", "_", "c", "a", "t"]
    assert "".join(join_tokens(["t", "h", "e", EOS], "symbol")) == "t h e\n"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("t h e _ c a t _ s a w _ t h e _ d o g _ s i t\n", True),
        (" t h e _ c a t \n s a w _ < u n k > <unk> d o\n a b", True),
        ("the cat saw the dog and the dog saw the cat and the cat ran to the dog and home\n", False),
        ("t h e _ c a t _ s a w _ t h e _ dog s a w _ t h e\n", False),
        ("a\nb\nc\n" * 20, False),  # a character a line
        ("a b c\n", False),  # too few to tell
        ("", False),
    ],
)
def test_symbols_are_recognised(head, expected):
    assert shows_symbols(head) is expected


@pytest.mark.parametrize(("level", "text"), [("word", "The N cat"), ("char", "The N")])
def test_lower_case_keeps_known_words(level, text):
    tokens = split_line(text, level, lowercase=True, known={"N", "T", "cat"})
    assert tokens == (["the", "N", "cat"] if level == "word" else ["t", "h", "e", "_", "n"])


PIECES = {"word": ["the", "cat", EOS, "an", "owls", EOS], "char": [*"the_cat", EOS, *"an_owls", EOS]}


@pytest.mark.parametrize("level", PIECES)
def test_a_long_line_in_pieces_has_the_tokens_of_the_whole_line(monkeypatch, level):
    monkeypatch.setattr("ptb.data.tokens.MAX_LINE", 5)
    monkeypatch.setattr("ptb.data.files.MAX_LINE", 5)
    pieces = list(files.iterate_pieces(io.BytesIO(b"the cat\nan owls"), "text", "utf-8"))
    assert pieces == ["the cat\n", "an owl", "s"]
    result = list(tokenize_pieces(pieces, level))
    assert [token for piece in result for token in piece.tokens] == PIECES[level]
    assert sum(piece.length for piece in result) == len("the cat\nan owls")
    assert sum(piece.ends_line for piece in result) == 2


def test_a_word_may_not_be_longer_than_the_bound(monkeypatch):
    monkeypatch.setattr("ptb.data.tokens.MAX_LINE", 5)
    assert [piece.tokens for piece in tokenize_pieces(["a bcde", "  gh\n"])] == [["a"], ["bcde", "gh", EOS]]
    for pieces in (["a bcde", "fghijk", "l\n"], ["a bcde", "f gh\n"], ["bcdef\n"]):  # wherever the pieces end
        with raises_one_line(DataError, "text.txt", "bcdef", "level=char"):
            list(tokenize_pieces(pieces, name="text.txt"))


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("to be\n", ["t", "o", "_", "b", "e"]),
        (" no it was\n", ["_", "n", "o", "_", "i", "t", "_", "w", "a", "s"]),
        (" no it \n", ["n", "o", "_", "i", "t"]),  # a space at both ends, as in every line of PTB
        ("  x \n", ["_", "x"]),
        ("a_b\tc\r\n", ["a", "<U+005F>", "b", "<U+0009>", "c"]),
        ("\n", []),
        (" \n", []),
    ],
)
def test_characters_of_a_line(line, tokens):
    assert split_line(line, "char") == tokens


def test_spaces_at_both_ends_of_a_line_are_kept_on_request():
    assert split_line(" no \n", "char", framed=False) == ["_", "n", "o", "_"]
    assert list(tokenize([" a \n"], "char", framed=False)) == ["_", "a", "_", EOS]


@pytest.mark.parametrize(
    "text", ["to be,\nor not\n", "\n\n  deep\tin _ <unk> <U+0041>\n", "caf\u00e9 \u2003 \U0001f600\n", "_\n"]
)
def test_joining_characters_restores_the_text(text):
    tokens = list(tokenize(text.splitlines(keepends=True), "char"))
    assert Vocabulary.build(tokens)  # every token is a valid entry
    assert "".join(join_tokens(tokens, "char")) == text


def test_joining_words_separates_them_by_one_space():
    assert "".join(join_tokens(tokenize(["the  cat sat\n", "\n", "it"]))) == "the cat sat\n\nit\n"
    assert "".join(join_tokens(["no", "end"])) == "no end"


def test_joining_leaves_malformed_code_points_unchanged():
    assert "".join(join_tokens(["<U+FFFFFF>", "<U+5F>", "<U+005F>"], "char")) == "<U+FFFFFF><U+5F>_"
