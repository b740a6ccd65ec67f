"""Lines of text files: three files in a folder or an archive, or one file that is split into three.

The input is not trusted. Anything unusable raises `DataError`, and an archive has bounds on memory and unpacked size.
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
FILE_NAMES = tuple(tuple(pattern.format(split) for split in SPLITS) for pattern in ("ptb.{}.txt", "{}.txt"))
_LACKS_SPLITS = "does not hold " + " (or ".join(", ".join(names) for names in FILE_NAMES) + ")"

MAX_LINE_BYTES = 1 << 20
MAX_MEMBER_BYTES = 64 << 20  # ptb.train.txt, the largest text of simple-examples.tgz, has 5 MB
MAX_ARCHIVE_BYTES = 512 << 20  # unpacked; simple-examples.tgz has 34 MB packed
MAX_MEMBERS = 10_000
LARGE_BYTES = 256 << 20  # if a file of a folder is larger, ids are memory-mapped: see memmap.py


class DataError(ValueError):
    """Data that cannot be used. The message is one line: the file, what is wrong, what to do."""


def is_single_file(path: str | os.PathLike) -> bool:
    """Return whether `path` means one text file, not a folder or an archive. The file need not exist."""
    path = os.path.expanduser(path)
    return not os.path.isdir(path) and not path.endswith((".tgz", ".tar.gz"))


def load_splits(path: str | os.PathLike, fractions: tuple[float, float]) -> dict[str, list[str]]:
    """Read the lines of train, valid and test, in this order, keyed by a name for messages.

    `fractions` are the shares of train and valid if `path` is a single text file; see `corpus.read_corpus`.

    Raises DataError if a split is missing, damaged, not text, or has no words.
    """
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return {file: read_lines(file) for file in _split_files(path)}
    return _split_file(path, fractions) if is_single_file(path) else _read_archive(path)


def large_files(path: str | os.PathLike) -> list[str]:
    """Return the files of train, valid and test if `path` is a folder and one of them exceeds `LARGE_BYTES`, else []."""
    path = os.path.expanduser(path)
    files = _split_files(path) if os.path.isdir(path) else []
    return files if any(os.path.getsize(file) > LARGE_BYTES for file in files) else []


def read_lines(path: str) -> list[str]:
    """Read the lines of a text file. Raises DataError if it cannot be read, is not text, or has no words."""
    with open_text(path) as file:
        return list(iterate_nonempty_text(file, path))


@contextmanager
def open_text(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file for `iterate_text`. Raises DataError if it cannot be opened."""
    try:
        file = open(path, "rb")  # noqa: SIM115 -- an error inside the caller's `with` must not be caught here
    except (OSError, ValueError) as error:  # ValueError: the path contains a null byte
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); check the path and its permissions") from None
    with file:
        yield file


def iterate_nonempty_text(stream: BinaryIO, name: str | os.PathLike) -> Iterator[str]:
    """Yield lines as `iterate_text`. Raises DataError after the last line if no line has a word."""
    has_words = False
    for line in iterate_text(stream, name):
        has_words = has_words or bool(line.strip())
        yield line
    if not has_words:
        raise DataError(f"{name}: has no words; give a text with one sentence per line")


def iterate_text(stream: BinaryIO, name: str | os.PathLike) -> Iterator[str]:
    """Yield lines as `iterate_lines`, without the byte order mark that some editors put at the start of a file."""
    for number, line in enumerate(iterate_lines(stream, name)):
        yield line if number else line.removeprefix("\ufeff")


def iterate_lines(stream: BinaryIO, name: str | os.PathLike) -> Iterator[str]:
    """Yield the lines of a binary stream, each with its newline. Only "\\n" ends a line.

    Raises DataError, with `name` and the number of the line, if the text is not UTF-8, contains a zero byte, has a line
    longer than `MAX_LINE_BYTES`, or cannot be read.
    """
    for number in count(1):
        try:
            line = stream.readline(MAX_LINE_BYTES + 1)
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror}); check the path and the disk") from None
        if not line:
            return
        place = f"{name}: line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{place} has over {MAX_LINE_BYTES:,} bytes; write one sentence per line")
        if b"\0" in line:
            raise DataError(f"{place} contains a zero byte, so the file is binary; give plain text in UTF-8")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{place} is not UTF-8 ({error.reason}); convert the file to UTF-8") from None


