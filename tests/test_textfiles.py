"""textfiles.py against files, folders and archives that are not what they seem."""

import contextlib
import gzip
import os
import tarfile
import tracemalloc

import pytest

import reader
import textfiles
from reader import DataError
from texts import FILES, TEST, TRAIN, VALID, assert_data_error, members_of, tar_member, tgz, write_files


@pytest.mark.parametrize(
    ("files", "fragments"),
    [
        ({"ptb.test.txt": b""}, ["ptb.test.txt: holds no words"]),
        ({"ptb.train.txt": b" \n\n"}, ["ptb.train.txt: holds no words"]),
        ({"ptb.valid.txt": b"the dog\nsat\0\n"}, ["ptb.valid.txt: line 2 holds a zero byte"]),
        ({"ptb.train.txt": bytes(range(256))}, ["ptb.train.txt: line 1 holds a zero byte"]),
        ({"ptb.train.txt": "the dog\n".encode("utf-16")}, ["ptb.train.txt: line 1 holds a zero byte"]),
        ({"ptb.valid.txt": "the dog\ncafé\n".encode("latin-1")}, ["ptb.valid.txt: line 2 is not UTF-8"]),
        ({"ptb.train.txt": b"a " * textfiles.MAX_LINE_BYTES}, ["ptb.train.txt: line 1 has over 1,048,576 bytes"]),
        ({"ptb.test.txt": TRAIN}, ["ptb.test.txt: is the same text as", "ptb.train.txt"]),
        ({"ptb.valid.txt": TRAIN}, ["ptb.valid.txt: is the same text as", "ptb.train.txt"]),
        ({"ptb.valid.txt": TRAIN.replace("\n", "\r\n")}, ["ptb.valid.txt: is the same text as", "ptb.train.txt"]),
        ({"ptb.test.txt": TRAIN.removesuffix("\n")}, ["ptb.test.txt: is the same text as", "ptb.train.txt"]),
    ],
)
def test_bad_text(tmp_path, files, fragments):
    write_files(tmp_path / "folder", FILES | files)
    write_files(tmp_path, {"archive.tgz": tgz(*members_of(FILES | files))})
    for path, separator in ((tmp_path / "folder", "/"), (tmp_path / "archive.tgz", ":")):
        with pytest.raises(DataError) as error:
            reader.read_corpus(path)
        assert_data_error(error, f"{path}{separator}{fragments[0]}", *fragments)


@pytest.mark.parametrize(
    ("files", "path", "fragment"),
    [
        (FILES, "no\0path", "cannot be read (embedded null byte)"),
        (FILES, "absent", "absent: cannot be read (No such file or directory)"),
        (FILES, "absent.tgz", "absent.tgz: is neither a folder nor a readable simple-examples.tgz (No such file or directory)"),
        (FILES, "ptb.train.txt", "ptb.train.txt: has too few lines to be cut into train, valid, test"),
        ({}, "", "does not hold ptb.train.txt"),
        ({"ptb.train.txt": TRAIN, "ptb.valid.txt": VALID}, "", "does not hold ptb.train.txt"),
        ({"ptb.train.txt": TRAIN, "valid.txt": VALID, "test.txt": TEST}, "", "does not hold ptb.train.txt"),
        ({"train.txt": TRAIN, "valid.txt": VALID, "test.txt/file": ""}, "", "test.txt: cannot be read (Is a"),
    ],
)
def test_bad_folders(tmp_path, files, path, fragment):
    with pytest.raises(DataError) as error:
        reader.read_corpus(write_files(tmp_path, files) / path)
    assert_data_error(error, str(tmp_path), fragment)


