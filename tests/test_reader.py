"""reader.py against hand-worked cases, the tutorial's expressions, PTB, and files that are not what they seem."""

import collections
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import corpora
import reader
import textfiles
import tokenfiles
from reader import EOS, UNK, DataError, Vocabulary
from texts import FILES, TEST, TRAIN, VALID, assert_data_error, members_of, tar_member, tgz, write_files


def test_ids_go_by_descending_count_then_word():
    vocabulary = Vocabulary.build(["b", "a", "c", "a", "b", "d", "a"])
    assert vocabulary.words == ("a", "b", "c", "d")
    assert vocabulary.ids == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert len(vocabulary) == 4
    assert vocabulary == Vocabulary.build(["c", "b", "a", "a", "d", "b", "a"]) != Vocabulary(("b", "a", "c", "d"))


def test_encode_maps_other_words_to_unk_or_refuses_them():
    tokens = Vocabulary((UNK, "a", "b")).encode(["b", "x", "a"])
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [2, 0, 1]
    with pytest.raises(DataError, match="'x' is not in the vocabulary"):
        Vocabulary(("a", "b")).encode(["b", "x", "a"])


def test_vocabulary_is_saved_one_word_a_line(tmp_path):
    vocabulary = Vocabulary.build(["naïve", "日本", EOS, UNK, EOS, "\ufeff", "a\u200bb"])
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(vocabulary.to_bytes())
    assert path.read_text(encoding="utf-8") == "".join(word + "\n" for word in vocabulary.words)
    assert Vocabulary.load(path) == vocabulary


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "is empty or cut off"),
        (b"the\ncat\nsa", "is empty or cut off"),
        (b"the\n\ncat\n", "entry 2 of the vocabulary, '', is not one word"),
        (b"the\ncat sat\n", "entry 2 of the vocabulary, 'cat sat', is not one word"),
        (b"the\ncat\nthe\n", "entry 3 of the vocabulary, 'the', stands there twice"),
        (b"the\ncat\0\n", "line 2 holds a zero byte"),
        (b"the\ncaf\xe9\n", "line 2 is not UTF-8"),
        (b"a" * (textfiles.MAX_LINE_BYTES + 1), "line 1 has over"),
    ],
)
def test_what_is_no_vocabulary(tmp_path, content, fragment):
    path = tmp_path / "vocabulary.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        Vocabulary.load(path)
    assert_data_error(error, str(path), fragment)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (" a b \n c \n", "a b <eos> c <eos>"),
        ("a b\nc\n", "a b <eos> c <eos>"),
        ("a\n\nb\n", "a <eos> <eos> b <eos>"),
        ("a\nb", "a <eos> b <eos>"),
        ("a\r\nb\r\n", "a <eos> b <eos>"),
        ("a\u2028b\x0bc\x85d\n", "a b c d <eos>"),
        ("\ufeffa\nb\n", "a <eos> b <eos>"),
    ],
    ids=repr,
)
def test_every_line_ends_in_one_eos(tmp_path, text, tokens):
    vocabulary = Vocabulary(("a", "b", "c", "d", EOS))
    write_files(tmp_path, {"text.txt": text})
    encoded = reader.read_tokens(tmp_path / "text.txt", vocabulary)
    assert encoded.dtype == np.int32
    assert [vocabulary.words[index] for index in encoded] == tokens.split()


def test_corpus_worked_by_hand():
    corpus = reader.build_corpus(TRAIN.splitlines(), VALID.splitlines(), TEST.splitlines())
    assert corpus.vocabulary.words == ("the", EOS, UNK, "cat", "dog", "sat", "saw")
    assert corpus.train.tolist() == [0, 3, 6, 0, 4, 1, 0, 2, 5, 1]
    assert corpus.valid.tolist() == [0, 4, 5, 1]
    assert corpus.test.tolist() == [0, 3, 5, 1, 0, 4, 6, 1]


def test_a_fingerprint_is_that_of_words_texts_and_cuts():
    texts = (["the cat sees", "the dog"], ["the dog sees"], ["the cat", "the dog"])
    fingerprint = reader.build_corpus(*texts).fingerprint()
    assert reader.build_corpus(*texts).fingerprint() == fingerprint
    moved = (texts[0], [*texts[1], texts[2][0]], texts[2][1:])
    renamed = [[line.upper() for line in text] for text in texts]
    other_order = (texts[0][::-1], *texts[1:])
    for other in (moved, renamed, other_order):
        assert reader.build_corpus(*other).fingerprint() != fingerprint


