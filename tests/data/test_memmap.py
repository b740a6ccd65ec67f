"""Memory-mapped ids: the same corpus as in memory, read once, and never stale or damaged ids."""

import json
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from helpers import processes
from helpers.texts import TINY, raises_one_line, write_files
from ptb.data import memmap, sources
from ptb.data.corpus import load_corpus, read_corpus
from ptb.data.files import DAY, DataError
from ptb.data.tokens import EOS, UNK
from ptb.data.vocabulary import Reading, Vocabulary

TEXTS = {
    "train.txt": "\ufeffthe cat sees the dogs\n\nthe dogs see <unk>\nno_body sleeps",
    "valid.txt": "the cat sleeps\n",
    "test.txt": "the zebra sees the cat\n" * 3,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a large text: the bounds are lowered to a few tokens."""
    monkeypatch.setattr(sources, "LARGE_BYTES", 50)
    monkeypatch.setattr(memmap, "CHUNK", 4)
    return write_files(tmp_path, TEXTS)


def assert_mapped_and_equal(corpus, expected):
    assert corpus.vocabulary == expected.vocabulary
    for tokens, expected_tokens in zip(corpus[1:], expected[1:], strict=True):
        assert isinstance(tokens, np.memmap)
        assert tokens.dtype == np.int32
        np.testing.assert_array_equal(tokens, expected_tokens)


@pytest.mark.parametrize("level", ["word", "char"])
@pytest.mark.parametrize("words", [None, ("the", EOS, UNK, "t", "h", "e", "_")])
def test_a_large_corpus_equals_the_corpus_in_memory(folder, level, words, caplog):
    if level == "char":
        texts = {name: " the nets\n" * (1 + len(name)) for name in ("valid.txt", "test.txt")}
        texts["train.txt"] = "the <unk>\n" * 9 + "\ufefftseh_ <unk>\n"  # a byte order mark not at the start is kept
        write_files(folder, texts)
    vocabulary = words and Vocabulary(words)
    expected = read_corpus(folder, vocabulary, level)
    is_warned = bool(caplog.records)
    caplog.clear()
    assert_mapped_and_equal(load_corpus(folder, vocabulary, level), expected)
    assert bool(caplog.records) == is_warned
    caplog.clear()
    assert_mapped_and_equal(load_corpus(folder, vocabulary, level), expected)
    assert not caplog.records  # the second time stored ids are used


@pytest.mark.parametrize(("bound", "is_mapped"), [(58, False), (57, True)])
def test_texts_beyond_the_bound_are_mapped(folder, monkeypatch, bound, is_mapped):
    write_files(folder, TEXTS | {"test.txt": "a " * 28 + "b\n"})  # 58 bytes
    write_files(folder, {"train.txt": "a b <unk>\n"})
    monkeypatch.setattr(sources, "LARGE_BYTES", bound)
    assert isinstance(load_corpus(folder).train, np.memmap) == is_mapped


def test_unknown_words_are_counted(folder, caplog):
    load_corpus(folder)
    (record,) = caplog.records
    assert f"3 in {folder / 'test.txt'}" in record.getMessage()  # the zebras


def test_reading_with_the_vocabulary_of_the_text_uses_stored_ids(folder):
    vocabulary = load_corpus(folder).vocabulary
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    load_corpus(folder, vocabulary)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_ids_of_a_given_vocabulary_are_not_taken_for_those_of_the_text(folder):
    path = str(folder / "train.txt")
    memmap.read_ids(path, Vocabulary(("the", EOS, UNK)))
    vocabulary, _ = memmap.read_ids(path)
    assert vocabulary == read_corpus(folder).vocabulary


def test_several_readers_at_the_same_time_do_not_disturb_each_other(folder):
    def read_again_and_again(_):
        lengths = set()
        for _ in range(20):
            for record in folder.glob("*.json"):
                record.unlink(missing_ok=True)
            lengths.add(len(memmap.read_ids(str(folder / "train.txt"))[1]))
        return lengths

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert set.union(*pool.map(read_again_and_again, range(3))) == {15}
    finally:
        sys.setswitchinterval(interval)
    assert not list(folder.glob(".ids-*"))


def test_temporary_folders_of_killed_processes_are_deleted_after_a_day(folder):
    for name, age in (("old", 2 * DAY), ("new", 0)):
        write_files(folder, {f".ids-{name}/new.ids": ""})
        os.utime(folder / f".ids-{name}", times=(time.time() - age,) * 2)
    load_corpus(folder)
    assert [path.name for path in folder.glob(".ids-*")] == [".ids-new"]  # may still be in use


def test_a_text_is_read_once_and_again_after_a_change(folder):
    first = load_corpus(folder).train.copy()
    text = folder / "train.txt"
    status = text.stat()
    text.write_bytes(b"x" * status.st_size)
    os.utime(text, ns=(status.st_atime_ns, status.st_mtime_ns))  # size and time as before, so the change is not seen
    np.testing.assert_array_equal(load_corpus(folder).train, first)
    text.write_text(TEXTS["train.txt"].replace("dogs", "cats"))  # as long as before
    assert "cats" in load_corpus(folder).vocabulary.ids
    status = text.stat()
    text.write_text(TEXTS["train.txt"] * 2)
    os.utime(text, ns=(status.st_atime_ns, status.st_mtime_ns))  # the time as before
    assert len(load_corpus(folder).train) > len(first)


def test_words_and_characters_of_one_vocabulary_are_stored_apart(folder):
    vocabulary = Vocabulary(("a", "b", "ab", EOS))
    path = write_files(folder, {"text.txt": "ab\n"}) / "text.txt"
    for level, ids in (("word", [2, 3]), ("char", [0, 1, 3])):
        assert memmap.read_ids(path, vocabulary, Reading(level))[1].tolist() == ids


@pytest.mark.parametrize("words", [("the", UNK), ()])
def test_a_vocabulary_without_eos_is_an_error(folder, words):
    load_corpus(folder)  # stores ids that must not be used instead
    with raises_one_line(DataError, folder / "valid.txt", EOS):
        memmap.read_ids(folder / "valid.txt", Vocabulary(words))


def test_an_unknown_character_is_an_error_with_its_line(folder):
    path = write_files(folder, {"text.txt": "fa\ncafé\n"}) / "text.txt"
    with raises_one_line(DataError, path, "'é' in line 2"):
        memmap.read_ids(path, Vocabulary(("c", "a", "f", EOS)), Reading("char"))


@pytest.mark.parametrize("ending", ["ids", "words", "word.json"])
@pytest.mark.parametrize("damage", [lambda data: data[:-4], lambda data: data[:8] + b"Z" + data[9:], lambda data: b""])
def test_damaged_files_are_made_again(folder, ending, damage):
    expected = load_corpus(folder)
    expected = expected._replace(train=expected.train.copy())
    path = sorted(folder.glob(f"train.txt.*{ending}"))[-1]
    path.write_bytes(damage(path.read_bytes()))
    corpus = load_corpus(folder)
    np.testing.assert_array_equal(corpus.train, expected.train)
    assert corpus.vocabulary == expected.vocabulary


@pytest.mark.parametrize("record", ["[]", "3", '{"key": []}', '{"key": "x"}', "[" * 100_000, '"\\ud800"'])
def test_records_with_any_json_are_made_again(folder, record):
    expected = load_corpus(folder).train.copy()
    write_files(folder, {"train.txt.word.json": record})
    np.testing.assert_array_equal(load_corpus(folder).train, expected)


@pytest.mark.parametrize(
    ("name", "content", "facts"),
    [
        ("train.txt", "a\0" * 100, ["train.txt: line 1"]),
        ("train.txt", " \n" * 100, ["train.txt"]),
        ("train.txt", "the cat\nthe zebra\n" * 50, ["train.txt", "'zebra' in line 2"]),
    ],
    ids=["binary", "empty", "unknown"],
)
def test_bad_texts(folder, name, content, facts):
    write_files(folder, {name: content})
    with raises_one_line(DataError, *facts):
        load_corpus(folder, Vocabulary((EOS, "the", "cat", "sees", "dogs", "see", "no_body", "sleeps")))


RAW = {"train.txt": "The cat\nthe cat\nthe dogs sleep on\n" * 2 + "N Bob\n", "valid.txt": "the Ox\n", "test.txt": "the cat\n"}
SPACED = {name: "".join(" ".join(line) + "\n" for line in text.replace(" ", "_").split("\n")) for name, text in RAW.items()}


@pytest.mark.parametrize(
    ("level", "options"),
    [
        ("word", {}),
        ("char", {}),
        ("word", {"min_count": 3}),
        ("word", {"vocab_size": 99}),
        ("word", {"vocab_size": 4, "lowercase": True}),
        ("word", {"encoding": "utf-16"}),
        ("char", {"lowercase": True}),
        ("char", {"min_count": 2, "vocab_size": 9}),
    ],
    ids=str,
)
@pytest.mark.parametrize("texts", [RAW, SPACED], ids=["raw", "spaced"])
def test_a_large_text_without_unk_equals_the_corpus_in_memory(folder, texts, level, options):
    write_files(folder, {name: text.encode(options.get("encoding", "utf-8")) for name, text in texts.items()})
    expected = read_corpus(folder, level=level, **options)
    assert UNK in expected.vocabulary.ids
    for _ in range(2):  # the second time stored ids are used
        assert_mapped_and_equal(load_corpus(folder, level=level, **options), expected)


def test_the_training_text_as_valid_and_test_is_warned_of(folder, caplog):
    write_files(folder, dict.fromkeys(TEXTS, TEXTS["train.txt"]))
    assert np.array_equal(load_corpus(folder).train, load_corpus(folder).test)
    assert "test.txt: the same text as" in caplog.text


def test_a_full_disk_is_an_error_and_leaves_nothing(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))  # bytes per file; Python ignores the signal SIGXFSZ
    try:
        with raises_one_line(DataError, folder / "train.txt", "File too large"):
            load_corpus(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in folder.iterdir()) == sorted(TEXTS)


def make_every_text_large():
    sources.LARGE_BYTES = 0


def test_training_on_a_large_text_gives_the_same_result(finished_folder, tmp_path):
    write_files(tmp_path / "data", TINY)
    options = ("--model=test", "--data_path=data", "--save_path=run")
    processes.succeed("train.py", *options, cwd=tmp_path, before=make_every_text_large)
    assert len(list((tmp_path / "data").glob("*.ids"))) == 3
    large, small = (json.loads((path / "run/result.json").read_text()) for path in (tmp_path, finished_folder))
    assert large["test_perplexity"] == small["test_perplexity"]