def _split_files(folder: str) -> list[str]:
    """Return the paths of train, valid and test in a folder or in its subfolder `data`."""
    for parent in (folder, os.path.join(folder, "data")):
        for names in FILE_NAMES:
            files = [os.path.join(parent, name) for name in names]
            if all(map(os.path.exists, files)):
                return files
    raise DataError(f"{folder}: {_LACKS_SPLITS}, nor does its data/; put them there, or pass the folder that holds them")


def _split_file(path: str, fractions: tuple[float, float]) -> dict[str, list[str]]:
    """Split one text between lines into train, valid and test, so that each has its fraction of the characters."""
    lines = read_lines(path)
    ends = np.cumsum([len(line) for line in lines])
    first, second = np.searchsorted(ends, np.rint(np.cumsum(fractions) * ends[-1]), side="right")
    parts = (lines[:first], lines[first:second], lines[second:])
    if not all(parts):
        raise DataError(f"{path}: has too few lines for {', '.join(SPLITS)}; give a longer text, or three files")
    return {f"{path} ({split})": part for split, part in zip(SPLITS, parts)}


def _read_archive(path: str) -> dict[str, list[str]]:
    """Read the lines of train, valid and test from an archive, keyed by "archive:member"."""
    try:
        with _BoundedGzip(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            texts = _read_members(archive, path)
            while stream.read(MAX_LINE_BYTES):  # gzip verifies the checksum at the end of the stream
                pass
    except DataError:
        raise
    except (EOFError, OSError, RecursionError, ValueError, tarfile.TarError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path}: is not a readable simple-examples.tgz ({reason}); pass simple-examples.tgz as published, or a folder"
        ) from None
    return {name: list(iterate_nonempty_text(io.BytesIO(data), name)) for name, data in texts.items()}


def _read_members(archive: tarfile.TarFile, path: str) -> dict[str, bytes]:
    """Read train, valid and test from the first folder of the archive that holds all three, keyed by "archive:member"."""
    folders = defaultdict(dict)
    bytes_left = len(SPLITS) * MAX_MEMBER_BYTES
    for member in islice(archive, MAX_MEMBERS):
        folder, name = posixpath.split(member.name)
        if not any(name in names for names in FILE_NAMES):
            continue
        _require_plain_file(member, path)
        folders[folder][name] = archive.extractfile(member).read()
        bytes_left -= len(folders[folder][name])
        if bytes_left < 0:
            raise DataError(f"{path}: has too many texts before a folder with all three; unpack it and pass the folder")
        for names in FILE_NAMES:
            if folders[folder].keys() >= set(names):
                return {f"{path}:{name}": folders[folder][name] for name in names}
    raise DataError(f"{path}: {_LACKS_SPLITS} in one folder; pass simple-examples.tgz as published, or a folder")


def _require_plain_file(member: tarfile.TarInfo, path: str) -> None:
    folder, name = posixpath.split(member.name)
    if posixpath.isabs(folder) or ".." in folder.split("/"):
        raise DataError(f"{path}: {name} has a path outside the archive; use a copy from a trusted source")
    if not member.isreg() or member.issparse():
        raise DataError(f"{path}: {name} is a link or a special file; pack it as a plain file")
    if member.size > MAX_MEMBER_BYTES:
        raise DataError(f"{path}: {name} has over {MAX_MEMBER_BYTES:,} bytes; unpack it and pass the folder")


class _BoundedGzip(gzip.GzipFile):
    """A gzip file that raises DataError on a decompression bomb.

    One read is bounded because tarfile reads a header into memory whatever its size. The position is bounded because
    tarfile skips members by reading through them.
    """

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
