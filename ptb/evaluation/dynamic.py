"""Dynamic evaluation: the model keeps learning from the words that it has already predicted (Krause et al. 2018).

Its numbers are not comparable with static ones: it adapts to the text that it is scored on.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ptb.data.windows import validation_windows, windows

STATISTICS_BATCH, STATISTICS_STEPS = 100, 5  # of the windows of the training text (dynamiceval.py)


class DynamicSettings(NamedTuple):
    """The rates of dynamic evaluation. The original defaults fit AWD-LSTM alone: tune them on the validation text."""

    learning_rate: float = 5e-5
    decay: float = 2e-3  # λ: how fast weights return to the trained ones
    epsilon: float = 2e-5
    num_steps: int = 5  # tokens per update

    def scaled_to(self, num_steps: int) -> "DynamicSettings":
        """Return settings for another number of tokens per update, with both rates in proportion."""
        share = num_steps / self.num_steps
        return self._replace(learning_rate=self.learning_rate * share, decay=self.decay * share, num_steps=num_steps)


def gradient_statistics(model, train_ids: np.ndarray) -> list[np.ndarray]:
    """Return √(mean g²) of each trained variable over the windows of the training text, g the gradient of the mean loss."""
    variables = [variable.value for variable in model.trainable_variables]
    sums = [tf.Variable(tf.zeros_like(variable)) for variable in variables]

    @tf.function(autograph=False, reduce_retracing=True)
    def add_squares(inputs, targets, state):
        with tf.GradientTape() as tape:
            outputs, state = model.outputs(inputs, state)
            loss = tf.reduce_mean(model.head.losses(outputs.features, targets))
        for total, gradient in zip(sums, tape.gradient(loss, variables)):
            total.assign_add(tf.square(tf.convert_to_tensor(gradient)))
        return state

    train_windows = validation_windows(train_ids, STATISTICS_BATCH, STATISTICS_STEPS)  # any text has room
    state = model.initial_state(len(train_windows.streams))
    for inputs, targets in train_windows:
        state = add_squares(inputs, targets, state)
    return [np.sqrt(total.numpy() / len(train_windows)) for total in sums]


def make_dynamic_score(model, statistics: Sequence[np.ndarray]) -> Callable:
    """Return `score(ids, settings) -> (log probabilities [N - 1], features [N - 1, size])` of the tokens but the first.

    `statistics` are those of `gradient_statistics`. After every `num_steps` tokens each weight θ changes by

        λ d (θ₀ - θ) - η g / (s + ε)        d = min(s / s̄, 1 / λ)

    s is its statistic, s̄ the mean over the variables of their mean statistics, θ₀ the trained weight, g the gradient of the
    mean loss of these tokens. The features are the outputs of the last layer, for a cache. The model has its trained weights
    again at the end.
    """
    variables = [variable.value for variable in model.trainable_variables]
    mean = np.mean([statistic.mean() for statistic in statistics])
    scales = [tf.constant(statistic) for statistic in statistics]
    start = [tf.constant(variable.numpy()) for variable in variables]

    @tf.function(autograph=False, jit_compile=True)  # one pass over the weights instead of eight
    def updated(variable, scale, trained, gradient, learning_rate, decay, epsilon):
        pull = decay * tf.minimum(scale / mean, 1 / decay) * (trained - variable)
        return variable + pull - learning_rate * gradient / (scale + epsilon)

    @tf.function(autograph=False)
    def step(inputs, targets, state, learning_rate, decay, epsilon):
        with tf.GradientTape() as tape:
            outputs, state = model.outputs(inputs, state)
            losses = model.head.losses(outputs.features, targets)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, variables)
        for variable, scale, trained, gradient in zip(variables, scales, start, gradients):
            gradient = tf.convert_to_tensor(gradient)
            variable.assign(updated(variable, scale, trained, gradient, learning_rate, decay, epsilon))
        return losses[0], outputs.raw[:, 0], state

    def score(ids: np.ndarray, settings: DynamicSettings) -> tuple[np.ndarray, np.ndarray]:
        rates = [tf.constant(rate, model.dtype) for rate in settings[:3]]
        state, losses, features = model.initial_state(1), [], []
        try:
            for inputs, targets in windows(ids, 1, settings.num_steps, drop_remainder=False):
                loss, raw, state = step(inputs, targets, state, *rates)
                losses.append(loss.numpy())
                features.append(raw.numpy())
        finally:
            for variable, trained in zip(variables, start):
                variable.assign(trained)
        return -np.concatenate(losses), np.concatenate(features)

    return score
