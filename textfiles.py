"""The lines of text files: of a folder or an archive that holds train, valid and test, or of one file cut into these.

Nothing here trusts its input: what cannot be used raises `DataError`, and reading an archive has bounds.
"""

import gzip
import io
import os
import posixpath
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from typing import BinaryIO

import numpy as np

SPLITS = ("train", "valid", "test")
FILE_NAMES = tuple(tuple(naming.format(split) for split in SPLITS) for naming in ("ptb.{}.txt", "{}.txt"))
WANTED = "does not hold " + " (or ".join(", ".join(names) for names in FILE_NAMES) + ")"

MAX_LINE_BYTES = 1 << 20
MAX_MEMBER_BYTES = 64 << 20  # ptb.train.txt, the largest text of simple-examples.tgz, has 5 MB
MAX_ARCHIVE_BYTES = 512 << 20  # unpacked; packed, simple-examples.tgz has 34 MB
MAX_MEMBERS = 10_000
LARGE_BYTES = 256 << 20  # the texts of a folder with a larger one are not held in memory: see tokenfiles.py


class DataError(ValueError):
    """Data that cannot be used. The message is one line: which file, what is wrong with it, what to do."""


def is_one_text(path: str | os.PathLike) -> bool:
    """Whether a path is that of one text file, not of a folder or an archive."""
    path = os.path.expanduser(path)
    return not os.path.isdir(path) and not path.endswith((".tgz", ".tar.gz"))


def read_texts(path: str | os.PathLike, fractions: tuple[float, float]) -> dict[str, list[str]]:
    """The lines of train, valid and test, by name; see `reader.read_corpus`."""
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return {file: read_file(file) for file in files_in(path)}
    return _cut(path, fractions) if is_one_text(path) else _archive(path)


def large_files(path: str | os.PathLike) -> list[str]:
    """The files of train, valid and test in a folder, if one of them is too large for memory; else none."""
    path = os.path.expanduser(path)
    files = files_in(path) if os.path.isdir(path) else []
    return files if any(os.path.getsize(file) > LARGE_BYTES for file in files) else []


def files_in(path: str) -> list[str]:
    """The files of train, valid and test in a folder."""
    for folder in (path, os.path.join(path, "data")):
        for names in FILE_NAMES:
            files = [os.path.join(folder, name) for name in names]
            if all(map(os.path.exists, files)):
                return files
    raise DataError(f"{path}: {WANTED} itself or in data/; put them there, or pass the folder that holds them")


def _cut(path: str, fractions: tuple[float, float]) -> dict[str, list[str]]:
    """The lines of train, valid and test, cut from one text in this order, between lines, so that each has its share of it."""
    lines = read_file(path)
    lengths = np.cumsum([len(line) for line in lines])
    first, second = np.searchsorted(lengths, np.rint(np.cumsum(fractions) * lengths[-1]), side="right")
    parts = (lines[:first], lines[first:second], lines[second:])
    if not all(parts):
        raise DataError(f"{path}: has too few lines to be cut into {', '.join(SPLITS)}; give a longer text, or three files")
    return {f"{path} ({split})": part for split, part in zip(SPLITS, parts)}


def _archive(path: str) -> dict[str, list[str]]:
    """The lines of train, valid and test, by member."""
    try:
        with _BoundedGzip(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            texts = _members(archive, path)
            while stream.read(MAX_LINE_BYTES):  # to the end, where the checksum stands
                pass
    except DataError:
        raise
    except (EOFError, OSError, RecursionError, ValueError, tarfile.TarError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: is neither a folder nor a readable simple-examples.tgz ({reason}); pass one") from None
    return {name: _read_text(io.BytesIO(data), name) for name, data in texts.items()}


def _members(archive: tarfile.TarFile, path: str) -> dict[str, bytes]:
    """Train, valid and test, by member: those of the first folder in the archive that holds all three."""
    folders, room = defaultdict(dict), len(SPLITS) * MAX_MEMBER_BYTES
    for member in islice(archive, MAX_MEMBERS):
        folder, name = posixpath.split(member.name)
        if not any(name in splits for splits in FILE_NAMES):
            continue
        if posixpath.isabs(folder) or ".." in folder.split("/"):
            raise DataError(f"{path}: {name} has a path out of the archive; use a copy from a source you trust")
        if not member.isreg() or member.issparse():
            raise DataError(f"{path}: {name} is a link or a special file; pack it as a plain file")
        if member.size > MAX_MEMBER_BYTES:
            raise DataError(f"{path}: {name} has over {MAX_MEMBER_BYTES:,} bytes; unpack it and pass the folder")
        folders[folder][name] = archive.extractfile(member).read()
        room -= len(folders[folder][name])
        if room < 0:
            raise DataError(f"{path}: has too many texts, but no folder with all three so far; unpack it and pass the folder")
        for names in FILE_NAMES:
            if folders[folder].keys() >= set(names):
                return {f"{path}:{name}": folders[folder][name] for name in names}
    raise DataError(f"{path}: {WANTED} in a folder of its own; pass simple-examples.tgz as it was published, or a folder")


class _BoundedGzip(gzip.GzipFile):
    """Refuses what a decompression bomb lives on: a huge read into memory (tarfile reads a header whole, be it a
    gigabyte), and a long way through the archive."""

    def read(self, size=-1):
        if not 0 <= size <= MAX_MEMBER_BYTES:
            raise DataError(f"{self.name}: has a header of over {MAX_MEMBER_BYTES:,} bytes; pass a folder instead")
        data = super().read(size)
        self._check_position(self.tell())
        return data

    def seek(self, offset, whence=io.SEEK_SET):
        self._check_position(offset)
        return super().seek(offset, whence)

    def _check_position(self, position):
        if not 0 <= position <= MAX_ARCHIVE_BYTES:
            raise DataError(f"{self.name}: is damaged or unpacks to over {MAX_ARCHIVE_BYTES:,} bytes; pass a folder instead")


def read_file(path: str) -> list[str]:
    """The lines of a text file."""
    with opened(path) as file:
        return _read_text(file, path)


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[BinaryIO]:
    try:
        file = open(path, "rb")  # noqa: SIM115 -- what goes wrong within the `with` is not to be taken for this
    except (OSError, ValueError) as error:  # ValueError: no path has such characters
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); check the path and its permissions") from None
    with file:
        yield file


def _read_text(stream: BinaryIO, name: str) -> list[str]:
    """The lines of a text that has words."""
    lines = list(iterate_text(stream, name))
    if not any(map(str.split, lines)):
        raise DataError(f"{name}: holds no words; give it a text with one sentence a line")
    return lines


def iterate_text(stream: BinaryIO, name: str | os.PathLike) -> Iterator[str]:
    """The lines of a text, as below, without the byte order mark that some editors put before them."""
    for number, line in enumerate(iterate_lines(stream, name)):
        yield line if number else line.removeprefix("\ufeff")


def iterate_lines(stream: BinaryIO, name: str | os.PathLike) -> Iterator[str]:
    """The lines, each with its newline: "\\n" alone ends one. Raises DataError for what is not UTF-8 text."""
    for number in count(1):
        try:
            line = stream.readline(MAX_LINE_BYTES + 1)
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror}); check the path and the disk") from None
        if not line:
            return
        place = f"{name}: line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{place} has over {MAX_LINE_BYTES:,} bytes; break the text into lines, one a sentence")
        if b"\0" in line:
            raise DataError(f"{place} holds a zero byte, so this is a binary file; give plain text in UTF-8")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{place} is not UTF-8 ({error.reason}); convert the file to UTF-8") from None
