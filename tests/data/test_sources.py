"""Texts of every kind that people bring, against corpora worked by hand: names, archives, documents, encodings, long lines."""

import bz2
import gzip
import lzma
import pathlib
import tracemalloc

import numpy as np
import pytest
from backports import zstd

from helpers.texts import raises_one_line, tar_members, tgz, write_files, zipped
from ptb.data import files
from ptb.data.corpus import build_corpus, is_one_text, load_corpus, read_corpus, read_tokens
from ptb.data.files import SPLITS, DataError
from ptb.data.tokens import EOS, UNK, split_line
from ptb.data.vocabulary import Vocabulary

RAW = {"train.txt": "the cat sat\nthe cat ran\na dog\n", "valid.txt": "the bird sat\n", "test.txt": "the cat\n"}
RAW_WORDS = (UNK, EOS, "cat", "the")  # <unk> stands for sat, ran, a and dog, which train has once
RAW_IDS = ([3, 2, 0, 1, 3, 2, 0, 1, 0, 0, 1], [3, 0, 0, 1], [3, 2, 1])
TEXT = "".join(f"line {number:02}\n" for number in range(100))  # 800 characters


def texts_of(corpus):
    """Return the tokens of the three splits."""
    return [[corpus.vocabulary.words[number] for number in ids] for ids in corpus[1:]]


# Raw text, without <unk>


def test_a_raw_folder_by_hand(tmp_path, caplog):
    corpus = read_corpus(write_files(tmp_path, RAW))
    assert corpus.vocabulary.words == RAW_WORDS
    assert [ids.tolist() for ids in corpus[1:]] == [*RAW_IDS]
    (record,) = caplog.records
    for fact in (": 6 (", "4 in ", "train.txt", "2 in ", "valid.txt"):
        assert fact in record.getMessage()


def test_a_raw_folder_without_new_words_keeps_all_words(tmp_path, caplog):
    corpus = read_corpus(write_files(tmp_path, RAW | {"valid.txt": "the dog sat\n"}))
    assert corpus.vocabulary.words == (EOS, "cat", "the", "a", "dog", "ran", "sat")
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_count": 1}, (EOS, "cat", "the", "a", "dog", "ran", "sat", UNK)),
        ({"min_count": 3}, (UNK, EOS)),
        ({"vocab_size": 3}, (UNK, EOS, "cat")),
        ({"vocab_size": 7, "min_count": 1}, (EOS, "cat", "the", UNK, "a", "dog", "ran")),
    ],
)
def test_limits_of_a_vocabulary(tmp_path, options, words):
    assert read_corpus(write_files(tmp_path, RAW), **options).vocabulary.words == words


def test_new_characters_of_valid_and_test_become_unk(tmp_path, caplog):
    corpus = read_corpus(
        write_files(tmp_path, {"train.txt": "ab\nab\nc\n", "valid.txt": "ad\n", "test.txt": "é\n"}), level="char"
    )
    assert corpus.vocabulary.words == (EOS, "a", "b", "c", UNK)
    assert (corpus.valid.tolist(), corpus.test.tolist()) == ([1, 4, 0], [4, 0])
    assert "characters" in caplog.text and ": 2 (1 in " in caplog.text


def test_lower_case(tmp_path):
    files = {"train.txt": "The Cat\nthe cat\n", "valid.txt": "THE\n", "test.txt": "Cat\n"}
    for level, words in (("word", ("<eos>", "cat", "the")), ("char", ("t", EOS, "_", "a", "c", "e", "h"))):
        assert read_corpus(write_files(tmp_path, files), level=level, lowercase=True).vocabulary.words == words
    given = Vocabulary((EOS, UNK, "the", "Cat"))
    assert read_corpus(tmp_path, given, lowercase=True).train.tolist() == [2, 3, 0, 2, 1, 0]


# Character PTB


def spaced(text):
    return "".join(" ".join(split_line(line, "char")) + "\n" for line in text.splitlines())


