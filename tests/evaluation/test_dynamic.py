"""Dynamic evaluation against a plain reference, with statistics and updates written out."""

import numpy as np
import pytest
import tensorflow as tf

from ptb.config import Model
from ptb.evaluation.dynamic import STATISTICS_BATCH, STATISTICS_STEPS, DynamicSettings, gradient_statistics, make_dynamic_score
from ptb.model.language_model import LanguageModel

VOCAB = 12
SETTINGS = DynamicSettings(learning_rate=0.02, decay=0.3, epsilon=1e-3, num_steps=5)
rng = np.random.default_rng(0)
TRAIN, TEXT = rng.integers(0, VOCAB, 1600).astype(np.int32), rng.integers(0, VOCAB, 14).astype(np.int32)


@pytest.fixture(scope="module", params=[{}, {"tied": True, "cell": "capped_lstm"}], ids=["", "tied"])
def model(request):
    return LanguageModel(VOCAB, Model(layers=(4,), init_scale=0.8, **request.param), dtype="float64")


@pytest.fixture(scope="module")
def statistics(model):
    return gradient_statistics(model, TRAIN)


def gradients_of(model, inputs, targets, state):
    """Return losses `[batch, steps]`, the dense gradients of their mean, the last layer's outputs, and the next state."""
    with tf.GradientTape() as tape:
        outputs, new_state = model.outputs(inputs, state)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, model.head.logits(outputs.features))
        mean = tf.reduce_mean(losses)
    gradients = tape.gradient(mean, [variable.value for variable in model.trainable_variables])
    return losses.numpy(), [tf.convert_to_tensor(g).numpy() for g in gradients], outputs.layers[-1].numpy(), new_state


def test_statistics_are_the_root_mean_squares_of_the_gradients_of_train(model, statistics):
    """At batch 100, in windows of 5 steps, of the mean loss."""
    length = len(TRAIN) // STATISTICS_BATCH
    streams = TRAIN[: STATISTICS_BATCH * length].reshape(STATISTICS_BATCH, length)
    state, squares, count = model.initial_state(STATISTICS_BATCH), 0, 0
    for start in range(0, length - STATISTICS_STEPS, STATISTICS_STEPS):
        stop = start + STATISTICS_STEPS
        _, gradients, _, state = gradients_of(model, streams[:, start:stop], streams[:, start + 1 : stop + 1], state)
        squares, count = [g**2 + (squares[i] if count else 0) for i, g in enumerate(gradients)], count + 1
    assert count == 3
    for got, total in zip(statistics, squares, strict=True):
        np.testing.assert_allclose(got, np.sqrt(total / count), rtol=1e-9, atol=1e-15)


def test_statistics_of_a_text_too_short_for_the_batch(model):
    """Of 22 tokens, as 3 streams of one window."""
    streams = TRAIN[:21].reshape(3, 7)
    gradients = gradients_of(model, streams[:, :5], streams[:, 1:6], model.initial_state(3))[1]
    for got, gradient in zip(gradient_statistics(model, TRAIN[:22]), gradients, strict=True):
        np.testing.assert_allclose(got, np.abs(gradient), rtol=1e-9, atol=1e-15)


def reference_score(model, statistics, ids, settings):
    """Return log probabilities and outputs, as dynamiceval.py of Krause et al. computes them."""
    trained = [variable.numpy() for variable in model.trainable_variables]
    mean = np.mean([statistic.mean() for statistic in statistics])
    state, losses, outputs = model.initial_state(1), [], []
    for start in range(0, len(ids) - 1, settings.num_steps):
        targets = ids[np.newaxis, start + 1 : start + 1 + settings.num_steps]
        inputs = ids[np.newaxis, start : start + targets.shape[1]]
        loss, gradients, raw, state = gradients_of(model, inputs, targets, state)
        losses.append(loss[0])
        outputs.append(raw[:, 0])
        for variable, start_value, statistic, gradient in zip(model.trainable_variables, trained, statistics, gradients):
            value, pull = variable.numpy(), np.minimum(statistic / mean, 1 / settings.decay)
            value = value + settings.decay * pull * (start_value - value)
            variable.assign(value - settings.learning_rate * gradient / (statistic + settings.epsilon))
    for variable, start_value in zip(model.trainable_variables, trained):
        variable.assign(start_value)
    return -np.concatenate(losses), np.concatenate(outputs)


@pytest.mark.parametrize("num_steps", [5, 7])
def test_scores_equal_those_of_the_reference_and_the_weights_are_restored(model, statistics, num_steps):
    """13 predictions: the last window is shorter."""
    before, settings = model.get_weights(), SETTINGS._replace(num_steps=num_steps)
    expected, expected_outputs = reference_score(model, statistics, TEXT, settings)
    score = make_dynamic_score(model, statistics)
    for _ in range(2):  # the second text starts from the trained weights again
        log_probabilities, features = score(TEXT, settings)
        np.testing.assert_allclose(log_probabilities, expected, rtol=1e-9)
        np.testing.assert_allclose(features, expected_outputs, rtol=1e-9)
        for weights, trained in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weights, trained)
    static = reference_score(model, statistics, TEXT, settings._replace(learning_rate=0.0))[0]
    np.testing.assert_allclose(expected[:num_steps], static[:num_steps], rtol=1e-12)  # learns after it
    assert np.abs(expected - static)[num_steps:].max() > 1e-2


def test_the_weights_are_restored_if_the_score_is_interrupted(model, statistics, monkeypatch):
    before = model.get_weights()
    score = make_dynamic_score(model, statistics)

    def interrupted(*_, **options):
        yield TEXT[np.newaxis, :5], TEXT[np.newaxis, 1:6]
        raise KeyboardInterrupt

    monkeypatch.setattr("ptb.evaluation.dynamic.windows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score(TEXT, SETTINGS)
    for weights, trained in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, trained)


def test_settings_for_more_tokens_per_update_have_rates_in_proportion():
    assert DynamicSettings(2e-5, 1e-3, 1e-5).scaled_to(20) == DynamicSettings(8e-5, 4e-3, 1e-5, 20)
