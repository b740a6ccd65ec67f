"""Vocabulary and tokens, against cases worked by hand."""

import numpy as np
import pytest

from helpers.texts import raises_one_line
from ptb.data import files
from ptb.data.files import DataError
from ptb.data.vocabulary import EOS, UNK, Vocabulary, join_tokens, split_line, tokenize


def test_ids_are_ordered_by_descending_count_then_by_word():
    vocabulary = Vocabulary.build(["b", "a", "c", "a", "b", "d", "a"])
    assert vocabulary.words == ("a", "b", "c", "d")
    assert vocabulary.ids == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert len(vocabulary) == 4
    assert vocabulary == Vocabulary.build(["c", "b", "a", "a", "d", "b", "a"]) != Vocabulary(("b", "a", "c", "d"))


@pytest.mark.parametrize(
    ("tokens", "rare", "words"),
    [
        ("a a a b b c d <eos>", 0, ("a", "b", "<eos>", "c", "d")),
        ("a a a b b c d <eos>", 1, ("a", "<unk>", "b", "<eos>")),  # c and d, but never <eos>
        ("a a a b b c d <eos>", 2, ("<unk>", "a", "<eos>")),
        ("a a a b b c <unk> <eos>", 2, ("a", "b", "<eos>", "<unk>", "c")),  # the text has its own <unk>
    ],
)
def test_rare_words_become_unk(tokens, rare, words):
    assert Vocabulary.build(tokens.split(), rare).words == words


def test_unknown_words_get_the_id_of_unk():
    tokens = Vocabulary((UNK, "a", "b")).encode(["b", "x", "a"])
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [2, 0, 1]


def test_an_unknown_word_is_an_error_without_unk():
    with raises_one_line(DataError, "'x'"):
        Vocabulary(("a", "b")).encode(["b", "x", "a"])


def test_a_saved_vocabulary_has_one_word_per_line(tmp_path):
    vocabulary = Vocabulary.build(["naïve", "日本", EOS, UNK, EOS, "\ufeff", "a\u200bb"])
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(vocabulary.to_bytes())
    assert path.read_text(encoding="utf-8") == "".join(word + "\n" for word in vocabulary.words)
    assert Vocabulary.load(path) == vocabulary


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "No such file or directory"),
        (b"", "empty"),
        (b"the\ncat\nsa", "truncated"),
        (b"the\n\ncat\n", "entry 2, '',"),
        (b"the\ncat sat\n", "entry 2, 'cat sat'"),
        (b"the\ncat\nthe\n", "entry 3, 'the'"),
        (b"the\ncat\0\n", "line 2"),
        (b"the\ncaf\xe9\n", "line 2"),
        (b"a" * (files.MAX_LINE_BYTES + 1), "line 1"),
    ],
)
def test_bad_vocabulary_files(tmp_path, content, fact):
    path = tmp_path / "vocabulary.txt"
    if content is not None:
        path.write_bytes(content)
    with raises_one_line(DataError, path, fact):
        Vocabulary.load(path)


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
