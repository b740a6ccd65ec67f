"""Reads and writes files so that damage and full disks become one-line errors, and a file is never half written."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator

from ptb.data.files import delete_abandoned


class RunError(Exception):
    """A run folder that cannot be used. The message names the file and says what to do."""


@contextlib.contextmanager
def reading(path: pathlib.Path, cure: str) -> Iterator[None]:
    """Turn the errors of damaged JSON into a RunError that names the file and the cure."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged ({error}); {cure}") from None


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turn an OSError, most often a full disk or a read-only folder, into a RunError that names the file."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or choose a folder that is writable"
        ) from None


def write_atomically(path: pathlib.Path, content: bytes | Callable) -> None:
    """Write bytes, or what `content(file)` writes. A crash leaves either all of it or the previous file."""
    # Checkpoints are large and have one writer: under one name the next one replaces what a crash left. Other files may have
    # several writers, such as two evaluate.py --adapt.
    aside = path.parent / (".writing.npz" if path.suffix == ".npz" else f".writing-{os.getpid()}-{path.name}")
    with writing(path):
        delete_abandoned(path.parent, ".writing-*")
        try:
            with open(aside, "wb") as file:
                content(file) if callable(content) else file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except OSError:
            aside.unlink(missing_ok=True)  # half a file would keep a full disk full
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # the rename itself
        os.close(folder)
