"""Fuzz one of the targets, guided by coverage:

    PYTHONPATH=.:tests python -m fuzz.run checkpoint -max_total_time=60 -rss_limit_mb=4096

All but the name of the target are libFuzzer's options. It stops with the input that broke the target, if there is one.
"""

import pathlib
import sys
import tempfile

import atheris

MODULES = ["ptb", "gzip", "bz2", "lzma", "tarfile", "zipfile"]
with atheris.instrument_imports(include=MODULES):
    from fuzz import targets

if __name__ == "__main__":
    target, seed = targets.TARGETS[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as corpus:
        pathlib.Path(corpus, "seed").write_bytes(seed)
        atheris.Setup([*sys.argv, "-timeout=10", corpus], atheris.instrument_func(target))
        atheris.Fuzz()
