"""Corpora from every source, against cases worked by hand, the TensorFlow tutorial, and the published counts of PTB."""

import collections
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import reader
from helpers.texts import FILES, TEST, TRAIN, VALID, raises_one_line, tar_member, tar_members, tgz, write_files
from ptb.data import download, grammar
from ptb.data.corpus import build_corpus, load_corpus, read_corpus, read_tokens
from ptb.data.files import SPLITS, DataError
from ptb.data.tokens import EOS, UNK
from ptb.data.vocabulary import Vocabulary

ROOT = Path(__file__).parents[2]
LINES = [text.splitlines() for text in (TRAIN, VALID, TEST)]


@pytest.fixture
def ptb_in_cache(ptb_path, tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/ptb").symlink_to(Path(ptb_path).resolve())
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))


def words_of(corpus, tokens):
    return [corpus.vocabulary.words[token] for token in tokens]


# From lines to ids


def test_a_corpus_by_hand():
    corpus = build_corpus(*LINES)
    assert corpus.vocabulary.words == ("the", EOS, UNK, "cat", "dog", "sat", "saw")
    assert corpus.train.tolist() == [0, 3, 6, 0, 4, 1, 0, 2, 5, 1]
    assert corpus.valid.tolist() == [0, 4, 5, 1]
    assert corpus.test.tolist() == [0, 3, 5, 1, 0, 4, 6, 1]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (" a b \n c \n", "a b <eos> c <eos>"),
        ("a b\nc\n", "a b <eos> c <eos>"),
        ("a\n\nb\n", "a <eos> <eos> b <eos>"),
        ("a\nb", "a <eos> b <eos>"),
        ("a\r\nb\r\n", "a <eos> b <eos>"),
        ("a\u2028b\x0bc\x85d\n", "a b c d <eos>"),
        ("\ufeffa\nb\n", "a <eos> b <eos>"),  # the byte order mark of an editor
        ("a\n\ufeffb\n", "a <eos> \ufeffb <eos>"),  # not at the start of the file
    ],
    ids=repr,
)
def test_every_line_ends_in_one_eos(tmp_path, text, tokens):
    vocabulary = Vocabulary(("a", "b", "c", "d", "\ufeffb", EOS))
    ids = read_tokens(write_files(tmp_path, {"text.txt": text}) / "text.txt", vocabulary)
    assert ids.dtype == np.int32
    assert [vocabulary.words[index] for index in ids] == tokens.split()


def test_a_fingerprint_depends_on_the_words_their_order_and_the_splits():
    texts = (["the cat sees", "the dog"], ["the dog sees"], ["the cat", "the dog"])
    fingerprint = build_corpus(*texts).fingerprint()
    assert build_corpus(*texts).fingerprint() == fingerprint
    split_elsewhere = (texts[0], [*texts[1], texts[2][0]], texts[2][1:])
    other_words = [[line.upper() for line in text] for text in texts]
    other_order = (texts[0][::-1], *texts[1:])
    for other in (split_elsewhere, other_words, other_order):
        assert build_corpus(*other).fingerprint() != fingerprint


# Vocabularies that are given, and unknown words


def test_a_given_vocabulary_encodes_every_split(tmp_path):
    vocabulary = Vocabulary((EOS, UNK, "dog", "the"))
    corpus = read_corpus(write_files(tmp_path, FILES), vocabulary)
    assert corpus.vocabulary is vocabulary
    assert corpus.train.tolist() == [3, 1, 1, 3, 2, 0, 3, 1, 1, 0]
    assert corpus.valid.tolist() == [3, 2, 1, 0]


def test_unknown_words_become_unk_with_one_warning(tmp_path, caplog):
    folder = write_files(tmp_path, FILES | {"ptb.valid.txt": "the ox sat\n" + "ox\n" * 6, "ptb.test.txt": "a dog <unk>\n"})
    corpus = read_corpus(folder)
    assert corpus.valid.tolist() == [0, 2, 5, 1] + [2, 1] * 6
    assert corpus.test.tolist() == [2, 4, 2, 1]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for fact in ("8 (", f"7 in {folder}/ptb.valid.txt", f"1 in {folder}/ptb.test.txt"):
        assert fact in record.getMessage()


def test_reading_imports_no_tensorflow_and_warns_in_one_line_on_standard_error(tmp_path):
    folder = write_files(tmp_path, FILES | {"ptb.valid.txt": "the ox sat\n"})
    script = f"import reader, sys; reader.load_corpus({str(folder)!r}); print({{'tensorflow', 'keras'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"
    assert done.stderr.count("\n") == 1
    assert f"{folder}/ptb.valid.txt" in done.stderr


