"""The softmax head against TensorFlow's own cross-entropy and against NumPy, with large logits too."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import oracle
from ptb.model import heads

ROWS, HIDDEN, VOCAB = 12, 5, 9
STEPS, BATCH = 4, 3


def make_case(dtype=np.float64, scale=1.0):
    """Return features `[rows, hidden]`, weights and bias as tensors, and targets `[rows]`."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(0, scale, shape).astype(dtype) for shape in ((ROWS, HIDDEN), (VOCAB, HIDDEN), (VOCAB,))]
    return [tf.constant(array) for array in arrays], rng.integers(0, VOCAB, ROWS).astype(np.int32)


def make_head(product_dtype=tf.float64):
    """Return a head, features `[num_steps, batch, hidden]`, targets `[batch, num_steps]` and the logits from NumPy."""
    (features, weights, bias), targets = make_case()
    head = heads.SoftmaxHead(*[keras.Variable(tensor, dtype="float64") for tensor in (weights, bias)], product_dtype)
    features = tf.reshape(features, [STEPS, BATCH, HIDDEN])
    logits = features.numpy().transpose(1, 0, 2) @ weights.numpy().T + bias.numpy()
    return head, features, targets.reshape(BATCH, STEPS), logits


def test_logits_and_losses_have_the_batch_first():
    head, features, targets, logits = make_head()
    np.testing.assert_allclose(head.logits(features), logits, rtol=1e-12)
    expected = -np.take_along_axis(oracle.log_softmax(logits), targets[..., np.newaxis], -1)[..., 0]
    np.testing.assert_allclose(head.losses(features, targets), expected, rtol=1e-12)
    for losses in head.sampled_losses(features, targets, 2_000, tf.constant([1, 2])):  # all words: see below
        np.testing.assert_allclose(losses, expected, rtol=1e-9)


def test_losses_and_gradients_equal_tensorflows_cross_entropy():
    arguments, targets = make_case()
    row_weights = np.random.default_rng(1).normal(size=ROWS)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(arguments)
        features, weights, bias = arguments
        losses = heads.cross_entropy(*arguments, targets, tf.float64)
        expected = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, features @ tf.transpose(weights) + bias)
        total, expected_total = tf.reduce_sum(row_weights * losses), tf.reduce_sum(row_weights * expected)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    for got, wanted in zip(tape.gradient(total, arguments), tape.gradient(expected_total, arguments), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


def test_bfloat16_products_have_errors_of_their_rounding():
    arguments, targets = make_case(np.float32)
    exact = [tf.cast(argument, tf.float64) for argument in arguments]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([arguments, exact])
        losses = heads.cross_entropy(*arguments, targets, tf.bfloat16)
        exact_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, exact[0] @ tf.transpose(exact[1]) + exact[2])
    results = [losses, *tape.gradient(losses, arguments)]
    for got, wanted in zip(results, [exact_losses, *tape.gradient(exact_losses, exact)], strict=True):
        assert got.dtype == tf.float32
        assert 1e-5 < np.linalg.norm(got.numpy() - wanted) / np.linalg.norm(wanted) < 3e-2  # rounded to 8 bits, but not lost


@pytest.mark.parametrize("first_words", [heads.FIRST_WORDS, None])
def test_the_sum_over_a_large_vocabulary_is_not_in_bfloat16(first_words):
    """Scores below 4 are rounded by 2⁻⁷ at most, which changes log Σ exp and the target's score so much, and p by 2⁻⁹.

    In bfloat16 a sum of 10,000 terms of one size stops growing at the 256th.
    """
    rng = np.random.default_rng(0)
    rounded = [tf.cast(rng.normal(0, scale, (rows, HIDDEN)), tf.bfloat16) for scale, rows in ((1, ROWS), (0.25, 10_000))]
    features, weights = [tf.cast(array, tf.float32) for array in rounded]
    scores = features.numpy().astype(np.float64) @ weights.numpy().T.astype(np.float64)
    assert np.abs(scores).max() < 4
    targets = rng.integers(0, 10_000, ROWS).astype(np.int32)
    losses = heads.cross_entropy(features, weights, tf.zeros(10_000), targets, tf.bfloat16, first_words)
    expected = -oracle.log_softmax(scores)[np.arange(ROWS), targets]
    np.testing.assert_allclose(losses, expected, rtol=0, atol=2**-7 + 2**-7 + 2**-9)


