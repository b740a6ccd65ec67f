"""Runs of an LSTM on a text, what evaluate.py prints of them, and the same by NumPy."""

import json
import math

import numpy as np

from configs import TEST
from helpers import in_process, oracle
from helpers.run_files import ids_and_weights, write_run
from ptb.config import override
from ptb.data.corpus import load_corpus

CONFIG = override(TEST, {"layers": (4, 3), "init_scale": 0.7})


def write_run_on(text, folder, config=CONFIG, seed=1):
    """Write a run on the text of a folder that was saved before its first step. Return its folder."""
    corpus = load_corpus(str(text))
    facts = {"corpus": corpus.fingerprint(), "data_path": str(text)}
    write_run(folder, config, corpus.vocabulary.words, seed=seed, **facts)
    return folder


def words_of(path):
    return path.read_text().replace("\n", " <eos> ").split()


def log_p(folder, words):
    """Return the log probability of each word but the first, by NumPy, from a state of zeros."""
    ids, weights = ids_and_weights(folder)
    numbers = np.array([[ids.get(word, ids.get("<unk>")) for word in words]])
    return -oracle.language_model_losses(weights, numbers[:, :-1], numbers[:, 1:])[0]


def perplexity(folder, words):
    return math.exp(-log_p(folder, words).mean())


def records(*arguments, **options):
    return [json.loads(line) for line in in_process.succeed("evaluate.py", *arguments, "--json", **options).stdout.splitlines()]