@pytest.mark.parametrize("names", ["{}.txt", "ptb.char.{}.txt"])
def test_characters_separated_by_spaces_are_the_characters_of_the_plain_text(tmp_path, caplog, names):
    texts = {split: f"the {split} set has a cat\nand a dog\n" for split in SPLITS}
    plain = build_corpus(*(texts[split].splitlines() for split in SPLITS), level="char")
    folder = write_files(tmp_path, {names.format(split): spaced(text) for split, text in texts.items()})
    corpus = read_corpus(folder, level="char")
    assert texts_of(corpus) == texts_of(plain)
    assert caplog.text.count("separated by spaces") == 1
    caplog.clear()
    assert read_corpus(folder, level="symbol").fingerprint() == corpus.fingerprint()
    assert "separated by spaces" not in caplog.text


def test_all_three_texts_are_read_as_train_is(tmp_path):
    """A text like `a b a b` has the spaces that train, a plain text, has too."""
    folder = write_files(tmp_path, {"train.txt": "a b\n", "valid.txt": "a b " * 20 + "\n", "test.txt": "a\n"})
    assert texts_of(read_corpus(folder, level="char"))[1] == [*"a_b_" * 20, EOS]


def test_character_ptb_has_the_corpus_of_ptb_as_characters(ptb_path, tmp_path):
    lines = {split: pathlib.Path(ptb_path, f"ptb.{split}.txt").read_text().splitlines()[:300] for split in SPLITS}
    write_files(tmp_path, {f"ptb.char.{split}.txt": spaced("\n".join(lines[split])) for split in SPLITS})
    expected = build_corpus(*lines.values(), level="char")
    assert read_corpus(tmp_path, level="char").fingerprint() == expected.fingerprint()


# Long lines


@pytest.mark.parametrize("bound", [1 << 20, 7])
@pytest.mark.parametrize(
    ("level", "text", "sizes"),
    [
        ("word", "one two " * 50, (80, 10, 11)),
        ("char", "abcdefghij" * 10, (80, 10, 11)),
        ("char", "ab\n" + "c" * 97, (80, 10, 11)),
    ],
)
def test_a_text_of_few_lines_is_cut_between_tokens(tmp_path, monkeypatch, level, text, sizes, bound):
    for module in ("files", "sources", "tokens"):
        monkeypatch.setattr(f"ptb.data.{module}.MAX_LINE", bound)
    path = write_files(tmp_path, {"text": text}) / "text"
    corpus = read_corpus(path, level=level, fractions=(0.8, 0.1))
    assert tuple(map(len, corpus[1:])) == sizes
    tokens = [token for part in texts_of(corpus) for token in part]
    assert tokens == [token for line in text.split("\n") for token in (*split_line(line, level), EOS)]


def test_a_byte_order_mark_does_not_end_a_long_first_line(tmp_path, monkeypatch):
    for module in ("files", "sources", "tokens"):
        monkeypatch.setattr(f"ptb.data.{module}.MAX_LINE", 7)
    path = write_files(tmp_path, {"text": "\ufeff" + "the cat " * 9}) / "text"
    assert read_tokens(path, Vocabulary((EOS, "the", "cat"))).tolist() == [1, 2] * 9 + [0]


@pytest.mark.parametrize("level", ["word", "char"])
def test_an_endless_line_does_not_fill_the_memory(tmp_path, monkeypatch, level):
    for module in ("files", "sources", "tokens"):
        monkeypatch.setattr(f"ptb.data.{module}.MAX_LINE", 1 << 15)
    monkeypatch.setattr(files, "BLOCK", 1 << 15)
    path = write_files(tmp_path, {"text8": b"anarchism originated as a " * 40_000}) / "text8"
    tracemalloc.start()
    try:
        ids = read_tokens(path, Vocabulary((EOS, UNK, *"abcdefghijklmnopqrstuvwxyz_")), level)
        peak = tracemalloc.get_traced_memory()[1] - ids.nbytes
    finally:
        tracemalloc.stop()
    assert len(ids) == {"word": 4, "char": 26}[level] * 40_000 + 1
    assert peak < 2.5 * ids.nbytes + (4 << 20)


def test_a_text_too_short_to_cut(tmp_path):
    path = write_files(tmp_path, {"text": "one two"}) / "text"
    assert [len(ids) for ids in read_corpus(path, fractions=(0.5, 0.25))[1:]] == [1, 1, 1]
    path.write_text("one")
    with raises_one_line(DataError, path, "train, valid, test"):
        read_corpus(path)


