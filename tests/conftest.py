"""Fixtures: where PTB is, a tiny corpus, a finished run, and what every test begins and ends with."""

import logging
import multiprocessing
import os
import pathlib
import shutil

import numpy as np
import pytest

import corpora
import processes
from ptb import devices  # before anything that imports TensorFlow: it decides how that multiplies matrices
from textfiles import SPLITS
from texts import TINY, write_files

logging.getLogger("tensorflow").propagate = False  # what it logs, such as how often it traces, is no message of ours
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # or the first worker would take all memory of a GPU


@pytest.fixture(autouse=True)
def exact_products():
    """TF32, on by default on GPUs, would hide errors smaller than 1e-3."""
    devices.use_precision("float32")


@pytest.fixture(autouse=True)
def no_survivors():
    """A process that a test has left would be waited for at the end."""
    yield
    for process in multiprocessing.active_children():
        process.kill()


@pytest.fixture(scope="session")
def ptb_path():
    """The folder with the real data, from PTB_DATA, beside the checkout or in the user's cache; skips where there is none."""
    for folder in (os.environ.get("PTB_DATA"), processes.ROOT.parent / "shared" / "ptb", corpora.ptb_cache()):
        if folder and pathlib.Path(folder, "ptb.train.txt").exists():
            return str(folder)
    pytest.skip("no PTB: set PTB_DATA to the folder with ptb.train.txt")


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """A folder with three tiny texts, large enough for a handful of the test configuration's windows."""
    return write_files(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="session")
def random_corpus(tmp_path_factory):
    """Random words: what is learnt of the training text makes the validation text worse, after a while."""
    folder, rng = tmp_path_factory.mktemp("random"), np.random.default_rng(0)
    texts = {split: "".join(" ".join(rng.choice(list("abcdefgh"), 9)) + "\n" for _ in range(60)) for split in SPLITS}
    return corpora.load_corpus(str(write_files(folder, {f"{split}.txt": text for split, text in texts.items()})))


@pytest.fixture(scope="session")
def finished_folder(tmp_path_factory):
    """A folder with a corpus in `data` and a finished run of it in `run`."""
    folder = tmp_path_factory.mktemp("finished")
    write_files(folder / "data", TINY)
    processes.succeed("train.py", "--model=test", "--data_path=data", "--save_path=run", cwd=folder)
    return folder


@pytest.fixture
def folder_to_spoil(finished_folder, tmp_path):
    """A fresh copy of it, to spoil."""
    return shutil.copytree(finished_folder, tmp_path / "folder")
