"""One training step against the same in NumPy: the scale of the loss, the global norm, repeated words, the update."""

import numpy as np
import pytest
import tensorflow as tf

from ptb.model import LanguageModel
from ptb.training import Sums, make_train_step, sum_repeats

BATCH, STEPS, VOCAB = 4, 5, 11
SEED = np.array([0, 0], np.int32)


def window():
    inputs, targets = np.random.default_rng(0).integers(0, VOCAB, (2, BATCH, STEPS)).astype(np.int32)
    inputs[:, 0] = 3  # a word that is repeated within the window
    return inputs, targets


def gradients_of_mean_loss(model, inputs, targets):
    """Dense gradients of the mean loss per token, by automatic differentiation through one-hot inputs and stock ops."""
    table = tf.convert_to_tensor(model.embedding.value)
    variables = [variable.value for variable in model.trainable_variables if variable is not model.embedding]
    with tf.GradientTape() as tape:
        tape.watch(table)
        features = tf.one_hot(inputs.T, VOCAB) @ table
        for layer, state in zip(model.recurrent_layers, model.initial_state(BATCH)):
            features, _ = layer(features, state)
        logits = features @ tf.transpose(model.softmax_weights.value) + model.softmax_bias.value
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets.T, logits))
    gradients = tape.gradient(loss, [table, *variables])
    return float(loss), [gradient.numpy().astype(np.float64) for gradient in gradients]


def step(model, max_grad_norm, rate=0.5, norm_of_repeats="summed"):
    """Trains one step. Returns what each variable has changed by, and the sums."""
    before = [variable.numpy() for variable in model.trainable_variables]
    train_step = make_train_step(model, max_grad_norm, norm_of_repeats)
    _, sums = train_step(*window(), model.initial_state(BATCH), Sums.zero(), np.float32(rate), SEED)
    return [variable.numpy() - old for variable, old in zip(model.trainable_variables, before)], sums


@pytest.fixture
def model():
    return LanguageModel(VOCAB, 6, 2, init_scale=0.6, rnn_mode="basic")


def test_the_loss_is_summed_over_time_and_averaged_over_the_batch(model):
    mean_loss, gradients = gradients_of_mean_loss(model, *window())
    changes, sums = step(model, max_grad_norm=1e9)
    assert float(sums.loss) == pytest.approx(mean_loss * BATCH * STEPS, rel=1e-5)
    assert float(sums.tokens) == BATCH * STEPS
    for change, gradient in zip(changes, gradients):
        np.testing.assert_allclose(change, -0.5 * STEPS * gradient, rtol=1e-3, atol=1e-6)


def test_the_global_norm_is_that_of_all_gradients_as_one_vector_with_repeated_words_summed(model):
    _, gradients = gradients_of_mean_loss(model, *window())
    norm = STEPS * np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    changes, sums = step(model, max_grad_norm=norm / 4)
    assert float(sums.grad_norm) == pytest.approx(norm, rel=1e-4)
    assert float(sums.clipped_steps) == 1
    for change, gradient in zip(changes, gradients):
        np.testing.assert_allclose(change, -0.5 * STEPS * gradient / 4, rtol=1e-3, atol=1e-6)


def test_a_norm_below_the_limit_is_left_alone(model):
    changes, sums = step(model, max_grad_norm=1e3)
    assert 0 < float(sums.grad_norm) < 1e3
    assert float(sums.clipped_steps) == 0
    unclipped, _ = step(LanguageModel(VOCAB, 6, 2, init_scale=0.6, rnn_mode="basic"), max_grad_norm=1e9)
    for change, wanted in zip(changes, unclipped):
        np.testing.assert_array_equal(change, wanted)


def test_repeats_apart_is_what_tensorflows_clipping_measures(model):
    inputs, targets = window()
    with tf.GradientTape() as tape:
        losses, _ = model.losses_of(inputs, targets, model.initial_state(BATCH))
        cost = tf.reduce_sum(losses) / BATCH
    gradients = tape.gradient(cost, [variable.value for variable in model.trainable_variables])
    assert isinstance(gradients[0], tf.IndexedSlices)
    wanted = tf.clip_by_global_norm(gradients, 1.0)[1]
    apart, summed = (float(step(model, 1e9, rate=0, norm_of_repeats=how)[1].grad_norm) for how in ("apart", "summed"))
    assert apart == pytest.approx(float(wanted), rel=1e-5)
    assert summed != pytest.approx(apart, rel=1e-4)


def test_sum_repeats_by_hand():
    slices = tf.IndexedSlices(tf.constant([[1.0, 2], [10, 20], [100, 200], [5, 5]]), tf.constant([7, 2, 7, 4]))
    summed = sum_repeats(slices)
    np.testing.assert_array_equal(summed.indices, [7, 2, 7, 4])
    np.testing.assert_array_equal(summed.values, [[101, 202], [10, 20], [0, 0], [5, 5]])


def test_the_state_is_carried_from_window_to_window(model):
    inputs, targets = window()
    train_step = make_train_step(model, 5.0)
    state, _ = train_step(inputs, targets, model.initial_state(BATCH), Sums.zero(), np.float32(0), SEED)
    _, wanted = model.features(inputs, model.initial_state(BATCH))
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, wanted)


def test_a_changing_learning_rate_step_and_state_trace_nothing_again(model):
    train_step, state, sums = make_train_step(model, 5.0), model.initial_state(BATCH), Sums.zero()
    for count in range(4):
        rate, seed = np.float32(1 / (1 + count)), np.array([0, count], np.int32)
        state, sums = train_step(*window(), state, sums, rate, seed)
    assert train_step.experimental_get_tracing_count() == 1
    assert float(sums.steps) == 4


def test_training_learns_a_window_by_heart():
    inputs, targets = window()
    inputs[:, 0] = np.arange(BATCH)  # a different first word for each row, or the first target could not be known
    model = LanguageModel(VOCAB, 16, 1, init_scale=0.1)
    train_step, sums = make_train_step(model, 5.0), None
    for _ in range(400):
        _, sums = train_step(inputs, targets, model.initial_state(BATCH), Sums.zero(), np.float32(0.5), SEED)
    assert float(sums.loss) / float(sums.tokens) < 0.05  # from log 11 = 2.4