def test_every_layout_gives_the_same_corpus(tmp_path, monkeypatch):
    expected = reader.build_corpus(TRAIN.splitlines(), VALID.splitlines(), TEST.splitlines())
    short = {name.removeprefix("ptb."): content for name, content in FILES.items()}
    others = {"ptb.char.train.txt": "t h e", "README": "not a text of the corpus"}
    write_files(tmp_path / "ptb", FILES | others)
    write_files(tmp_path / "short", short)
    write_files(tmp_path / "simple-examples/data", FILES)
    unrelated = [tar_member("./simple-examples/ptb.train.txt", "lone"), tar_member("../x", "y"), *members_of(others)]
    (tmp_path / "simple-examples.tgz").write_bytes(tgz(*unrelated, *members_of(FILES)))
    (tmp_path / "flat.tgz").write_bytes(tgz(*members_of(short, folder="")))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "ptb", "~/ptb", "short", "simple-examples", "simple-examples.tgz", "flat.tgz"):
        corpus = reader.read_corpus(path)
        assert corpus.vocabulary == expected.vocabulary
        for split in reader.SPLITS:
            np.testing.assert_array_equal(getattr(corpus, split), getattr(expected, split))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_vocabulary_given_encodes_every_split(tmp_path):
    vocabulary = Vocabulary((EOS, UNK, "dog", "the"))
    corpus = reader.read_corpus(write_files(tmp_path, FILES), vocabulary)
    assert corpus.vocabulary is vocabulary
    assert corpus.train.tolist() == [3, 1, 1, 3, 2, 0, 3, 1, 1, 0]
    assert corpus.valid.tolist() == [3, 2, 1, 0]


def test_unknown_words_become_unk_with_one_warning(tmp_path, caplog):
    folder = write_files(tmp_path, FILES | {"ptb.valid.txt": "the ox sat\n" + "ox\n" * 6, "ptb.test.txt": "a dog <unk>\n"})
    corpus = reader.read_corpus(folder)
    assert corpus.valid.tolist() == [0, 2, 5, 1] + [2, 1] * 6
    assert corpus.test.tolist() == [2, 4, 2, 1]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"words outside the vocabulary, read as <unk>: 8 (7 in {folder}/ptb.valid.txt, 1 in {folder}/ptb.test.txt)"
    )


