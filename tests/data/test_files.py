"""Text files, folders and archives that cannot be used, and the bounds on untrusted archives."""

import contextlib
import gzip
import io
import os
import tarfile
import tracemalloc

import pytest

from helpers.texts import FILES, TEST, TRAIN, VALID, raises_one_line, tar_member, tar_members, tgz, write_files
from ptb.data import archives, files
from ptb.data.corpus import is_one_text, read_corpus, read_tokens
from ptb.data.files import DataError
from ptb.data.tokens import EOS
from ptb.data.vocabulary import Vocabulary


@pytest.mark.parametrize(("name", "expected"), [("folder.txt", False), ("text.txt", True), ("absent", True), ("a.tgz", False)])
def test_one_text_is_not_three(tmp_path, monkeypatch, name, expected):
    write_files(tmp_path, {"text.txt": "", "a.tgz": GOOD} | {f"folder.txt/{name}": "" for name in FILES})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert is_one_text(tmp_path / name) is is_one_text(f"~/{name}") is expected


@pytest.mark.parametrize(
    ("changed", "facts"),
    [
        ({"ptb.test.txt": b""}, ["ptb.test.txt"]),
        ({"ptb.train.txt": b" \n\n"}, ["ptb.train.txt"]),
        ({"ptb.train.txt": "\ufeff"}, ["ptb.train.txt"]),
        ({"ptb.valid.txt": b"the dog\nsat\0\n"}, ["ptb.valid.txt: line 2"]),
        ({"ptb.train.txt": bytes(range(256))}, ["ptb.train.txt: line 1"]),
        ({"ptb.train.txt": "the dog\n".encode("utf-16")}, ["ptb.train.txt: line 1"]),
        ({"ptb.valid.txt": "the dog\ncafé\n".encode("latin-1")}, ["ptb.valid.txt: line 2"]),
    ],
)
def test_bad_texts(tmp_path, changed, facts):
    folder = write_files(tmp_path / "folder", FILES | changed)
    archive = write_files(tmp_path, {"archive.tgz": tgz(*tar_members(FILES | changed))}) / "archive.tgz"
    for path, separator in ((folder, "/"), (archive, ":")):
        with raises_one_line(DataError, *[f"{path}{separator}{fact}" for fact in facts]):
            read_corpus(path)


def test_a_line_may_be_as_long_as_the_bound():
    for length in (files.MAX_LINE, files.MAX_LINE + 1):
        text = io.BytesIO(b"b\n" + b"a" * (length - 1) + b"\n")
        too_long = length > files.MAX_LINE
        with raises_one_line(DataError, "text: line 2", "1,048,576") if too_long else contextlib.nullcontext():
            assert len(list(files.iterate_lines(text, "text"))) == 2


@pytest.mark.parametrize(
    ("present", "path", "fact"),
    [
        (FILES, "no\0path", "null byte"),
        (FILES, "absent", "No such file or directory"),
        (FILES, "absent.tgz", "No such file or directory"),
        ({}, "", "ptb.train.txt"),
        ({"ptb.train.txt": TRAIN, "ptb.valid.txt": VALID}, "", "ptb.train.txt"),
        ({"ptb.train.txt": TRAIN, "valid.txt": VALID, "test.txt": TEST}, "", "ptb.train.txt"),
        ({"train.txt": TRAIN, "valid.txt": VALID, "test.txt/file": ""}, "", "add test.txt"),
    ],
)
def test_bad_paths(tmp_path, present, path, fact):
    path = write_files(tmp_path, present) / path
    with raises_one_line(DataError, path, fact):
        read_corpus(path)


def test_a_file_that_cannot_be_read_to_its_end(tmp_path):
    class BadDisk:
        def read1(self, size):
            raise OSError(5, "Input/output error")

    with raises_one_line(DataError, "text.txt", "Input/output error"):
        list(files.iterate_lines(BadDisk(), "text.txt"))


# Archives

