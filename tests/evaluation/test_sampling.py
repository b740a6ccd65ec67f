"""Distributions by hand; texts against a model in NumPy that reads the whole text again for each word."""

import functools
import itertools
import math

import numpy as np
import pytest

from helpers import oracle
from ptb.config import Model
from ptb.evaluation.sampling import NotFiniteError, distribution, generate, make_next_step
from ptb.model.language_model import LanguageModel

VOCAB_SIZE = 30
HALVES = np.log([0.125, 0.5, 0.25, 0.125])


@pytest.fixture(scope="module")
def model():
    return LanguageModel(VOCAB_SIZE, Model(layers=(8, 5), init_scale=0.7), seed=0)


@pytest.fixture(scope="module")
def next_step(model):
    return make_next_step(model)


def next_word_probabilities(model, tokens):
    """The distribution after all `tokens`, in float64 and from a state of zeros: one copy of the text for each next word."""
    inputs = np.tile(np.array(tokens, np.int32), [VOCAB_SIZE, 1])
    targets = np.zeros_like(inputs)
    targets[:, -1] = np.arange(VOCAB_SIZE)
    return np.exp(-oracle.language_model_losses(oracle.weights_of(model), inputs, targets)[:, -1])


def chi_square(counts, probabilities):
    """Return Pearson's statistic in standard deviations from its mean; above 4 at most once in ten thousand times."""
    expected = counts.sum() * probabilities
    degrees = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees)


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({}, [1 / 8, 1 / 2, 1 / 4, 1 / 8]),
        ({"temperature": 0.5}, [1 / 22, 16 / 22, 4 / 22, 1 / 22]),  # squares
        ({"temperature": 1e-6}, [0, 1, 0, 0]),
        ({"temperature": 1e15}, [1 / 4] * 4),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 2 / 3, 1 / 3, 0]),
        ({"top_k": 3}, [1 / 7, 4 / 7, 2 / 7, 0]),  # of the two least likely words the first
        ({"top_k": 99}, [1 / 8, 1 / 2, 1 / 4, 1 / 8]),
        ({"top_p": 1e-9}, [0, 1, 0, 0]),
        ({"top_p": 0.5}, [0, 1, 0, 0]),
        ({"top_p": 0.51}, [0, 2 / 3, 1 / 3, 0]),
        ({"top_p": 0.8}, [1 / 7, 4 / 7, 2 / 7, 0]),
        ({"top_p": 0.9}, [1 / 8, 1 / 2, 1 / 4, 1 / 8]),
        ({"excluded": [1]}, [1 / 4, 0, 1 / 2, 1 / 4]),
        ({"excluded": [1], "top_k": 1}, [0, 0, 1, 0]),
        ({"excluded": [1], "top_p": 0.7}, [1 / 3, 0, 2 / 3, 0]),
        ({"temperature": 0.5, "top_p": 0.75}, [0, 4 / 5, 1 / 5, 0]),  # after the temperature: 16/22 < 0.75
        ({"top_k": 2, "top_p": 0.6}, [0, 1, 0, 0]),  # of the words that top_k left: 2/3 > 0.6
    ],
)
def test_distributions_by_hand(choices, expected):
    for offset in (0, 1000, -1000):  # logits may be as large as they like
        np.testing.assert_allclose(distribution(HALVES + offset, **choices), expected, rtol=1e-12, atol=0)


def test_distributions_of_ten_thousand_words_by_sorting_them():
    logits = np.random.default_rng(0).normal(0, 3, 10_000).astype(np.float32)
    likelihoods = [math.exp(logit / 0.8) for logit in logits.tolist()]
    order = sorted(range(10_000), key=lambda index: -likelihoods[index])[:500]
    total, reached, kept = sum(likelihoods[index] for index in order), 0, []
    while reached < 0.9 * total:
        kept.append(order[len(kept)])
        reached += likelihoods[kept[-1]]
    expected = np.zeros(10_000)
    expected[kept] = [likelihoods[index] / reached for index in kept]
    p = distribution(logits, temperature=0.8, top_k=500, top_p=0.9)
    np.testing.assert_allclose(p, expected, rtol=1e-9)


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_have_no_distribution(logit):
    with pytest.raises(NotFiniteError):
        distribution([0.0, logit, 1.0], excluded=[1])


def test_the_first_words_come_as_often_as_the_model_says(model, next_step):
    p = next_word_probabilities(model, [3, 7])
    _, state = next_step(3, model.initial_state(1))
    words = [next(generate(next_step, 7, state, 1, (1, sample))) for sample in range(1000)]
    assert chi_square(np.bincount(words, minlength=VOCAB_SIZE), p) < 4


def test_the_draws_of_a_text_are_independent():
    model = LanguageModel(4, Model(layers=(2,)))  # with the same distribution after every word
    model.softmax_weights.assign(np.zeros([4, 2]))
    model.softmax_bias.assign(HALVES)
    words = list(generate(make_next_step(model), 0, model.initial_state(1), 2000, (5, 0)))
    counts = np.histogram2d(words[::2], words[1::2], bins=[range(5)] * 2)[0]
    assert chi_square(counts.ravel(), np.outer(np.exp(HALVES), np.exp(HALVES)).ravel()) < 4


def test_the_likeliest_text_is_that_of_reading_everything_again_and_one_function_is_traced():
    model = LanguageModel(VOCAB_SIZE, Model(layers=(8, 8), init_scale=4), seed=1)
    next_step = make_next_step(model)
    text = [4]
    for _ in range(25):
        text.append(int(next_word_probabilities(model, text).argmax()))
    argmax = functools.partial(distribution, top_k=1)
    assert list(generate(next_step, 4, model.initial_state(1), 25, (1, 0), argmax)) == text[1:]
    assert len(set(itertools.pairwise(text))) > len(set(text))  # a word is not always followed by the same one
    assert next_step.experimental_get_tracing_count() == 1


def test_the_state_carries_everything_read_so_far(model, next_step):
    text, state = np.random.default_rng(0).integers(0, VOCAB_SIZE, 20).astype(np.int32), model.initial_state(1)
    for position, token in enumerate(text, 1):
        logits, state = next_step(token, state)
        np.testing.assert_allclose(distribution(logits), next_word_probabilities(model, text[:position]), rtol=1e-4)


def test_a_text_is_a_function_of_its_seed(model, next_step):
    def text(length, *seed):
        return list(generate(next_step, 0, model.initial_state(1), length, seed))

    assert text(30, 1, 0) == text(30, 1, 0) == text(40, 1, 0)[:30]
    texts = [text(30, seed, sample) for seed, sample in itertools.product(range(3), range(3))]
    assert len({*map(tuple, texts)}) == 9