def test_the_warning_is_one_line_on_standard_error(tmp_path):
    folder = write_files(tmp_path, FILES | {"ptb.valid.txt": "the ox sat\n"})
    command = [sys.executable, "-c", f"import reader; reader.read_corpus({str(folder)!r})"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout == ""
    assert done.stderr == f"words outside the vocabulary, read as <unk>: 1 (1 in {folder}/ptb.valid.txt)\n"


def test_a_character_that_a_model_does_not_know_is_to_be_taken_out(tmp_path):
    path, vocabulary = tmp_path / "text.txt", reader.Vocabulary(("c", "a", "f", reader.EOS))
    path.write_text("café\n")
    for read in (reader.read_tokens, lambda *arguments: tokenfiles.read_ids(str(path), *arguments[1:])):
        with pytest.raises(DataError) as error:
            read(path, vocabulary, "char")
        assert_data_error(error, str(path), "'é' in line 1", "; take them out")


def test_without_unk_unknown_words_are_named_with_their_lines(tmp_path):
    files = FILES | {"ptb.train.txt": "the dog sat\nsaw\n", "ptb.test.txt": "the dog\nan ox sat\nemus\n"}
    with pytest.raises(DataError) as error:
        reader.read_corpus(write_files(tmp_path, files))
    assert_data_error(error, f"{tmp_path}/ptb.test.txt", "'an' in line 2, 'ox' in line 2, 'emus' in line 3")


def test_a_vocabulary_without_eos_is_refused(tmp_path):
    with pytest.raises(DataError) as error:
        reader.read_tokens(write_files(tmp_path, FILES) / "ptb.test.txt", Vocabulary(("the", UNK)))
    assert_data_error(error, f"{tmp_path}/ptb.test.txt", "has no <eos>")


def test_windows_worked_by_hand():
    result = reader.windows(np.arange(16, dtype=np.int32), batch_size=2, num_steps=3)
    assert len(result) == 2
    assert [(inputs.tolist(), targets.tolist()) for inputs, targets in result] == [
        ([[0, 1, 2], [8, 9, 10]], [[1, 2, 3], [9, 10, 11]]),
        ([[3, 4, 5], [11, 12, 13]], [[4, 5, 6], [12, 13, 14]]),
    ]
    whole = reader.windows(np.arange(16, dtype=np.int32), batch_size=2, num_steps=3, drop_remainder=False)
    assert len(whole) == 3
    assert [array.tolist() for array in whole[2]] == [[[6], [14]], [[7], [15]]]


@pytest.mark.parametrize("tokens", [21, 22, 23, 40, 41, 100, 103])
@pytest.mark.parametrize(("batch_size", "num_steps"), [(1, 1), (1, 20), (3, 2), (4, 4), (7, 2)])
def test_windows_are_those_of_the_tutorial(tokens, batch_size, num_steps):
    raw_data = np.random.default_rng(0).integers(0, 50, tokens, dtype=np.int32)
    batch_len = len(raw_data) // batch_size
    data = np.reshape(raw_data[0 : batch_size * batch_len], [batch_size, batch_len])
    epoch_size = (batch_len - 1) // num_steps
    result = reader.windows(raw_data, batch_size, num_steps)
    assert len(result) == len(list(result)) == epoch_size
    for i, (inputs, targets) in enumerate(result):
        np.testing.assert_array_equal(inputs, data[:, i * num_steps : (i + 1) * num_steps])
        np.testing.assert_array_equal(targets, data[:, i * num_steps + 1 : (i + 1) * num_steps + 1])
    whole = reader.windows(raw_data, batch_size, num_steps, drop_remainder=False)
    np.testing.assert_array_equal(np.concatenate([inputs for inputs, _ in whole], axis=1), data[:, :-1])
    np.testing.assert_array_equal(np.concatenate([targets for _, targets in whole], axis=1), data[:, 1:])


def test_windows_are_a_sequence_of_views(tmp_path):
    np.save(tmp_path / "tokens.npy", np.arange(100, dtype=np.int32))
    tokens = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    result = reader.windows(tokens, batch_size=4, num_steps=5)
    assert isinstance(result, collections.abc.Sequence)
    assert len(result) == 4
    for inputs, targets in result:
        assert inputs.shape == targets.shape == (4, 5)
        assert inputs.dtype == np.int32
        assert np.shares_memory(inputs, tokens)
        assert np.shares_memory(targets, tokens)
        assert not inputs.flags.writeable
    assert result[-1][0].tolist() == result[3][0].tolist()
    assert [inputs[0, 0] for inputs, _ in result[1:]] == [5, 10, 15]
    assert [inputs[0, 0] for inputs, _ in result[::2][1:]] == [10]
    assert len(result[4:]) == 0
    with pytest.raises(IndexError):
        result[4]


@pytest.mark.parametrize(("drop_remainder", "needed"), [(True, 720), (False, 40)])
def test_a_text_too_short_for_one_window(drop_remainder, needed):
    assert len(reader.windows(np.zeros(needed, np.int32), 20, 35, drop_remainder)) == 1
    for tokens in (needed - 1, 1, 0):
        with pytest.raises(DataError) as error:
            reader.windows(np.zeros(tokens, np.int32), 20, 35, drop_remainder, name="valid.txt")
        assert_data_error(error, f"valid.txt: has {tokens} tokens", "batch_size 20 and num_steps 35", f"takes {needed};")
    with pytest.raises(ValueError, match="batch_size 0"):
        reader.windows(np.zeros(10, np.int32), 0, 35)


def test_ptb_has_the_fingerprint_that_is_told_of_it(ptb_path):
    assert reader.read_corpus(ptb_path).fingerprint() == corpora.PTB_FINGERPRINT


def test_ptb_is_read_as_the_tutorial_read_it(ptb_path, caplog):
    corpus = reader.read_corpus(ptb_path)
    assert not caplog.records
    words = {split: Path(ptb_path, f"ptb.{split}.txt").read_text().replace("\n", "<eos>").split() for split in reader.SPLITS}
    counts = collections.Counter(words["train"])
    by_count = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    assert corpus.vocabulary.words == tuple(by_count)
    assert len(corpus.vocabulary) == 10_000
    for split, size in (("train", 929_589), ("valid", 73_760), ("test", 82_430)):
        tokens = getattr(corpus, split)
        assert tokens.shape == (size,)
        assert [by_count[index] for index in tokens] == words[split]
    assert corpus.vocabulary.words[:5] == ("the", "<unk>", "<eos>", "N", "of")


@pytest.mark.parametrize("num_steps", [1, 35, 1000, 82_429, 100_000])
def test_the_test_at_batch_one_scores_82429_predictions(ptb_path, num_steps):
    vocabulary = Vocabulary.build(reader.tokenize(Path(ptb_path, "ptb.train.txt").read_text().splitlines()))
    tokens = reader.read_tokens(Path(ptb_path, "ptb.test.txt"), vocabulary)
    assert sum(targets.size for _, targets in reader.windows(tokens, 1, num_steps, drop_remainder=False)) == 82_429


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("to be\n", ["t", "o", "_", "b", "e"]),
        (" no it was\n", ["_", "n", "o", "_", "i", "t", "_", "w", "a", "s"]),
        (" no it \n", ["n", "o", "_", "i", "t"]),  # framed by spaces, as every line of PTB
        ("  x \n", ["_", "x"]),
        ("a_b\tc\r\n", ["a", "<U+005F>", "b", "<U+0009>", "c"]),
        ("\n", []),
        (" \n", []),
    ],
)
def test_characters_worked_by_hand(line, tokens):
    assert reader.split_line(line, "char") == tokens


