"""Beam search against all continuations, scored by NumPy."""

import itertools

import numpy as np
import pytest

from helpers import oracle
from ptb.config import Model
from ptb.evaluation.beam import beam_search, make_beam_step
from ptb.model.language_model import LanguageModel

EOS, START, VOCAB_SIZE, LENGTH = 1, 3, 5, 4


@pytest.fixture(scope="module")
def model():
    return LanguageModel(VOCAB_SIZE, Model(layers=(4, 3), init_scale=1.5), dtype="float64", seed=3)


@pytest.fixture(scope="module")
def search(model):
    step = make_beam_step(model)

    def run(width, sentences=None, excluded=(), length=LENGTH):
        def is_last(ids):
            return ids[-1] == EOS and ids.count(EOS) == sentences

        return beam_search(step, START, model.initial_state(1), width, length, is_last, excluded)

    return run


def all_continuations(model, sentences=None, excluded=()):
    """Return the log probability of every continuation, which ends at its last end of a sentence."""
    texts = np.array(list(itertools.product(range(VOCAB_SIZE), repeat=LENGTH)))
    inputs = np.concatenate([np.full([len(texts), 1], START), texts[:, :-1]], 1)
    log_p = -oracle.language_model_losses(oracle.weights_of(model), inputs, texts)
    found = {}
    for text, scores in zip(texts.tolist(), log_p):
        ends = [position for position, token in enumerate(text, 1) if token == EOS]
        stop = ends[sentences - 1] if sentences and len(ends) >= sentences else LENGTH
        if not {*text[:stop]} & {*excluded}:
            found[tuple(text[:stop])] = scores[:stop].sum()
    return found


@pytest.mark.parametrize(("sentences", "excluded"), [(None, ()), (1, ()), (2, (0, 4)), (1, (2,))])
def test_a_wide_beam_finds_the_likeliest_of_all(model, search, sentences, excluded):
    expected = sorted(all_continuations(model, sentences, excluded).items(), key=lambda item: -item[1])
    found = search(VOCAB_SIZE**LENGTH, sentences, excluded)
    assert len(found) == len(expected)
    assert [continuation.ids for continuation in found[:20]] == [ids for ids, _ in expected[:20]]
    np.testing.assert_allclose([c.log_probability for c in found], [p for _, p in expected], rtol=1e-10)


def test_a_beam_of_one_takes_the_likeliest_word_at_each_step(model, search):
    (found,) = search(1)
    expected = all_continuations(model)
    for position in range(LENGTH):
        prefix = found.ids[:position]
        rest = [ids for ids in expected if ids[:position] == prefix]
        totals = {token: np.logaddexp.reduce([expected[ids] for ids in rest if ids[position] == token]) for token in range(5)}
        assert max(totals, key=totals.get) == found.ids[position]
    assert found.log_probability == pytest.approx(expected[found.ids])


def test_a_narrow_beam_returns_no_more_than_its_width_the_best_first(model, search):
    found = search(3, sentences=1, length=9)
    assert len(found) == 3
    totals = [continuation.log_probability for continuation in found]
    assert totals == sorted(totals, reverse=True)
    assert all(EOS not in continuation.ids[:-1] for continuation in found)