GOOD = tgz(*tar_members(FILES))
STORED = gzip.compress(b"".join(tar_members(FILES | {"ptb.train.txt": "a " * 200_000})), 0)  # in blocks of 65,535 bytes
BLAMES_MEMBER = ": ptb.train.txt "  # not the message that lists the missing files
BEYOND_MEMBER, BEYOND_ARCHIVE = "67,108,864", "536,870,912"
BAD_ARCHIVES = {
    "empty": (b"", ""),
    "not gzip": (TRAIN.encode(), ""),
    "not tar": (gzip.compress(TRAIN.encode() * 100), ""),
    "truncated": (GOOD[:-20], ""),
    "damaged": (GOOD[:60] + b"\xff" * 20 + GOOD[80:], ""),
    "damaged in a text": (STORED[:200_000] + b"\xff" * 70_000 + STORED[270_000:], "Error -3"),
    "wrong checksum": (GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "CRC"),
    "no texts": (tgz(tar_member("simple-examples/README", "x"), tar_member("Makefile", "x")), "ptb.train.txt"),
    "splits in two folders": (tgz(*tar_members(FILES)[:2], tar_member("ptb.test.txt", TEST)), "ptb.train.txt"),
    "parent": (tgz(*tar_members(FILES, folder="../data/")), BLAMES_MEMBER),
    "absolute": (tgz(*tar_members(FILES, folder="/etc/")), BLAMES_MEMBER),
    "symbolic link": (tgz(tar_member("ptb.train.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd")), BLAMES_MEMBER),
    "hard link": (tgz(tar_member("ptb.train.txt", type=tarfile.LNKTYPE, linkname="README")), BLAMES_MEMBER),
    "sparse file": (tgz(tar_member("ptb.train.txt", type=tarfile.GNUTYPE_SPARSE)), BLAMES_MEMBER),
    "folder": (tgz(tar_member("ptb.train.txt", type=tarfile.DIRTYPE)), "ptb.train.txt"),
    "large text": (
        tgz(tar_member("ptb.train.txt", size=archives.MAX_MEMBER_BYTES + 1)),
        BLAMES_MEMBER,
    ),
    "long way": (tgz(*[tar_member("x", size=archives.MAX_ARCHIVE_BYTES)] * 2), BEYOND_ARCHIVE),
    "size below zero": (tgz(tar_member("x", size=-(1 << 80)), tar_member("y")), BEYOND_ARCHIVE),
    "size slightly below zero": (
        tgz(tar_member("a", "b" * 600), tar_member("train.txt", size=-513), *tar_members(FILES)),
        "10,000 members",
    ),
    "size beyond all bounds": (tgz(tar_member("x", size=1 << 80), tar_member("y")), BEYOND_ARCHIVE),
    "sparse map that is not a number": (
        tgz(tar_member("x", "22 GNU.sparse.map=abc\n", type=tarfile.XHDTYPE), tar_member("x")),
        "",
    ),
    "nested headers": (tgz(*[tar_member("x", type=tarfile.GNUTYPE_LONGNAME)] * 10_000), "recursion"),
}


@pytest.mark.parametrize(("content", "fact"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archives(tmp_path, monkeypatch, content, fact):
    path = tmp_path / "simple-examples.tgz"
    path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with raises_one_line(DataError, path, fact):
        read_corpus(path)
    assert os.listdir(tmp_path) == ["simple-examples.tgz"]


@pytest.mark.parametrize("missing", [0, 1])
def test_an_archive_may_be_as_large_as_the_bound(tmp_path, monkeypatch, missing):
    bound = len(gzip.decompress(GOOD)) - missing
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", bound)
    path = write_files(tmp_path, {"bound.tgz": GOOD}) / "bound.tgz"
    with raises_one_line(DataError, path, f"{bound:,}") if missing else contextlib.nullcontext():
        read_corpus(path)


def test_texts_of_many_folders_are_not_all_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 1 << 20)
    path = tmp_path / "many.tgz"
    members = [tar_member(f"{number}/train.txt", bytes(1 << 20)) for number in range(3)]
    for num_large in (2, 3):
        path.write_bytes(tgz(*members[:num_large], *tar_members(FILES)))
        with raises_one_line(DataError, path) if num_large == 3 else contextlib.nullcontext():
            read_corpus(path)


def test_a_folder_in_an_archive_may_have_the_name_of_a_split(tmp_path):
    path = tmp_path / "books.tgz"
    path.write_bytes(tgz(tar_member("books/train", type=tarfile.DIRTYPE), tar_member("books/train/a.txt", "the cat\n" * 9)))
    assert len(read_tokens(path, Vocabulary((EOS, "the", "cat")))) == 27


def test_an_archive_is_searched_up_to_a_number_of_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    path = tmp_path / "many.tgz"
    for num_others in (2, 3):
        path.write_bytes(tgz(*[tar_member("x")] * num_others, *tar_members(FILES)))
        with raises_one_line(DataError, path, "5 members") if num_others == 3 else contextlib.nullcontext():
            read_corpus(path)


@pytest.mark.parametrize(
    ("members", "fact"),
    [
        ([tar_member("x", type=tarfile.GNUTYPE_LONGNAME, size=1500 << 20)], BEYOND_MEMBER),
        ([tar_member("ptb.train.txt", size=1500 << 20)], BEYOND_MEMBER),
        (tar_members(FILES), BEYOND_ARCHIVE),
    ],
    ids=["header", "text", "after the texts"],
)
def test_a_decompression_bomb_stays_small_in_memory(tmp_path, members, fact):
    path = tmp_path / "bomb.tgz"
    path.write_bytes(gzip.compress(b"".join(members)) + gzip.compress(bytes(1 << 20)) * 1500)
    tracemalloc.start()
    try:
        with raises_one_line(DataError, path, fact):
            read_corpus(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
