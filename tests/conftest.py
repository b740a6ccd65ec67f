"""Fixtures: where PTB is, tiny corpora, a finished run, and what every test starts and ends with."""

import logging
import multiprocessing
import os
import pathlib
import shutil

import numpy as np
import pytest

import ptb.runtime.environment  # noqa: F401 -- before anything that imports TensorFlow
from helpers import in_process, processes
from helpers.texts import TINY, write_files
from ptb.data.corpus import load_corpus
from ptb.data.download import ptb_cache
from ptb.data.files import SPLITS
from ptb.runtime import devices

logging.getLogger("tensorflow").propagate = False  # its messages, for example on retracing, are not ours
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # otherwise the first worker takes all memory of a GPU


def pytest_make_parametrize_id(config, val, argname):
    """Name bytes by their argument: archives contain the time, and all workers must collect tests of the same names."""
    return argname if isinstance(val, bytes | bytearray) else None


@pytest.fixture(autouse=True)
def exact_products():
    """Turn off TF32, the default on GPUs: it would hide errors below 1e-3."""
    devices.use_precision("float32")


@pytest.fixture(autouse=True)
def no_survivors():
    """Kill processes that a test left behind; otherwise pytest waits for them at its end."""
    yield
    for process in multiprocessing.active_children():
        process.kill()


@pytest.fixture(scope="session")
def ptb_path():
    """The folder with the real data, from PTB_DATA, beside the checkout or in the user's cache; skips if there is none."""
    for folder in (os.environ.get("PTB_DATA"), processes.ROOT.parent / "shared" / "ptb", ptb_cache()):
        if folder and pathlib.Path(folder, "ptb.train.txt").exists():
            return str(folder)
    pytest.skip("no PTB: set PTB_DATA to the folder with ptb.train.txt")


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """A folder with three tiny texts, large enough for a few windows of the test configuration."""
    return write_files(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="session")
def random_corpus(tmp_path_factory):
    """A corpus of random words: after a while, learning train makes valid worse."""
    folder, rng = tmp_path_factory.mktemp("random"), np.random.default_rng(0)
    texts = {split: "".join(" ".join(rng.choice(list("abcdefgh"), 9)) + "\n" for _ in range(60)) for split in SPLITS}
    return load_corpus(str(write_files(folder, {f"{split}.txt": text for split, text in texts.items()})))


@pytest.fixture(scope="session")
def finished_folder(tmp_path_factory):
    """A folder with a corpus in `data` and a finished run on it in `run`."""
    folder = tmp_path_factory.mktemp("finished")
    write_files(folder / "data", TINY)
    in_process.succeed("train.py", "--model=test", "--data_path=data", "--save_path=run", cwd=folder)
    return folder


@pytest.fixture
def folder_to_damage(finished_folder, tmp_path):
    """A fresh copy of the finished folder, to be damaged."""
    return shutil.copytree(finished_folder, tmp_path / "folder")
