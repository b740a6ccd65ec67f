"""The texts in an archive, which is read without unpacking it to disk.

An archive is not trusted: there are bounds on its members, on memory and on the unpacked size.
"""

import gzip
import io
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ptb.data.files import BLOCK, LARGE_BYTES, SPLITS, DataError

TAR_ENDINGS = (".tgz", ".tar.gz")
MAX_MEMBER_BYTES = 64 << 20  # in a .tgz, whose texts are kept in memory; ptb.train.txt has 5 MB
MAX_ARCHIVE_BYTES = 512 << 20  # a .tgz, unpacked; simple-examples.tgz has 34 MB packed
MAX_ZIP_BYTES = 1 << 30  # the texts in a .zip together; each of them as any compressed file
MAX_MEMBERS = 10_000

Members = dict[str, Callable[[], BinaryIO]]  # by the path in the archive: a function that opens the text


def is_archive(path: str) -> bool:
    return path.lower().endswith((*TAR_ENDINGS, ".zip"))


def list_members(path: str, is_text: Callable[[str], bool], is_enough: Callable[[set[str]], bool]) -> Members:
    """Return the plain files of an archive whose paths are those of a text, each with a function that opens it.

    A `.tgz` is read up to the member with which the texts are enough. If the archive has only one plain file, that file is
    a text, whatever its name.

    Raises DataError if the archive is damaged or too large, or if a text of a split is no plain file in it.
    """
    return _list_zip(path, is_text) if path.lower().endswith(".zip") else _read_tar(path, is_text, is_enough)


def _require_few(count: int, path: str) -> None:
    if count > MAX_MEMBERS:
        raise DataError(f"{path}: has over {MAX_MEMBERS:,} members; unpack it and pass the folder")


def _require_inside(member: str, path: str) -> None:
    folder, name = posixpath.split(member)
    if posixpath.isabs(folder) or ".." in folder.split("/"):
        raise DataError(f"{path}: {name} has a path outside the archive; use a copy from a trusted source")


# .zip


def _list_zip(path, is_text):
    with _reading(path, "zip archive"), zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    _require_few(len(infos), path)
    infos = [info for info in infos if info.filename and not info.filename.endswith("/")]
    infos = [info for info in infos if not info.filename.startswith("__MACOSX/")]  # macOS's own, beside each file
    texts = infos if len(infos) == 1 else [info for info in infos if is_text(info.filename)]
    if sum(info.file_size for info in texts) > MAX_ZIP_BYTES:
        raise DataError(f"{path}: its texts have over {MAX_ZIP_BYTES:,} bytes; unpack it and pass the folder")
    for info in texts:
        _require_inside(info.filename, path)
        if info.file_size > LARGE_BYTES:
            raise DataError(f"{path}: {info.filename} has over {LARGE_BYTES:,} bytes; unpack it and pass the folder")
        if info.flag_bits & 1:
            raise DataError(f"{path}: {info.filename} is encrypted; unpack it and pass the folder")
    return {info.filename: _zip_opener(path, info.filename) for info in texts}


def _zip_opener(path, member):
    @contextmanager
    def opened():
        with _reading(path, "zip archive"):
            archive = zipfile.ZipFile(path)
        with archive:
            with _reading(path, "zip archive"):
                file = archive.open(member)
            with file:
                yield file

    return opened


# .tgz


def _read_tar(path, is_text, is_enough):
    with (
        _reading(path, "tgz archive"),
        _BoundedGzip(path) as stream,
        tarfile.open(fileobj=stream, mode="r:") as archive,
    ):
        texts = _read_members(archive, path, is_text, is_enough)
        while stream.read(BLOCK):  # gzip verifies the checksum at the end of the stream
            pass
    return {name: lambda data=data: io.BytesIO(data) for name, data in texts.items()}


def _read_members(archive, path, is_text, is_enough):
    """Read the texts of an archive up to those that are enough, by their paths."""
    texts, others, bytes_left = {}, [], len(SPLITS) * MAX_MEMBER_BYTES
    for count, member in enumerate(archive, 1):
        _require_few(count, path)
        if member.isdir():
            continue
        if not is_text(member.name):
            others.append(member)
            continue
        _require_inside(member.name, path)
        texts[member.name] = _read_member(archive, member, path)
        bytes_left -= len(texts[member.name])
        if bytes_left < 0:
            raise DataError(f"{path}: has too many texts before a folder with all three; unpack it and pass the folder")
        if is_enough({*texts}):
            return texts
    plain = [member for member in others if member.isreg() and not member.issparse()]
    if not texts and len(plain) == 1:
        texts[plain[0].name] = _read_member(archive, plain[0], path)
    return texts


def _read_member(archive, member, path):
    name = posixpath.basename(member.name)
    if not member.isreg() or member.issparse():
        raise DataError(f"{path}: {name} is a link or a special file; pack it as a plain file")
    if member.size > MAX_MEMBER_BYTES:
        raise DataError(f"{path}: {name} has over {MAX_MEMBER_BYTES:,} bytes; unpack it and pass the folder")
    return archive.extractfile(member).read()


@contextmanager
def _reading(path: str, what: str) -> Iterator[None]:
    """Raise DataError for everything that the modules for archives raise on damaged ones."""
    # RuntimeError: an encrypted member, too deep a recursion, or a kind of compression that zipfile does not know.
    damaged = (EOFError, OSError, LookupError, RuntimeError, ValueError, OverflowError)
    try:
        yield
    except DataError:
        raise
    except (*damaged, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: is not a readable {what} ({reason}); get it again, or pass a folder") from None


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