# Names and places


@pytest.mark.parametrize(
    "pattern",
    ["wiki.{}.tokens", "wiki.{}.raw", "en-{}.txt", "{}", "data/{}.txt", "{}.txt.gz", "corpus.{}.txt.bz2", "{}.tokens.xz"],
)
def test_splits_are_found_by_their_names(tmp_path, pattern):
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.get(pattern.rpartition(".")[2], lambda data: data)
    contents = {pattern.format(split): pack(RAW[f"{split}.txt"].encode()) for split in SPLITS}
    folder = write_files(tmp_path / "folder", contents | {"README.txt": "of nobody", "train.txt.word.json": "{}"})
    assert [ids.tolist() for ids in read_corpus(folder)[1:]] == [*RAW_IDS]
    listed = ",".join(str(folder / pattern.format(split)) for split in ("test", "train", "valid"))
    assert [ids.tolist() for ids in read_corpus(listed)[1:]] == [*RAW_IDS]
    assert not is_one_text(folder)


def test_other_words_for_valid(tmp_path):
    for word in ("validation", "val", "dev", "VALID"):
        folder = write_files(tmp_path / word, {"Train.txt": RAW["train.txt"], f"{word}.txt": "the cat\n", "test.txt": "the\n"})
        if word == "VALID":
            folder.joinpath("Train.txt").rename(folder / "TRAIN.txt")
        assert read_corpus(folder).valid.tolist() == [2, 1, 0]


def test_names_in_capitals(tmp_path):
    texts = {name.upper(): text for name, text in RAW.items()}
    packed = {f"{name}.GZ": gzip.compress(text.encode()) for name, text in texts.items()}
    for folder in (write_files(tmp_path / "plain", texts), write_files(tmp_path / "packed", packed)):
        assert [ids.tolist() for ids in read_corpus(folder)[1:]] == [*RAW_IDS]


def test_what_is_in_a_folder_beside_the_three_texts(tmp_path):
    """A text with another word for valid, files that macOS hides, and folders with the name of a split."""
    beside = {"dev.txt": "no\n", "val.txt": "no\n", "._train.txt": b"\0", "._valid.txt": b"\0", "._test.txt": b"\0"}
    folder = write_files(tmp_path / "three", RAW | beside | {"train/x": "", "valid/x": "", "test/x": ""})
    assert [ids.tolist() for ids in read_corpus(folder)[1:]] == [*RAW_IDS]
    for pattern in ("wiki.{}.tokens", "{}"):
        folder = write_files(tmp_path / pattern, {pattern.format(split): RAW[f"{split}.txt"] for split in SPLITS})
        write_files(folder, {f"._{pattern.format(split)}": b"\0" for split in SPLITS})
        assert [ids.tolist() for ids in read_corpus(folder)[1:]] == [*RAW_IDS]
    folder = write_files(tmp_path / "documents", {"a.txt": TEXT, "dev/x": "", "test/x": ""})
    assert is_one_text(folder)


def test_the_plain_file_comes_before_its_compressed_copy(tmp_path):
    folder = write_files(tmp_path, RAW | {"valid.txt.gz": gzip.compress(b"the cat\n")})
    assert [ids.tolist() for ids in read_corpus(folder)[1:]] == [*RAW_IDS]


ZIPPED = {f"wikitext-2/wiki.{split}.tokens": RAW[f"{split}.txt"] for split in SPLITS}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("wikitext-2-v1.zip", zipped({"wikitext-2/": "", "__MACOSX/._wiki": "x"} | ZIPPED)),
        ("texts.ZIP", zipped(RAW | {"a/train.txt": "another"})),
        ("texts.tgz", tgz(*tar_members({f"wiki.{split}.raw": RAW[f"{split}.txt"] for split in SPLITS}))),
    ],
)
def test_archives_hold_splits_of_any_name(tmp_path, name, content):
    path = write_files(tmp_path, {name: content}) / name
    assert [ids.tolist() for ids in read_corpus(path)[1:]] == [*RAW_IDS]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.txt", TEXT.encode()),
        ("text", TEXT.encode()),
        ("text.gz", gzip.compress(TEXT.encode())),
        ("text.txt.bz2", bz2.compress(TEXT.encode())),
        ("text.xz", lzma.compress(TEXT.encode())),
        ("text8.zip", zipped({"text8": TEXT})),
        ("text8.tar.gz", tgz(*tar_members({"text8": TEXT}))),
    ],
)
def test_one_text_in_any_wrapping(tmp_path, name, content):
    path = write_files(tmp_path, {name: content}) / name
    corpus = read_corpus(path, level="char", fractions=(0.8, 0.15))
    assert tuple(map(len, corpus[1:])) == (640, 120, 40)
    assert texts_of(corpus)[1][:8] == [*"line_80", EOS]
    assert is_one_text(path)
    assert len(read_tokens(path, corpus.vocabulary, "char")) == 800


