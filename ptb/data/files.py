"""Bytes to characters: plain and compressed files, decoded piece by piece.

The input is not trusted. Anything unusable raises `DataError`, and no line, word or compressed file can fill the memory.
"""

import bz2
import codecs
import gzip
import lzma
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    from backports import zstd
except ImportError:  # an extra, for those who have such texts
    zstd = None

SPLITS = ("train", "valid", "test")

MAX_LINE = 1 << 20  # characters; a longer line of a text is read in pieces
BLOCK = 1 << 20  # bytes read at a time
DAY = 24 * 60 * 60  # seconds; upper bound on the time to write any file
LARGE_BYTES = 256 << 20  # if a plain file of a folder is larger, ids are memory-mapped; what is compressed may not be larger
READ_ERRORS = (OSError, EOFError, RuntimeError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
READ_ERRORS += (zstd.ZstdError,) if zstd else ()


class DataError(ValueError):
    """Data that cannot be used. The message is one line: the file, what is wrong, what to do."""


def _open_zst(path: str) -> BinaryIO:
    if zstd is None:
        raise DataError(f"{path}: reading .zst needs a library; pip install backports.zstd, or unpack it with unzstd")
    return zstd.open(path)


OPENERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zst}


def compression_of(name: str) -> str:
    """Return the ending of a compressed file, one of `OPENERS`, or "" if the name has none of them."""
    ending = os.path.splitext(name)[1].lower()
    return ending if ending in OPENERS else ""


@contextmanager
def open_binary(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file for `iterate_pieces`; unpack it if its name ends as `OPENERS`. Raises DataError if it cannot be opened."""
    path = os.fspath(path)
    opener = OPENERS.get(compression_of(path))
    try:
        file = opener(path) if opener else open(path, "rb")  # noqa: SIM115 -- an error of the caller must not be caught here
    except DataError:
        raise
    except (OSError, ValueError) as error:  # ValueError: the path contains a null byte
        raise unreadable(path, error) from None
    with file:
        yield file


def delete_abandoned(folder: str | os.PathLike, pattern: str) -> None:
    """Delete the temporary files and folders of killed processes, known by an age of over one day."""
    for temporary in Path(folder).glob(pattern):
        with suppress(OSError):  # another process may delete it at the same time
            if time.time() - temporary.stat().st_mtime > DAY:
                shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def unreadable(name: str | os.PathLike, error: Exception) -> DataError:
    """Return the error for a file that cannot be read."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    cure = "check the path and its permissions" if getattr(error, "errno", None) else "it is damaged or cut off: get it again"
    return DataError(f"{name}: cannot be read ({reason}); {cure}")


def read_file(path: str, encoding: str = "utf-8") -> Iterator[str]:
    """Yield the pieces of a text file."""
    with open_binary(path) as stream:
        yield from iterate_pieces(stream, path, encoding, LARGE_BYTES if compression_of(path) else None)


def iterate_lines(stream: BinaryIO, name: str | os.PathLike, encoding: str = "utf-8", keep_mark: bool = False) -> Iterator[str]:
    """Yield the lines of a binary stream, each with its newline. For `keep_mark` see `iterate_pieces`.

    Raises DataError as `iterate_pieces`, or if a line has more than `MAX_LINE` characters.
    """
    for number, line in enumerate(iterate_pieces(stream, name, encoding, keep_mark=keep_mark), 1):
        if len(line) > MAX_LINE:
            raise DataError(f"{name}: line {number} has over {MAX_LINE:,} characters; write one sentence per line")
        yield line


def iterate_pieces(
    stream: BinaryIO,
    name: str | os.PathLike,
    encoding: str = "utf-8",
    max_bytes: int | None = None,
    keep_mark: bool = False,
) -> Iterator[str]:
    """Yield the lines of a binary stream, each with its newline, in pieces if they are long. Only "\\n" ends a line.

    A piece of a line that goes on has `MAX_LINE` + 1 characters. The byte order mark that some editors put at the start of a
    text is left out, or kept with `keep_mark`. Raises DataError, with `name` and the number of the line, if the text is not in
    this encoding or contains a zero byte; or if it cannot be read, or has more than `max_bytes` bytes.
    """
    decoder, rest, line, is_start = _make_decoder(encoding), "", 1, not keep_mark
    for block in _iterate_blocks(stream, name, max_bytes):
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeError as error:
            raise _undecodable(name, encoding, line, error) from None
        if "\0" in text:
            raise _binary(name, line, text)
        if is_start and text:
            text, is_start = text.removeprefix("\ufeff"), False
        *lines, rest = (rest + text).split("\n")
        for complete in lines:
            yield complete + "\n"
        line += len(lines)
        while len(rest) > MAX_LINE:
            yield rest[: MAX_LINE + 1]
            rest = rest[MAX_LINE + 1 :]
    if rest:
        yield rest


def _iterate_blocks(stream, name, max_bytes):
    """Yield what a stream has, as it comes, and at last an empty block."""
    size, block = 0, None
    while block != b"":
        try:
            block = stream.read1(BLOCK)
        except READ_ERRORS as error:
            raise unreadable(name, error) from None
        size += len(block)
        if max_bytes is not None and size > max_bytes:
            raise DataError(f"{name}: unpacks to over {max_bytes:,} bytes; unpack it, and pass the file or its folder")
        yield block


def is_encoding(name: str) -> bool:
    """Return whether Python can decode a text in this encoding piece by piece."""
    try:
        "a".encode(name, "ignore")  # LookupError for a codec that is not for text, such as hex
        return bool(codecs.getincrementaldecoder(name))
    except (LookupError, ValueError):  # ValueError: the name contains a null byte
        return False


def _make_decoder(encoding):
    if not is_encoding(encoding):
        raise DataError(f"encoding {encoding!r}: is none that Python knows; use for example utf-8, utf-16, latin-1 or cp1252")
    return codecs.getincrementaldecoder(encoding)()


def _undecodable(name, encoding, line, error):
    """Return the error for bytes that are not in an encoding, with the flag that says which one to use."""
    data, start = (error.object, error.start) if isinstance(error, UnicodeDecodeError) else (b"", 0)
    before = data[:start].decode(encoding, "ignore")
    if "\0" in before:
        return _binary(name, line, before)
    place = f"{name}: line {line + before.count(chr(10))}"
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    if is_utf8 and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return DataError(f"{place} is in UTF-16, not in UTF-8; add --encoding=utf-16")
    what = "UTF-8" if is_utf8 else encoding
    cure = "name its encoding, for example --encoding=latin-1 or --encoding=cp1252" if is_utf8 else "try --encoding=utf-8"
    return DataError(f"{place} is not in {what} ({getattr(error, 'reason', error)}); {cure}")


def _binary(name, line, text):
    """Return the error for a text, from `line` on, with a zero byte: it is binary, or in UTF-16 without a byte order mark."""
    line += text[: text.index("\0")].count("\n")
    head = text[:1000]
    for half, encoding in ((head[1::2], "utf-16-le"), (head[::2], "utf-16-be")):
        if half and half.count("\0") > 0.9 * len(half):
            return DataError(f"{name}: line {line} contains a zero byte; if this is UTF-16, add --encoding={encoding}")
    return DataError(f"{name}: line {line} contains a zero byte, so the file is binary; give plain text")