def test_unknown_words_are_an_error_with_their_lines_if_the_vocabulary_has_no_unk(tmp_path):
    folder = write_files(tmp_path, FILES | {"ptb.train.txt": "the cat\n", "ptb.test.txt": "the dog\nan ox sat\nemus\n"})
    facts = ("'an' in line 2", "'ox' in line 2", "'emus' in line 3", "--set min_count=2")
    with raises_one_line(DataError, folder / "ptb.test.txt", *facts):
        read_corpus(folder, Vocabulary(("the", "cat", "dog", "sat", EOS)))


def test_the_remedy_for_capitals_is_lower_case(tmp_path, caplog):
    path = write_files(tmp_path, {"text.txt": "The Cat sat\n"}) / "text.txt"
    with raises_one_line(DataError, path, "'The' in line 1", "--lowercase"):
        read_tokens(path, Vocabulary(("the", "cat", "sat", EOS)))
    read_tokens(path, Vocabulary(("the", "cat", EOS, UNK)))
    assert "--lowercase" in caplog.text


def test_unknown_characters_are_an_error_with_their_lines(tmp_path):
    path = write_files(tmp_path, {"text.txt": "fa\ncafé\n"}) / "text.txt"
    with raises_one_line(DataError, path, "'é' in line 2"):
        read_tokens(path, Vocabulary(("c", "a", "f", EOS)), "char")


def test_lines_of_a_part_of_one_text_are_those_of_the_text(tmp_path):
    path = write_files(tmp_path, {"text.txt": "cafe\n" * 96 + "face\ncafé\n" + "cafe\n" * 2}) / "text.txt"
    with raises_one_line(DataError, f"{path} (test)", "'é' in line 98"):
        read_corpus(path, Vocabulary(("c", "a", "f", "e", EOS)), "char")


def test_a_vocabulary_without_eos_is_an_error(tmp_path):
    path = write_files(tmp_path, FILES) / "ptb.test.txt"
    with raises_one_line(DataError, path, EOS):
        read_tokens(path, Vocabulary(("the", UNK)))


# Splits that are the training text


@pytest.mark.parametrize("valid", [TRAIN, TRAIN.replace("\n", "\r\n"), TRAIN.removesuffix("\n")])
def test_a_split_that_is_the_training_text_is_warned_of(tmp_path, caplog, valid):
    folder = write_files(tmp_path, FILES | {"ptb.valid.txt": valid})
    corpus = read_corpus(folder)
    np.testing.assert_array_equal(corpus.valid, corpus.train)
    assert f"{folder / 'ptb.valid.txt'}: the same text as {folder / 'ptb.train.txt'};" in caplog.text


def test_different_texts_of_unknown_words_are_not_the_same_text(tmp_path, caplog):
    write_files(tmp_path, {"train.txt": "alpha beta\n", "valid.txt": "gamma delta\n", "test.txt": "alpha\n"})
    corpus = read_corpus(tmp_path, Vocabulary((UNK, EOS, "the")))
    assert corpus.train.tolist() == corpus.valid.tolist() == [0, 0, 1]
    assert "same text" not in caplog.text


# Sources


def test_every_layout_gives_the_same_corpus_and_writes_nothing(tmp_path, monkeypatch):
    expected = build_corpus(*LINES)
    short = {name.removeprefix("ptb."): content for name, content in FILES.items()}
    others = {"ptb.char.train.txt": "t h e", "README": "not a text of the corpus"}
    write_files(tmp_path / "ptb", FILES | others)
    write_files(tmp_path / "short", short)
    write_files(tmp_path / "simple-examples/data", FILES)
    unrelated = [tar_member("./simple-examples/ptb.train.txt", "lone"), tar_member("../x", "y"), *tar_members(others)]
    (tmp_path / "simple-examples.tgz").write_bytes(tgz(*unrelated, *tar_members(FILES)))
    (tmp_path / "flat.tar.gz").write_bytes(tgz(*tar_members(short, folder="")))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "ptb", "~/ptb", "short", "simple-examples", "simple-examples.tgz", "flat.tar.gz"):
        corpus = load_corpus(path)
        assert corpus.vocabulary == expected.vocabulary
        for split in SPLITS:
            np.testing.assert_array_equal(getattr(corpus, split), getattr(expected, split))
    assert sorted(tmp_path.rglob("*")) == before


