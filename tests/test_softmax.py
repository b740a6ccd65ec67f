"""The fused cross-entropy against TensorFlow's own and against NumPy where numbers grow large."""

import numpy as np
import pytest
import tensorflow as tf

import oracle
from ptb import softmax

ROWS, HIDDEN, VOCAB = 12, 5, 9


def case(dtype=np.float64, scale=1.0):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(0, scale, shape).astype(dtype) for shape in ((ROWS, HIDDEN), (VOCAB, HIDDEN), (VOCAB,))]
    return [tf.constant(array) for array in arrays], rng.integers(0, VOCAB, ROWS).astype(np.int32)


def test_losses_and_gradients_are_those_of_tensorflows_cross_entropy():
    arguments, targets = case()
    row_weights = np.random.default_rng(1).normal(size=ROWS)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(arguments)
        features, weights, bias = arguments
        losses = softmax.cross_entropy(*arguments, targets, tf.float64)
        wanted = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, features @ tf.transpose(weights) + bias)
        total, wanted_total = tf.reduce_sum(row_weights * losses), tf.reduce_sum(row_weights * wanted)
    np.testing.assert_allclose(losses, wanted, rtol=1e-12)
    for got, expected in zip(tape.gradient(total, arguments), tape.gradient(wanted_total, arguments)):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


def test_bfloat16_products_stay_within_their_rounding():
    arguments, targets = case(np.float32)
    exact = [tf.cast(argument, tf.float64) for argument in arguments]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([arguments, exact])
        losses = softmax.cross_entropy(*arguments, targets, tf.bfloat16)
        exact_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, exact[0] @ tf.transpose(exact[1]) + exact[2])
    results = [losses, *tape.gradient(losses, arguments)]
    for got, wanted in zip(results, [exact_losses, *tape.gradient(exact_losses, exact)]):
        assert got.dtype == tf.float32
        assert 1e-5 < np.linalg.norm(got.numpy() - wanted) / np.linalg.norm(wanted) < 3e-2  # rounded to 8 bits, but not lost


@pytest.mark.parametrize("scale", [1, 10, 100])
def test_losses_stay_right_where_probabilities_round_to_zero(scale):
    (features, weights, bias), targets = case(np.float32, scale)
    logits = features.numpy().astype(np.float64) @ weights.numpy().T.astype(np.float64) + bias.numpy()
    wanted = -oracle.log_softmax(logits)[np.arange(ROWS), targets]
    if scale == 100:
        assert wanted.max() > 1000  # exp(-1000) is no float32
    losses = softmax.cross_entropy(features, weights, bias, targets, tf.float32)
    np.testing.assert_allclose(losses, wanted, rtol=1e-4, atol=1e-4)


def test_sampled_losses_by_hand():
    """A softmax among the target and the set drawn, each score less the log of the probability of being in such a set.

    As an estimate, the same but for the target's own score.
    """
    arguments, targets = case()
    features, weights, bias = [tensor.numpy() for tensor in arguments]
    words = set(softmax.zipf_draws(6, VOCAB, [3, 4]).numpy())
    assert 1 < len(words) < 6
    frequency = np.log((np.arange(VOCAB) + 2) / (np.arange(VOCAB) + 1)) / np.log(VOCAB + 1)
    raw = features @ weights.T + bias
    scores = raw - np.log(1 - (1 - frequency) ** 6)
    descended, estimates = softmax.sampled_cross_entropy(*arguments, targets, tf.float64, 6, tf.constant([3, 4]))
    for of_target, losses in ((scores, descended), (raw, estimates)):
        wanted = []
        for row, target in enumerate(targets):
            candidates = [of_target[row, target], *scores[row, list(words - {target})]]
            wanted.append(np.log(np.exp(candidates).sum()) - of_target[row, target])
        np.testing.assert_allclose(losses, wanted, rtol=1e-9)


def test_the_estimates_sums_of_exponentials_are_the_whole_vocabularys_on_average():
    arguments, targets = case()
    exact = np.exp(softmax.cross_entropy(*arguments, targets, tf.float64))
    estimates = [softmax.sampled_cross_entropy(*arguments, targets, tf.float64, 6, [0, seed])[1] for seed in range(1000)]
    np.testing.assert_allclose(np.exp(estimates).mean(0), exact, rtol=0.1)


def test_draws_follow_the_seed_and_the_distribution():
    words = softmax.zipf_draws(100_000, VOCAB, [1, 2]).numpy()
    np.testing.assert_array_equal(words, softmax.zipf_draws(100_000, VOCAB, [1, 2]))
    assert (words != softmax.zipf_draws(100_000, VOCAB, [1, 3]).numpy()).mean() > 0.5
    frequency = np.log((np.arange(VOCAB) + 2) / (np.arange(VOCAB) + 1)) / np.log(VOCAB + 1)
    np.testing.assert_allclose(np.bincount(words, minlength=VOCAB) / len(words), frequency, atol=0.005)


def test_many_samples_are_the_whole_softmax_and_its_gradient_is_sparse():
    arguments, targets = case()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(arguments)
        exact = tf.reduce_sum(softmax.cross_entropy(*arguments, targets, tf.float64))
        sampled = softmax.sampled_cross_entropy(*arguments, targets, tf.float64, 2_000, tf.constant([1, 2]))
        descended, estimate = map(tf.reduce_sum, sampled)
    assert float(descended) == pytest.approx(float(exact), rel=1e-9)
    assert float(estimate) == pytest.approx(float(exact), rel=1e-9)
    for true, estimated in zip(tape.gradient(exact, arguments), tape.gradient(descended, arguments)):
        np.testing.assert_allclose(tf.convert_to_tensor(estimated), true, atol=1e-9)
    assert isinstance(tape.gradient(descended, arguments[1]), tf.IndexedSlices)