def test_zst_is_read_or_says_what_to_install(tmp_path, monkeypatch):
    path = write_files(tmp_path, {"text.txt.zst": b"(\xb5/\xfd$\x03\x19\x00\x00a\nb\x1f\x85\x1c\x95"}) / "text.txt.zst"
    monkeypatch.setattr(files, "zstd", None)
    with raises_one_line(DataError, path, "pip install backports.zstd"):
        read_corpus(path)


def test_zst(tmp_path):
    content = zstd.compress(TEXT.encode())
    path = write_files(tmp_path, {"text.zst": content}) / "text.zst"
    assert len(read_corpus(path, level="char").train) == 720
    for damaged in (content[:-9], content[:20] + b"\xff" * 9 + content[29:], b"text"):
        path.write_bytes(damaged)
        with raises_one_line(DataError, path):
            read_corpus(path, level="char")


DOCUMENTS = {"b.txt": "the dog\nran", "a.txt": "the cat\n", "c.txt": "\ufeffa dog\n", ".hidden.txt": "no", "notes.md": "no"}
JOINED = ["the", "cat", EOS, "the", "dog", EOS, "ran", EOS, "a", "dog", EOS]


@pytest.mark.parametrize("form", ["folder", "zip", "pattern", "list"])
def test_documents_are_one_text_in_order(tmp_path, caplog, form):
    folder = write_files(tmp_path / "books", DOCUMENTS)
    path = {
        "folder": folder,
        "zip": write_files(tmp_path, {"books.zip": zipped(DOCUMENTS)}) / "books.zip",
        "pattern": folder / "?.txt",
        "list": ",".join(str(folder / name) for name in ("a.txt", "b.txt", "c.txt")),
    }[form]
    vocabulary = Vocabulary(tuple(dict.fromkeys(JOINED)))
    assert [vocabulary.words[number] for number in read_tokens(path, vocabulary)] == JOINED
    assert "3 documents" in caplog.text
    corpus = read_corpus(path, fractions=(0.5, 0.25))
    assert list(map(len, corpus[1:])) == [3, 5, 3]  # lines that end up to character 13 of 26, up to 20, the rest


def test_a_document_may_have_a_name_like_a_split(tmp_path):
    folder = write_files(tmp_path, {"the-last-train.txt": "a train\n" * 9, "test-drive.txt": "a car\n" * 9})
    assert len(read_tokens(folder, Vocabulary(("a", "car", "train", EOS)))) == 54


def test_a_name_with_a_comma_or_a_star_is_a_file_if_there_is_one(tmp_path):
    for name in ("a,b.txt", "*.txt"):
        folder = write_files(tmp_path / "x", {"a": "no\n", name: TEXT})
        assert len(read_corpus(folder / name, level="char").train) == 720