def test_one_file_is_split_between_lines_by_fractions(tmp_path):
    path = write_files(tmp_path, {"text.txt": "".join(f"{number:03}\n" for number in range(200))}) / "text.txt"
    corpus = load_corpus(path, level="char", fractions=(0.8, 0.15))
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [4 * 160, 4 * 30, 4 * 10]
    assert "".join(words_of(corpus, corpus.valid[:8])) == "160<eos>161<eos>"
    assert set(corpus.vocabulary.words) == {EOS, *"0123456789"}


def test_the_alphabet_of_one_file_has_all_its_characters(tmp_path):
    path = write_files(tmp_path, {"text.txt": "ab\n" * 90 + "b!\n" * 10}) / "text.txt"
    assert "!" in read_corpus(path, level="char").vocabulary.ids


def test_words_that_occur_once_in_train_of_one_file_are_unknown(tmp_path, caplog):
    lines = ["the cat\n"] * 8 + ["the dog\n", "a dog\n"] + ["the zebra\n"] * 2
    path = write_files(tmp_path, {"text.txt": "".join(lines)}) / "text.txt"
    corpus = read_corpus(path, fractions=(10 / 12 - 0.02, 1 / 12))
    assert corpus.vocabulary.words == (EOS, "the", "cat", "dog", UNK)
    assert " ".join(words_of(corpus, corpus.train[-6:])) == "the dog <eos> <unk> dog <eos>"
    assert words_of(corpus, (*corpus.valid, *corpus.test)) == ["the", UNK, EOS] * 2
    assert "3 (1 in " in caplog.text
    path.write_text("yak <unk>\n" + "".join(lines))
    assert "yak" in read_corpus(path).vocabulary.ids


def test_one_file_with_a_given_vocabulary_keeps_it(tmp_path):
    path = write_files(tmp_path, {"text.txt": "a b\n" * 90 + "b c\n" * 10}) / "text.txt"
    vocabulary = Vocabulary((EOS, UNK, "a"))
    assert read_corpus(path, vocabulary).vocabulary is vocabulary


def test_the_demo_is_the_text_of_the_grammar():
    text = grammar.demo_text(seed=0)
    corpus = load_corpus("demo")
    for lines, tokens in zip(text, corpus[1:], strict=True):
        assert " ".join(words_of(corpus, tokens)) == " ".join(f"{line} <eos>" for line in lines)


def test_the_demo_can_be_read_as_characters(monkeypatch):
    for split in ("TRAIN", "VALID", "TEST"):
        monkeypatch.setattr(grammar, f"{split}_TOKENS", 500)
    corpus = load_corpus("demo", level="char")
    assert set(corpus.vocabulary.words) <= {EOS, *"abcdefghijklmnopqrstuvwxyz_.!?`'"}


def test_a_folder_called_demo_is_read_as_files(tmp_path, monkeypatch):
    write_files(tmp_path / "demo", FILES)
    monkeypatch.chdir(tmp_path)
    assert load_corpus("./demo").test.tolist() == build_corpus(*LINES).test.tolist()
    assert load_corpus("./demo", Vocabulary((UNK, EOS))).valid.tolist() == [0, 0, 0, 1]


# PTB


def test_ptb_in_the_cache_is_read_without_a_download(ptb_in_cache, capfd, caplog):
    assert load_corpus(None).fingerprint() == download.PTB_FINGERPRINT
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_ptb_is_read_as_the_tutorial_reads_it(ptb_path):
    corpus = read_corpus(ptb_path)
    words = {split: Path(ptb_path, f"ptb.{split}.txt").read_text().replace("\n", "<eos>").split() for split in SPLITS}
    counts = collections.Counter(words["train"])
    by_count = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    assert corpus.vocabulary.words == tuple(by_count)
    assert len(corpus.vocabulary) == 10_000
    for split, size in (("train", 929_589), ("valid", 73_760), ("test", 82_430)):
        tokens = getattr(corpus, split)
        assert tokens.shape == (size,)
        assert [by_count[index] for index in tokens] == words[split]
    assert corpus.vocabulary.words[:5] == ("the", "<unk>", "<eos>", "N", "of")


def test_ptb_as_characters_has_the_published_counts(ptb_path):
    corpus = read_corpus(ptb_path, level="char")
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [5_017_482, 393_042, 442_423]
    assert len(corpus.vocabulary) == 50


# reader.py


def test_reader_offers_what_its_docstring_shows(tmp_path):
    corpus = reader.load_corpus(write_files(tmp_path, FILES))
    assert [inputs.shape for inputs, _ in reader.windows(corpus.train, batch_size=2, num_steps=2)] == [(2, 2)] * 2
    assert len(reader.scoring_windows(corpus.test)) == 1
    assert all(hasattr(reader, name) for name in reader.__all__)