def test_each_product_of_the_gradient_is_in_bfloat16_and_the_targets_are_exact():
    arguments, targets = make_case(np.float32)
    features, weights, bias = arguments
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        losses = heads.cross_entropy(*arguments, targets, tf.bfloat16)
    rounded = [tf.cast(argument, tf.bfloat16) for argument in arguments]
    p = tf.nn.softmax(tf.matmul(rounded[0], rounded[1], transpose_b=True) + rounded[2])
    one_hot = np.eye(VOCAB)[targets]
    expected = [
        tf.cast(tf.matmul(p, rounded[1]), tf.float32) - one_hot @ weights.numpy(),
        tf.cast(tf.matmul(p, rounded[0], transpose_a=True), tf.float32) - one_hot.T @ features.numpy(),
        tf.cast(tf.reduce_sum(p, 0), tf.float32) - one_hot.sum(0),
    ]
    for got, wanted in zip(tape.gradient(losses, arguments), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_the_bias_gradient_sums_to_zero_although_bfloat16_rounds_the_gradient_of_the_losses():
    """p is 1/8 for each word, which is exact; the gradient of each loss, 0.05, is not."""
    features, weights, bias = tf.zeros([8, HIDDEN]), tf.zeros([8, HIDDEN]), tf.zeros(8)
    with tf.GradientTape() as tape:
        tape.watch(bias)
        losses = 0.05 * heads.cross_entropy(features, weights, bias, np.zeros(8, np.int32), tf.bfloat16)
    assert abs(float(tf.reduce_sum(tape.gradient(losses, bias)))) < 1e-6


def test_bfloat16_products_of_sampled_words_have_errors_of_their_rounding():
    arguments, targets = make_case(np.float32)
    seed = tf.constant([3, 4])
    rounded, exact = (heads.sampled_cross_entropy(*arguments, targets, t, 6, seed) for t in (tf.bfloat16, tf.float32))
    for got, expected in zip(rounded, exact, strict=True):
        assert got.dtype == tf.float32
        assert 1e-5 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 3e-2


@pytest.mark.parametrize("scale", [1, 10, 100])
def test_losses_are_right_if_probabilities_round_to_zero(scale):
    (features, weights, bias), targets = make_case(np.float32, scale)
    logits = features.numpy().astype(np.float64) @ weights.numpy().T.astype(np.float64) + bias.numpy()
    expected = -oracle.log_softmax(logits)[np.arange(ROWS), targets]
    if scale == 100:
        assert expected.max() > 1000  # exp(-1000) is 0 in float32
    losses = heads.cross_entropy(features, weights, bias, targets, tf.float32)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("word", [0, 2 * heads.FIRST_WORDS])
@pytest.mark.parametrize("product_dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("first_words", [heads.FIRST_WORDS, None])
def test_the_loss_shows_that_one_score_is_not_finite(value, word, product_dtype, first_words):
    bias = np.zeros(3 * heads.FIRST_WORDS, np.float32)
    bias[word] = value
    arguments = tf.ones([2, 3]), tf.ones([len(bias), 3]), tf.constant(bias)
    losses = tf.function(heads.cross_entropy)(*arguments, tf.constant([1, 5]), product_dtype, first_words)
    assert not np.isfinite(losses).any()


def test_losses_are_right_if_all_frequent_words_round_to_zero():
    """One row is certain of its target, one of another rare word, one of a frequent word."""
    size = 3 * heads.FIRST_WORDS
    scores = np.zeros((3, size), np.float32)
    scores[0, size - 1] = scores[1, size - 2] = scores[2, 5] = 200
    targets = np.full(3, size - 1, np.int32)
    arguments = tf.constant(np.eye(3, dtype=np.float32)), tf.constant(scores.T), tf.zeros(size)
    for first_words in (heads.FIRST_WORDS, None):
        losses = heads.cross_entropy(*arguments, targets, tf.float32, first_words)
        np.testing.assert_allclose(losses, [0, 200, 200], rtol=1e-6)


def test_sampled_losses_by_hand():
    """Minimised: a softmax over the target and the drawn set, with log P(in such a set) subtracted from each score.

    Estimate: the same, except that the target's own score is unchanged.
    """
    arguments, targets = make_case()
    features, weights, bias = [tensor.numpy() for tensor in arguments]
    words = set(heads.zipf_draws(6, VOCAB, [3, 4]).numpy())
    assert 1 < len(words) < 6
    assert words & set(targets)  # a target that is drawn must not count twice
    raw = features @ weights.T + bias
    scores = raw - np.log(1 - (1 - oracle.zipf_probabilities(VOCAB)) ** 6)
    minimised, estimates = heads.sampled_cross_entropy(*arguments, targets, tf.float64, 6, tf.constant([3, 4]))
    for target_scores, losses in ((scores, minimised), (raw, estimates)):
        expected = []
        for row, target in enumerate(targets):
            candidates = [target_scores[row, target], *scores[row, list(words - {target})]]
            expected.append(np.log(np.exp(candidates).sum()) - target_scores[row, target])
        np.testing.assert_allclose(losses, expected, rtol=1e-9)


def test_the_estimates_sum_of_exponentials_is_right_on_average():
    arguments, targets = make_case()
    exact = np.exp(heads.cross_entropy(*arguments, targets, tf.float64))

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([2], tf.int32)])
    def estimate(seed):
        return heads.sampled_cross_entropy(*arguments, targets, tf.float64, 6, seed)[1]

    estimates = [estimate([0, seed]) for seed in range(1000)]
    np.testing.assert_allclose(np.exp(estimates).mean(0), exact, rtol=0.1)


