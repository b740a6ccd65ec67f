"""Damaged and hostile files: one line that names the file, nothing written, and little memory."""

import bz2
import contextlib
import gzip
import lzma
import tracemalloc

import pytest

from helpers.texts import raises_one_line, tar_members, tgz, write_files, zipped
from ptb.data import archives
from ptb.data.corpus import read_corpus
from ptb.data.files import DataError

TEXT = "".join(f"line {number:02}\n" for number in range(100))  # 800 characters
GZIPPED, ZIP = gzip.compress(TEXT.encode()), zipped({"text8": TEXT})
ENCRYPTED = bytearray(ZIP)
ENCRYPTED[ENCRYPTED.rindex(b"PK\1\2") + 8] |= 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.gz", GZIPPED[:-9]),
        ("a.gz", GZIPPED[:20] + b"\xff" * 9 + GZIPPED[29:]),
        ("a.gz", GZIPPED[:-8] + b"\0" * 8),
        ("a.gz", b"text\n" * 100),
        ("a.gz", b""),
        ("a.bz2", bz2.compress(TEXT.encode())[:-9]),
        ("a.bz2", b"text\n" * 100),
        ("a.xz", lzma.compress(TEXT.encode())[:-9]),
        ("a.xz", b"text\n" * 100),
        ("a.zip", ZIP[:-30]),
        ("a.zip", ZIP[:45] + b"\xff" * 9 + ZIP[54:]),
        ("a.zip", b"text\n" * 100),
        ("a.zip", b""),
        ("a.zip", bytes(ENCRYPTED)),
        ("a.zip", zipped({"../text8": TEXT})),
        ("a.zip", zipped({})),
        ("a.zip", zipped({"train.txt": TEXT, "valid.txt": "b", "test.txt": ""})),
        ("a.zip", zipped({"train.txt": TEXT})),
    ],
)
def test_damaged_files(tmp_path, name, content):
    path = write_files(tmp_path, {name: content}) / name
    with raises_one_line(DataError, path):
        read_corpus(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ["zip", "tgz"])
def test_documents_beyond_the_number_of_members_are_not_left_out(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    for count in (5, 6):
        documents = {f"{n}.txt": f"text {n}\n" * 9 for n in range(count)}
        content = zipped(documents) if ending == "zip" else tgz(*tar_members(documents))
        path = write_files(tmp_path, {f"many.{ending}": content}) / f"many.{ending}"
        with raises_one_line(DataError, path, "5 members") if count == 6 else contextlib.nullcontext():
            read_corpus(path)


@pytest.mark.parametrize("name", ["bomb.gz", "bomb.bz2", "bomb.xz", "bomb.zip"])
def test_a_decompression_bomb_stays_small_in_memory(tmp_path, monkeypatch, name):
    for module in ("files", "sources"):
        monkeypatch.setattr(f"ptb.data.{module}.LARGE_BYTES", 2 << 20)
    text = (b"a" * 4095 + b"\n") * (16 << 8)  # 16 MiB
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}.get(name.rpartition(".")[2])
    path = write_files(tmp_path, {name: pack(text) if pack else zipped({"text8": text})}) / name
    tracemalloc.start()
    try:
        with raises_one_line(DataError, path, "2,097,152"):
            read_corpus(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_many_texts_of_a_zip_together_have_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ZIP_BYTES", 1 << 20)
    path = write_files(tmp_path, {"many.zip": zipped({f"{n}.txt": b"a\n" * (1 << 16) for n in range(9)})}) / "many.zip"
    with raises_one_line(DataError, path, "1,048,576", "unpack"):
        read_corpus(path)


def test_a_member_says_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGE_BYTES", 799)
    path = write_files(tmp_path, {"text8.zip": ZIP}) / "text8.zip"
    with raises_one_line(DataError, path, "text8", "799", "unpack"):
        read_corpus(path)