GOOD = tgz(*members_of(FILES))
BAD_ARCHIVES = {
    "empty": (b"", "is neither a folder nor a readable simple-examples.tgz"),
    "not gzip": (TRAIN.encode(), "is neither a folder nor a readable simple-examples.tgz"),
    "not tar": (gzip.compress(TRAIN.encode() * 100), "is neither a folder nor a readable simple-examples.tgz"),
    "cut off": (GOOD[:-20], "is neither a folder nor a readable simple-examples.tgz"),
    "damaged": (GOOD[:60] + b"\xff" * 20 + GOOD[80:], "Error -3"),
    "wrong checksum": (GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "CRC check failed"),
    "no texts": (tgz(tar_member("simple-examples/README", "x")), "does not hold"),
    "splits in two folders": (tgz(*members_of(FILES)[:2], tar_member("ptb.test.txt", TEST)), "does not hold"),
    "parent": (tgz(*members_of(FILES, folder="../data/")), "ptb.train.txt has a path out of the archive"),
    "absolute": (tgz(*members_of(FILES, folder="/etc/")), "ptb.train.txt has a path out of the archive"),
    "symbolic link": (tgz(tar_member("ptb.train.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd")), "is a link"),
    "hard link": (tgz(tar_member("ptb.train.txt", type=tarfile.LNKTYPE, linkname="README")), "is a link"),
    "sparse file": (tgz(tar_member("ptb.train.txt", type=tarfile.GNUTYPE_SPARSE)), "is a link or a special file"),
    "folder": (tgz(tar_member("ptb.train.txt", type=tarfile.DIRTYPE)), "is a link or a special file"),
    "large text": (tgz(tar_member("ptb.train.txt", size=textfiles.MAX_MEMBER_BYTES + 1)), "has over 67,108,864 bytes"),
    "long way": (tgz(*[tar_member("x", size=textfiles.MAX_ARCHIVE_BYTES)] * 2), "unpacks to over 536,870,912 bytes"),
    "size below zero": (tgz(tar_member("x", size=-(1 << 80)), tar_member("y")), "is damaged or unpacks to over"),
    "size a little below zero": (
        tgz(tar_member("a", "b" * 600), tar_member("train.txt", size=-513), *members_of(FILES)),
        "does not hold ptb.train.txt",
    ),
    "size beyond all": (tgz(tar_member("x", size=1 << 80), tar_member("y")), "unpacks to over 536,870,912 bytes"),
    "sparse as no number": (
        tgz(tar_member("x", "22 GNU.sparse.map=abc\n", type=tarfile.XHDTYPE), tar_member("x")),
        "is neither a folder nor a readable simple-examples.tgz (invalid literal",
    ),
    "nested headers": (tgz(*[tar_member("x", type=tarfile.GNUTYPE_LONGNAME)] * 10_000), "maximum recursion depth"),
}


@pytest.mark.parametrize(("content", "fragment"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archives(tmp_path, monkeypatch, content, fragment):
    path = tmp_path / "simple-examples.tgz"
    path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        reader.read_corpus(path)
    assert_data_error(error, str(path), fragment)
    assert os.listdir(tmp_path) == ["simple-examples.tgz"]


@pytest.mark.parametrize("missing", [0, 1])
def test_an_archive_may_be_as_large_as_the_bound(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(textfiles, "MAX_ARCHIVE_BYTES", len(gzip.decompress(GOOD)) - missing)
    (tmp_path / "bound.tgz").write_bytes(GOOD)
    with pytest.raises(DataError, match="unpacks to over") if missing else contextlib.nullcontext():
        reader.read_corpus(tmp_path / "bound.tgz")


def test_texts_of_many_folders_are_not_all_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(textfiles, "MAX_MEMBER_BYTES", 1 << 20)
    members = [tar_member(f"{number}/train.txt", bytes(1 << 20)) for number in range(3)]
    for count in (2, 3):
        (tmp_path / "many.tgz").write_bytes(tgz(*members[:count], *members_of(FILES)))
        with pytest.raises(DataError, match="has too many texts") if count == 3 else contextlib.nullcontext():
            reader.read_corpus(tmp_path / "many.tgz")


@pytest.mark.parametrize(
    ("members", "fragment"),
    [
        ([tar_member("x", type=tarfile.GNUTYPE_LONGNAME, size=1500 << 20)], "has a header of over 67,108,864 bytes"),
        ([tar_member("ptb.train.txt", size=1500 << 20)], "ptb.train.txt has over 67,108,864 bytes"),
        (members_of(FILES), "unpacks to over 536,870,912 bytes"),
    ],
    ids=["header", "text", "after the texts"],
)
def test_a_decompression_bomb_stays_small_in_memory(tmp_path, members, fragment):
    path = tmp_path / "bomb.tgz"
    path.write_bytes(gzip.compress(b"".join(members)) + gzip.compress(bytes(1 << 20)) * 1500)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as error:
            reader.read_corpus(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert_data_error(error, str(path), fragment)
    assert peak < 16 << 20