@pytest.mark.parametrize(
    ("present", "path", "facts"),
    [
        ({"train.txt": "a", "test.txt": "b"}, "", ["only test.txt, train.txt", "add valid.txt"]),
        ({"train.txt": "a"}, "", ["add valid.txt and test.txt"]),
        ({"README.txt": "a", "data/train.txt": "a", "data/test.txt": "b"}, "", ["add valid.txt"]),
        ({"notes.md": "a"}, "", ["ptb.train.txt"]),
        ({f"{folder}/{split}.txt": "a" for folder in "xy" for split in SPLITS}, "?/*.txt", ["more than one train.txt"]),
        (
            {f"{split}.txt": "a" for split in SPLITS} | {"x/test.txt": "a"},
            "{0}/train.txt,{0}/valid.txt,{0}/test.txt,{0}/x/test.txt",
            ["more than one test.txt"],
        ),
        (
            {f"{name}.{split}.txt": "a" for name in "xy" for split in SPLITS},
            "",
            ["x.train.txt,x.valid.txt,x.test.txt", "y.train"],
        ),
        ({}, "*.txt", ["*.txt"]),
        ({"a.txt": "a b c\n"}, "{0}/a.txt,{0}/absent.txt", ["absent.txt: ", "No such file"]),
        ({"a.txt": " \n", "b.txt": "\n"}, "", ["a.txt and 1 more", "no words"]),
    ],
)
def test_bad_folders(tmp_path, present, path, facts):
    folder = write_files(tmp_path, present)
    with raises_one_line(DataError, *facts):
        read_corpus(path.format(folder) if "{" in path else folder / path)


def test_one_of_three_files_is_missing(tmp_path):
    folder = write_files(tmp_path, {"train.txt": "a\n", "test.txt": "a\n"})
    with raises_one_line(DataError, f"{folder}/valid.txt: ", "No such file"):
        load_corpus(",".join(f"{folder}/{split}.txt" for split in SPLITS))


def test_three_texts_are_not_read_as_one(tmp_path):
    with raises_one_line(DataError, tmp_path, "train, valid and test"):
        read_tokens(write_files(tmp_path, RAW), Vocabulary((EOS, UNK)))


# Encodings


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "latin-1", "cp1252", "shift_jis"]
)
@pytest.mark.parametrize("block", [3, 1 << 20])
def test_encodings(tmp_path, monkeypatch, encoding, block):
    monkeypatch.setattr(files, "BLOCK", block)
    text = "日本 語\n本\n" if encoding == "shift_jis" else "naïve café\nnaïve\n"
    path = write_files(tmp_path, {"text.txt": text.encode(encoding)}) / "text.txt"
    vocabulary = Vocabulary((EOS, *dict.fromkeys(text.split())))
    assert [vocabulary.words[number] for number in read_tokens(path, vocabulary, encoding=encoding)] == [
        token for line in text.splitlines() for token in (*line.split(), EOS)
    ]


@pytest.mark.parametrize(
    ("content", "encoding", "facts"),
    [
        ("the cat\n".encode("utf-16"), "utf-8", ["line 1", "--encoding=utf-16"]),
        ("the cat\nsat\n".encode("utf-16-le"), "utf-8", ["line 1", "--encoding=utf-16-le"]),
        ("the cat\nsat\n".encode("utf-16-be"), "utf-8", ["line 1", "--encoding=utf-16-be"]),
        ("the cat\ncafé\n".encode("latin-1"), "utf-8", ["line 2", "--encoding="]),
        (b"the cat\ncaf\xc3", "utf-8", ["line 2"]),
        ("the\ncafé\n".encode(), "ascii", ["line 2", "--encoding=utf-8"]),
        ("the\n".encode("utf-16")[:-1], "utf-16", ["line 1"]),
        (b"the cat", "nonsense", ["'nonsense'"]),
        (b"the cat", "hex", ["'hex'"]),
        (b"\xff\xfe", "utf-16", ["no words"]),
    ],
)
def test_bad_encodings(tmp_path, content, encoding, facts):
    path = write_files(tmp_path, {"text.txt": content}) / "text.txt"
    with raises_one_line(DataError, *facts):
        read_corpus(path, encoding=encoding)


# The same text for all


def test_the_same_text_as_train_valid_and_test_is_warned_of(tmp_path, caplog):
    folder = write_files(tmp_path, dict.fromkeys(RAW, RAW["train.txt"]))
    corpus = read_corpus(folder)
    np.testing.assert_array_equal(corpus.train, corpus.valid)
    np.testing.assert_array_equal(corpus.train, corpus.test)
    (record,) = caplog.records
    for fact in (folder / "valid.txt", folder / "test.txt", f"the same text as {folder / 'train.txt'}"):
        assert str(fact) in record.getMessage()
