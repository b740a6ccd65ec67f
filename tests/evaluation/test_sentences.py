"""Sentences in batches against one by one in float64 and NumPy; totals against numbers computed by hand."""

import math

import numpy as np
import pytest

from helpers import oracle
from ptb.config import Model
from ptb.evaluation import sentences
from ptb.evaluation.score import make_eval_step
from ptb.evaluation.sentences import SentenceScore, SentenceScorer, Totals
from ptb.model.language_model import LanguageModel

EOS = 3
LENGTHS = [4, 1, 2, 4, 40, 3, 1, 9, 33, 2]  # two of them longer than a window


@pytest.fixture(scope="module")
def model():
    return LanguageModel(12, Model(layers=(5, 4), init_scale=0.7), dtype="float64", seed=2)


@pytest.fixture(scope="module")
def step(model):
    return make_eval_step(model)


def random_sentences(seed=0):
    rng = np.random.default_rng(seed)
    return [np.append(rng.integers(12, size=length - 1), EOS).astype(np.int32) for length in LENGTHS]


@pytest.mark.parametrize("batch_size", [1, 3, 128])
def test_padding_changes_no_score(model, step, batch_size, monkeypatch):
    monkeypatch.setattr(sentences, "BATCH_SIZE", batch_size)
    texts = random_sentences()
    scores = SentenceScorer(step, model, EOS).score(texts)
    weights = oracle.weights_of(model)
    for ids, log_probabilities in zip(texts, scores, strict=True):
        inputs = np.append(EOS, ids[:-1])[np.newaxis]
        expected = -oracle.language_model_losses(weights, inputs, ids[np.newaxis])[0]
        np.testing.assert_allclose(log_probabilities, expected, rtol=1e-12)


def test_few_steps_are_computed_for_many_sentences(model, step):
    """A long sentence does not lengthen the batch of short ones, and equal ones are computed once."""
    shapes = []

    def counted(inputs, targets, state):
        shapes.append(inputs.shape)
        return step(inputs, targets, state)

    texts = random_sentences()
    scorer = SentenceScorer(counted, model, EOS)
    first = scorer.score(texts * 50)
    assert sum(np.prod(shape) for shape in shapes) < 2 * sum(LENGTHS)
    count = len(shapes)
    assert all(a is b for a, b in zip(scorer.score(texts[::-1]), first[: len(texts)][::-1]))
    assert len(shapes) == count


def test_only_the_last_scores_are_remembered(model, step, monkeypatch):
    monkeypatch.setattr(sentences, "KEPT", 3)
    scorer = SentenceScorer(step, model, EOS)
    before = scorer.score(random_sentences())
    again = scorer.score(random_sentences())
    assert sum(a is b for a, b in zip(again, before)) == 3
    for score, expected in zip(again, before):
        np.testing.assert_allclose(score, expected, rtol=1e-12)


def of_powers(words, exponents):
    """A score whose tokens have the probabilities 10 ** exponent."""
    unknown = tuple(word for word in words if word.isupper())
    return SentenceScore((*words, "<eos>"), math.log(10) * np.array(exponents, np.float64), unknown)


def test_totals_are_those_of_srilm():
    """By hand: 10 ** (9 / 6), 10 ** (9 / 4); without the OOV, of 10 ** -3, 10 ** (6 / 5), 10 ** (6 / 3)."""
    totals = Totals()
    totals.add(of_powers(["the", "cat"], [-1, -2, -1]))
    totals.add(of_powers(["ZEBRA", "sat"], [-3, -1, -1]))
    assert (totals.sentences, totals.words, totals.oovs) == (2, 4, 1)
    assert totals.log_probability / math.log(10) == pytest.approx(-9)
    assert (totals.ppl, totals.ppl1) == pytest.approx((31.6227766, 177.827941))
    known = totals.without_oovs()
    assert (known.words, known.log_probability / math.log(10)) == (3, pytest.approx(-6))
    assert (known.ppl, known.ppl1) == pytest.approx((15.8489319, 100))


def test_totals_of_nothing_and_of_empty_lines():
    totals = Totals()
    assert (totals.ppl, totals.ppl1) == (None, None)
    totals.add(of_powers([], [-2]))
    assert (totals.ppl, totals.ppl1) == (pytest.approx(100), None)