def test_draws_follow_the_seed_and_the_distribution():
    words = heads.zipf_draws(100_000, VOCAB, [1, 2]).numpy()
    np.testing.assert_array_equal(words, heads.zipf_draws(100_000, VOCAB, [1, 2]))
    assert (words != heads.zipf_draws(100_000, VOCAB, [1, 3]).numpy()).mean() > 0.5
    np.testing.assert_allclose(np.bincount(words, minlength=VOCAB) / len(words), oracle.zipf_probabilities(VOCAB), atol=0.005)


def test_draws_stay_in_the_vocabulary_if_a_product_rounds_up_to_its_end(monkeypatch):
    monkeypatch.setattr(tf.random, "stateless_uniform", lambda *_, **__: tf.constant([0, 1], tf.float64))
    np.testing.assert_array_equal(heads.zipf_draws(2, VOCAB, [1, 2]), [0, VOCAB - 1])


def test_many_samples_give_the_exact_softmax_and_its_gradient_is_sparse():
    arguments, targets = make_case()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(arguments)
        exact = tf.reduce_sum(heads.cross_entropy(*arguments, targets, tf.float64))
        sampled = heads.sampled_cross_entropy(*arguments, targets, tf.float64, 2_000, tf.constant([1, 2]))
        minimised, estimate = map(tf.reduce_sum, sampled)
    assert float(minimised) == pytest.approx(float(exact), rel=1e-9)
    assert float(estimate) == pytest.approx(float(exact), rel=1e-9)
    for true, estimated in zip(tape.gradient(exact, arguments), tape.gradient(minimised, arguments), strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(estimated), true, atol=1e-9)
    assert isinstance(tape.gradient(minimised, arguments[1]), tf.IndexedSlices)


@pytest.mark.parametrize("scale", [1, 100])
def test_a_mixture_by_hand_also_if_probabilities_round_to_zero(scale):
    """p = Σ_k π_k softmax(z_k Wᵀ + b), the sum written out in float64."""
    rng, mixture, size = np.random.default_rng(0), 3, HIDDEN
    weights, bias = (rng.normal(0, scale, shape).astype(np.float32) for shape in ((VOCAB, size), (VOCAB,)))
    priors = rng.normal(0, scale, (STEPS, BATCH, mixture)).astype(np.float32)
    latents = rng.normal(size=(STEPS, BATCH, mixture, size)).astype(np.float32)
    targets = rng.integers(0, VOCAB, (BATCH, STEPS)).astype(np.int32)
    head = heads.MixtureHead(*[keras.Variable(array) for array in (weights, bias)], tf.float32, mixture=mixture)
    features = tf.concat([priors, latents.reshape(STEPS, BATCH, -1)], -1)
    log_pi = oracle.log_softmax(priors.astype(np.float64))
    by_component = oracle.log_softmax(latents.astype(np.float64) @ weights.T.astype(np.float64) + bias)
    expected = np.logaddexp.reduce(log_pi[..., np.newaxis] + by_component, axis=2).transpose(1, 0, 2)
    np.testing.assert_allclose(np.exp(expected).sum(-1), 1, rtol=1e-9)
    np.testing.assert_allclose(head.logits(features), expected, rtol=1e-4, atol=1e-4)
    losses = -np.take_along_axis(expected, targets[..., np.newaxis], -1)[..., 0]
    np.testing.assert_allclose(head.losses(features, targets), losses, rtol=1e-4, atol=1e-4)
    if scale == 100:
        assert losses.max() > 200  # exp(-200) is 0 in float32
