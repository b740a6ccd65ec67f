"""From text to score on the demo corpus, with a known floor: a wrong gradient, state or mask shows as a gap."""

import math

import pytest

from configs import DEMO
from helpers import ngram
from helpers.training_runs import begin
from ptb.config import override
from ptb.data import grammar
from ptb.data.corpus import load_corpus
from ptb.data.windows import scoring_windows
from ptb.evaluation.score import make_eval_step, score

FLOOR = math.exp(grammar.entropy_per_token())


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("demo")


def perplexity_after(config, corpus, folder):
    """Train a model as train.py does. Return its perplexity on the test text."""
    model, _ = begin(config, corpus, folder)
    return score(make_eval_step(model), model, scoring_windows(corpus.test)).perplexity


@pytest.mark.slow
def test_one_epoch_on_half_of_the_text_beats_ngrams_of_all_of_it(corpus, tmp_path):
    """With this seed the model reaches 1.204 times the floor, or 1.240 if each window starts from a zero state."""
    text = grammar.demo_text()
    bigram, trigram = (ngram.perplexity(text.train, text.test, order) for order in (2, 3))
    half = corpus._replace(train=corpus.train[: len(corpus.train) // 2])
    reached = perplexity_after(override(DEMO, {"num_epochs": 1}), half, tmp_path / "run")
    assert reached < 0.75 * min(bigram, trigram)
    assert FLOOR < reached < 1.22 * FLOOR


@pytest.mark.slow
def test_the_demo_ends_within_five_percent_of_the_floor(corpus, tmp_path):
    assert FLOOR < perplexity_after(DEMO, corpus, tmp_path / "run") < 1.05 * FLOOR
