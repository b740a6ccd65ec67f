"""Large texts: the same corpus as in memory, read once, and never ids that are not those of the text."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import corpora
import processes
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
    if level == "char":
        (folder / "train.txt").write_text("the <unk>\n" * 9 + "\ufefftseh_ <unk>\n")  # with a mark that is no first one
        for name in ("valid.txt", "test.txt"):
            (folder / name).write_text(" the nets\n" * (1 + len(name)))
    vocabulary = words and reader.Vocabulary(words)
    expected = reader.read_corpus(folder, vocabulary, level)
    warned = len(caplog.records)
    caplog.clear()
    assert_same(corpora.load_corpus(str(folder), vocabulary, level), expected)
    assert bool(caplog.records) == bool(warned)
    caplog.clear()
    assert_same(corpora.load_corpus(str(folder), vocabulary, level), expected)
    assert not caplog.records  # the second time nothing is read, and nothing said


def test_unknown_words_are_counted(folder, caplog):
    corpora.load_corpus(str(folder))
    assert [record.getMessage().split(": ")[1].split(" in ")[0] for record in caplog.records] == ["3"]  # the zebras


def test_reading_with_the_texts_own_vocabulary_finds_what_is_there(folder):
    vocabulary = corpora.load_corpus(str(folder)).vocabulary
    files = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    corpora.load_corpus(str(folder), vocabulary)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == files


def read_again_and_again(path, results):
    for _ in range(20):
        for made in pathlib.Path(path).glob("*.json"):
            made.unlink(missing_ok=True)
        try:
            results.put(len(tokenfiles.read_ids(f"{path}/train.txt")[1]))
        except Exception as error:
            results.put(repr(error))


def test_processes_that_read_at_the_same_time_do_not_meet(folder):
    results = processes.context.Queue()
    readers = [processes.context.Process(target=read_again_and_again, args=(str(folder), results)) for _ in range(3)]
    for process in readers:
        process.start()
    assert {results.get(timeout=60) for _ in range(60)} == {15}
    for process in readers:
        process.join(60)
    assert not list(folder.glob(".ids-*"))


def test_what_a_killed_process_has_left_is_deleted_a_day_later(folder):
    for name, age in (("old", 2 * tokenfiles.DAY), ("new", 0)):
        (folder / f".ids-{name}").mkdir()
        (folder / f".ids-{name}" / "new.ids").touch()
        os.utime(folder / f".ids-{name}", times=(time.time() - age,) * 2)
    corpora.load_corpus(str(folder))
    assert [path.name for path in folder.glob(".ids-*")] == [".ids-new"]  # which may still be in use


def test_a_text_is_read_once_and_again_when_it_has_changed(folder):
    first = corpora.load_corpus(str(folder)).train.copy()
    text = folder / "train.txt"
    status = text.stat()
    text.write_bytes(b"x" * status.st_size)  # which nobody notices, since it looks untouched
    os.utime(text, ns=(status.st_atime_ns, status.st_mtime_ns))
    np.testing.assert_array_equal(corpora.load_corpus(str(folder)).train, first)
    text.write_text(TEXTS["train.txt"].replace("dogs", "cats"))  # as long as before
    assert "cats" in corpora.load_corpus(str(folder)).vocabulary.ids
    text.write_text(TEXTS["train.txt"] * 2)
    assert len(corpora.load_corpus(str(folder)).train) > len(first)


def test_words_and_characters_of_one_vocabulary_do_not_meet(folder):
    vocabulary = reader.Vocabulary(("a", "b", "ab", reader.EOS))
    (folder / "text.txt").write_text("ab\n")
    for level, ids in (("word", [2, 3]), ("char", [0, 1, 3])):
        assert tokenfiles.read_ids(folder / "text.txt", vocabulary, level)[1].tolist() == ids


def test_a_vocabulary_without_eos_is_refused(folder):
    with pytest.raises(reader.DataError, match=r"valid.txt: the vocabulary to read with has no <eos>"):
        tokenfiles.read_ids(folder / "valid.txt", reader.Vocabulary(("the", reader.UNK)))


@pytest.mark.parametrize("ending", ["ids", "words", "word.json"])
@pytest.mark.parametrize("damage", [lambda data: data[:-4], lambda data: data[:8] + b"Z" + data[9:], lambda data: b""])
def test_damaged_files_are_made_again(folder, ending, damage):
    expected = corpora.load_corpus(str(folder))
    expected = expected._replace(train=expected.train.copy())
    path = sorted(folder.glob(f"train.txt.*{ending}"))[-1]
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
    with pytest.raises(reader.DataError, match=fragment):
        corpora.load_corpus(str(folder))


def test_no_room_beside_the_text_is_an_error(folder):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    script = (
        "import sys, textfiles, corpora; textfiles.LARGE_BYTES = 50\n"
        "try: corpora.load_corpus(sys.argv[1])\nexcept textfiles.DataError as error: print(error)"
    )
    command = [sys.executable, "-c", script, folder]
    process = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, preexec_fn=limited, check=True)
    assert "train.txt: nothing can be written beside it (File too large); so large a text" in process.stdout
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
        processes.succeed("train.py", "--model=test", f"--data_path={corpus}", f"--save_path={run}", before=before)
        results.append(json.loads((run / "result.json").read_text())["test_perplexity"])
    assert len(list((tmp_path / "large").glob("*.ids"))) == 3
    assert results[0] == results[1]
