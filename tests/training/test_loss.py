"""The scalar that a step minimises, and the losses that it reports, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from helpers import oracle
from ptb.config import Dropout, Loss, Model
from ptb.model import heads
from ptb.model.language_model import LanguageModel
from ptb.training.loss import loss_fn

BATCH, STEPS, VOCAB = 3, 6, 11
SEED = tf.constant([1, 2])


@pytest.fixture(scope="module")
def model():
    return LanguageModel(VOCAB, Model(layers=(4, 5), init_scale=0.6), rnn_mode="stepwise", dtype="float64")


@pytest.fixture(scope="module")
def window():
    return np.random.default_rng(0).integers(0, VOCAB, (2, BATCH, STEPS)).astype(np.int32)


def run(model, loss, window, burn_in=0):
    cost, losses, state = loss_fn(model, loss, *window, model.initial_state(BATCH), SEED, burn_in)
    assert cost.shape == ()
    return float(cost), losses.numpy(), state


def numpy_losses(model, window):
    return oracle.language_model_losses(oracle.weights_of(model), *window)


def test_sum_is_over_time_and_averaged_over_the_batch_and_mean_is_over_both(model, window):
    expected = numpy_losses(model, window)
    for reduction, cost in (("sum", expected.sum() / BATCH), ("mean", expected.mean())):
        reached, losses, _ = run(model, Loss(reduction=reduction), window)
        assert reached == pytest.approx(cost, rel=1e-9)
        np.testing.assert_allclose(losses, expected, rtol=1e-9)


def test_softmax_l2_adds_its_share_of_the_sum_of_squares(model, window):
    squares = (model.softmax_weights.numpy() ** 2).sum()
    plain, _, _ = run(model, Loss(), window)
    cost, losses, _ = run(model, Loss(softmax_l2=0.1), window)
    assert cost == pytest.approx(plain + 0.1 * squares, rel=1e-9)
    np.testing.assert_allclose(losses, numpy_losses(model, window), rtol=1e-9)


def test_ar_is_of_the_dropped_output_and_tar_of_the_output_before_dropout(window):
    """Means over all elements of the last layer alone (Merity et al. 2017)."""
    architecture, rates = Model(layers=(4, 5), init_scale=2.0), Dropout(output=0.5, locked=True)
    model = LanguageModel(VOCAB, architecture, rates, dtype="float64", rnn_mode="stepwise")
    outputs, _ = model.outputs(window[0], model.initial_state(BATCH), training=True, dropout_seed=SEED)
    raw, dropped = outputs.layers[-1].numpy(), outputs.dropped.numpy()
    assert 0.2 < (dropped == 0).mean() < 0.8
    squares, changes = np.mean(dropped**2), np.mean((raw[1:] - raw[:-1]) ** 2)
    assert min(squares, changes) > 1e-3
    plain, _, _ = run(model, Loss(), window)
    for loss, penalty in ((Loss(ar=2), 2 * squares), (Loss(tar=3), 3 * changes), (Loss(ar=2, tar=1), 2 * squares + changes)):
        cost, losses, _ = run(model, loss, window)
        assert cost == pytest.approx(plain + penalty, rel=1e-9)
        assert losses.sum() / BATCH == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_l2_is_half_the_sum_of_squares_of_all_weights_each_counted_once(window, reduction):
    model = LanguageModel(VOCAB, Model(layers=(4, 4), tied=True, projection="affine"), dtype="float64", rnn_mode="stepwise")
    plain, _, _ = run(model, Loss(reduction=reduction), window)
    weights = oracle.weights_of(model)
    assert len(weights) == 1 + 2 * 3 + 2 + 1  # embedding, layers, projection, bias of the softmax
    cost, _, _ = run(model, Loss(reduction=reduction, l2=0.1), window)
    assert cost == pytest.approx(plain + 0.1 * sum((array**2).sum() for array in weights.values()) / 2, rel=1e-9)
    cost, _, _ = run(model, Loss(reduction=reduction, projection_l2=0.1), window)
    assert cost == pytest.approx(plain + 0.1 * (weights["projection"] ** 2).sum() / 2, rel=1e-9)


@pytest.mark.parametrize("burn_in", [1, 2, 4])
def test_the_losses_of_the_burn_in_do_not_count(model, window, burn_in):
    """The state is that after the steps that count, where the next window begins."""
    steps = STEPS - burn_in
    cost, losses, state = run(model, Loss(), window, burn_in)
    expected = numpy_losses(model, window)[:, burn_in:]
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert cost == pytest.approx(expected.sum() / BATCH, rel=1e-9)
    _, expected_state = model.outputs(window[0][:, :steps], model.initial_state(BATCH))
    tf.nest.map_structure(lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=1e-9), state, expected_state)


def test_a_sampled_softmax_minimises_one_result_and_reports_the_other(model, window):
    cost, losses, _ = run(model, Loss(softmax_samples=3), window)
    assert cost != pytest.approx(losses.sum() / BATCH, rel=1e-3)
    cost, losses, _ = run(model, Loss(softmax_samples=2_000), window)  # every word is drawn: both are exact
    np.testing.assert_allclose(losses, numpy_losses(model, window), rtol=1e-9)
    assert cost == pytest.approx(losses.sum() / BATCH, rel=1e-9)


def test_every_dropout_of_a_window_and_the_draws_have_a_seed_of_their_own(window, monkeypatch):
    """With burn-in the layers run twice in one step."""
    seeds, stateless_dropout, zipf_draws = [], tf.nn.experimental.stateless_dropout, heads.zipf_draws

    def recorded_dropout(features, rate, seed):
        seeds.append(tuple(seed.numpy()))
        return stateless_dropout(features, rate, seed)

    def recorded_draws(count, vocab_size, seed):
        seeds.append(tuple(seed.numpy()))
        return zipf_draws(count, vocab_size, seed)

    monkeypatch.setattr(tf.nn.experimental, "stateless_dropout", recorded_dropout)
    monkeypatch.setattr(heads, "zipf_draws", recorded_draws)
    rates = dict.fromkeys(("input", "hidden", "output", "projected", "state", "embedding", "weights"), 0.5)
    model = LanguageModel(VOCAB, Model(layers=(4, 5)), Dropout(**rates), rnn_mode="stepwise", dtype="float64")
    run(model, Loss(softmax_samples=3), window, burn_in=2)
    assert len(seeds) == 9 + 9 + 1  # two layers have two places each for state and weights
    assert len(set(seeds)) == len(seeds)
