"""The vocabulary, against cases worked by hand."""

import numpy as np
import pytest

from helpers.texts import raises_one_line
from ptb.data import files
from ptb.data.files import DataError
from ptb.data.tokens import EOS, UNK
from ptb.data.vocabulary import Vocabulary


def test_ids_are_ordered_by_descending_count_then_by_word():
    vocabulary = Vocabulary.build(["b", "a", "c", "a", "b", "d", "a"])
    assert vocabulary.words == ("a", "b", "c", "d")
    assert vocabulary.ids == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert len(vocabulary) == 4
    assert vocabulary == Vocabulary.build(["c", "b", "a", "a", "d", "b", "a"]) != Vocabulary(("b", "a", "c", "d"))


@pytest.mark.parametrize(
    ("tokens", "limits", "words"),
    [
        ("a a a b b c d <eos>", {}, "a b <eos> c d"),
        ("a a a b b c d <eos>", {"min_count": 2}, "a <unk> b <eos>"),  # c and d, but never <eos>
        ("a a a b b c d <eos>", {"min_count": 3}, "<unk> a <eos>"),
        ("a a a b b c <unk> <eos>", {"min_count": 3}, "<unk> a <eos>"),  # 2 b, 1 c and its own
        ("a a a b b c d <eos>", {"max_size": 5}, "a b <eos> c d"),
        ("a a a b b c d <eos>", {"max_size": 4}, "a <unk> b <eos>"),
        ("a a a b b c d <eos>", {"max_size": 3}, "<unk> a <eos>"),
        ("a a b b <unk> <eos>", {"max_size": 3}, "<unk> a <eos>"),  # of equal counts the first by name stays
        ("a a b <eos>", {"max_size": 4, "with_unk": True}, "a <eos> b <unk>"),
        ("a a b <eos>", {"max_size": 3, "with_unk": True}, "a <eos> <unk>"),
        ("a a b <eos>", {"min_count": 2, "max_size": 9}, "a <eos> <unk>"),
        ("a a b <eos>", {"max_size": 1}, "<unk> <eos>"),
    ],
)
def test_rare_words_become_unk(tokens, limits, words):
    assert Vocabulary.build(tokens.split(), **limits).words == tuple(words.split())


def test_the_longest_word_can_be_saved(tmp_path):
    vocabulary = Vocabulary(("a" * (files.MAX_LINE - 1), EOS))
    (path := tmp_path / "vocabulary.txt").write_bytes(vocabulary.to_bytes())
    assert Vocabulary.load(path) == vocabulary


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
    path.write_bytes(Vocabulary(("\ufeff", EOS)).to_bytes())
    assert Vocabulary.load(path).words == ("\ufeff", EOS)


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
        (b"a" * (files.MAX_LINE + 1), "line 1"),
    ],
)
def test_bad_vocabulary_files(tmp_path, content, fact):
    path = tmp_path / "vocabulary.txt"
    if content is not None:
        path.write_bytes(content)
    with raises_one_line(DataError, path, fact):
        Vocabulary.load(path)