@pytest.mark.parametrize(
    "text", ["to be,\nor not\n", "\n\n  deep\tin _ <unk> <U+0041>\n", "caf\u00e9 \u2003 \U0001f600\n", "_\n"]
)
def test_characters_join_to_the_text_that_they_were(text):
    tokens = list(reader.tokenize(text.splitlines(keepends=True), "char"))
    assert Vocabulary.build(tokens)  # each could be a word
    assert "".join(reader.join_tokens(tokens, "char")) == text


def test_words_join_to_sentences():
    words = reader.tokenize(["the  cat sat\n", "\n", "it"])
    assert "".join(reader.join_tokens(words)) == "the cat sat\n\nit\n"
    assert "".join(reader.join_tokens(["no", "end"])) == "no end"


def test_what_stands_for_no_character_is_left_as_it_is():
    assert "".join(reader.join_tokens(["<U+FFFFFF>", "<U+5F>", "<U+005F>"], "char")) == "<U+FFFFFF><U+5F>_"


def test_a_text_that_is_that_of_training_is_said_to_be_so_first(tmp_path, caplog):
    write_files(tmp_path, FILES | {"ptb.valid.txt": TRAIN, "ptb.test.txt": "a zebra\n"})
    with pytest.raises(DataError, match="is the same text as"):
        reader.read_corpus(tmp_path)
    assert not caplog.records  # of the zebra


def test_texts_of_which_a_vocabulary_knows_nothing_are_not_the_same(tmp_path):
    write_files(tmp_path, {"train.txt": "alpha beta\n", "valid.txt": "gamma delta\n", "test.txt": "alpha\n"})
    corpus = reader.read_corpus(tmp_path, reader.Vocabulary((reader.UNK, reader.EOS, "the")))
    assert corpus.train.tolist() == corpus.valid.tolist() == [0, 0, 1]


def test_one_file_is_cut_between_lines_by_fractions(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"{number:03}\n" for number in range(200)))
    corpus = reader.read_corpus(tmp_path / "text.txt", level="char", fractions=(0.8, 0.15))
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [4 * 160, 4 * 30, 4 * 10]
    assert "".join(corpus.vocabulary.words[token] for token in corpus.valid[:8]) == "160<eos>161<eos>"
    assert set(corpus.vocabulary.words) == {EOS, *"0123456789"}


def test_the_alphabet_of_one_file_is_that_of_all_of_it(tmp_path):
    (tmp_path / "text.txt").write_text("ab\n" * 90 + "b!\n" * 10)
    assert "!" in reader.read_corpus(tmp_path / "text.txt", level="char").vocabulary.ids


def test_the_words_that_one_file_has_once_are_unknown(tmp_path, caplog):
    lines = ["the cat\n"] * 8 + ["the dog\n", "a dog\n"] + ["the zebra\n"] * 2
    (tmp_path / "text.txt").write_text("".join(lines))
    corpus = reader.read_corpus(tmp_path / "text.txt", fractions=(10 / 12 - 0.02, 1 / 12))
    assert corpus.vocabulary.words == (EOS, "the", "cat", "dog", UNK)
    assert " ".join(corpus.vocabulary.words[token] for token in corpus.train[-6:]) == "the dog <eos> <unk> dog <eos>"
    assert [corpus.vocabulary.words[token] for token in (*corpus.valid, *corpus.test)] == ["the", UNK, EOS] * 2
    assert "3 (1 in " in caplog.text
    (tmp_path / "text.txt").write_text("yak <unk>\n" + "".join(lines))
    assert "yak" in reader.read_corpus(tmp_path / "text.txt").vocabulary.ids


def test_overlapping_windows_worked_by_hand():
    windows = reader.windows(np.arange(20), batch_size=2, num_steps=2, overlap=3)
    inputs = [[[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]], [[2, 3, 4, 5, 6], [12, 13, 14, 15, 16]]]
    assert len(windows) == 3
    for (got, targets), wanted in zip(windows, inputs):
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(targets, np.array(wanted) + 1)
    np.testing.assert_array_equal(windows[1:][1][0][0], [4, 5, 6, 7, 8])


def test_ptb_as_characters_has_the_counts_of_the_literature(ptb_path):
    corpus = reader.read_corpus(ptb_path, level="char")
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [5_017_482, 393_042, 442_423]
    assert len(corpus.vocabulary) == 50
