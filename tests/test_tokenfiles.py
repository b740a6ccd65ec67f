"""Large texts: the same corpus as in memory, read once, and never ids that are not those of the text."""

import json
import os

import numpy as np
import processes
import pytest

import corpora
import reader
import textfiles
import tokenfiles

TEXTS = {
    "train.txt": "\ufeffthe cat sees the dogs\n\nthe dogs see <unk>\nno_body sleeps",
    "valid.txt": "the cat sleeps\n",
    "test.txt": "the zebra sees the cat\n" * 3,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(textfiles, "LARGE_BYTES", 50)
    monkeypatch.setattr(tokenfiles, "CHUNK", 4)
    for name, content in TEXTS.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def assert_same(corpus, expected):
    assert corpus.vocabulary == expected.vocabulary
    for ours, theirs in zip(corpus[1:], expected[1:], strict=True):
        assert isinstance(ours, np.memmap)
        assert ours.dtype == np.int32
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("level", ["word", "char"])
@pytest.mark.parametrize("words", [None, ("the", reader.EOS, reader.UNK, "t", "h", "e", "_")])
def test_a_large_corpus_is_what_it_would_be_in_memory(folder, level, words, caplog):
    if level == "char":  # characters of valid or test that train has not are words without an id
        for name in ("valid.txt", "test.txt"):
            (folder / name).write_text(" the cats\n" * (1 + len(name)))
    vocabulary = words and reader.Vocabulary(words)
    expected = reader.read_corpus(folder, vocabulary, level)
    caplog.clear()
    assert_same(corpora.load_corpus(str(folder), vocabulary, level), expected)
    assert bool(caplog.records) == any((text == vocabulary.ids[reader.UNK]).any() for text in expected[1:]) if words else True
    caplog.clear()
    assert_same(corpora.load_corpus(str(folder), vocabulary, level), expected)
    assert not caplog.records  # the second time nothing is read, and nothing said


def test_a_text_is_read_once_and_again_when_it_has_changed(folder):
    first = corpora.load_corpus(str(folder)).train.copy()
    text = folder / "train.txt"
    status = text.stat()
    text.write_bytes(b"x" * status.st_size)  # which nobody notices, since it looks untouched
    os.utime(text, ns=(status.st_atime_ns, status.st_mtime_ns))
    np.testing.assert_array_equal(corpora.load_corpus(str(folder)).train, first)
    text.write_text(TEXTS["train.txt"] * 2)
    assert len(corpora.load_corpus(str(folder)).train) > len(first)


@pytest.mark.parametrize("ending", ["ids", "words", "json"])
@pytest.mark.parametrize("damage", [lambda data: data[:-4], lambda data: data[:8] + b"Z" + data[9:], lambda data: b""])
def test_damaged_files_are_made_again(folder, ending, damage):
    expected = corpora.load_corpus(str(folder))
    expected = expected._replace(train=expected.train.copy())
    (path,) = folder.glob(f"train.txt.*.{ending}")
    path.write_bytes(damage(path.read_bytes()))
    corpus = corpora.load_corpus(str(folder))
    np.testing.assert_array_equal(corpus.train, expected.train)
    assert corpus.vocabulary == expected.vocabulary


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("train.txt", "a\0" * 100, "train.txt: line 1 holds a zero byte"),
        ("train.txt", " \n" * 100, "train.txt: holds no words"),
        ("test.txt", "the same\n" * 50 + "the other", "test.txt: has 'same' in line 1"),
        ("test.txt", TEXTS["train.txt"].replace("<unk>", "cat"), "test.txt: is the same text as"),
    ],
)
def test_bad_texts(folder, name, content, fragment):
    (folder / "train.txt").write_text(TEXTS["train.txt"].replace("<unk>", "cat"))
    (folder / "test.txt").write_text("the cat")
    (folder / name).write_text(content)
    with pytest.raises(reader.DataError, match="cannot|" + fragment.replace("(", r"\(")):
        corpora.load_corpus(str(folder))


def test_no_room_beside_the_text_is_an_error(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(reader.DataError, match=r"train.txt.*ids: cannot be written \(No space left on device\)"):
        corpora.load_corpus(str(folder))
    assert sorted(path.name for path in folder.iterdir()) == sorted(TEXTS)


def make_every_text_large():
    textfiles.LARGE_BYTES = 0


def test_a_run_on_a_large_text_is_the_run_on_a_small_one(tiny_corpus, tmp_path):
    results = []
    for name, before in (("small", None), ("large", make_every_text_large)):
        corpus = tmp_path / name
        corpus.mkdir()
        for text in tiny_corpus.glob("*.txt"):
            (corpus / text.name).write_bytes(text.read_bytes())
        run = tmp_path / f"run-{name}"
        process = processes.run("train.py", "--model=test", f"--data_path={corpus}", f"--save_path={run}", before=before)
        assert process.returncode == 0, process.stderr
        results.append(json.loads((run / "result.json").read_text())["test_perplexity"])
    assert len(list((tmp_path / "large").glob("*.ids"))) == 3
    assert results[0] == results[1]
