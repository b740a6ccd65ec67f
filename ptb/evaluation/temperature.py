"""Temperature scaling (Guo et al. 2017): one factor for all logits, chosen on the validation text after the training.

A network that overfits is too sure of its predictions. A factor below 1 makes it less sure; the ranks of the words stay.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ptb.evaluation.score import Score, score_windows, state_signature

DIGITS, LEAST = 2, 0.01  # of the factor: the loss is flat around the best one
ROWS = 512  # predictions at once, so that the step needs less memory than a training step


class LossDerivatives(NamedTuple):
    """Sums over the predictions of a text, in nats: the loss, and its derivatives by a further factor where that is 1."""

    loss: float
    slope: float
    curvature: float

    @classmethod
    def of(cls, results: np.ndarray) -> "LossDerivatives":
        """Return the sums of the results of `score_tempered`."""
        return cls(*results.sum((0, 1), dtype=np.float64).tolist())


class Scaling(NamedTuple):
    """The factor of the logits, and the score of the text with it and without it."""

    inverse_temperature: float
    score: Score
    unscaled: Score


def make_tempered_step(model) -> Callable:
    """Return the compiled `step(inputs, targets, state, inverse_temperature) -> (results [batch, num_steps, 3], state)`.

    The logits times `inverse_temperature` are z, and p = softmax(z). The results are the loss −log p[target] in nats, and its
    first and second derivative by a further factor of z, where that is 1: Σ p z − z[target] and Σ p (z − Σ p z)².
    """
    ids, state = tf.TensorSpec([None, None], tf.int32), state_signature(model, None)

    @tf.function(autograph=False, input_signature=[ids, ids, state, tf.TensorSpec([], model.dtype)])
    def step(inputs, targets, state, inverse_temperature):
        logits, state = model(inputs, state)
        logits *= inverse_temperature
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        p = tf.nn.softmax(logits)
        mean = tf.reduce_sum(p * logits, -1)
        slopes = mean - tf.gather(logits, targets, batch_dims=2)
        curvatures = tf.reduce_sum(p * tf.square(logits - mean[..., tf.newaxis]), -1)
        return tf.stack([losses, slopes, curvatures], -1), state

    return step


def score_tempered(step: Callable, model, windows: Iterable, inverse_temperature: float) -> np.ndarray:
    """Return the results of `make_tempered_step`'s `step` for all targets of a text, `[batch, total steps, 3]`."""
    factor = tf.constant(inverse_temperature, model.dtype)
    return score_windows(lambda *window: step(*window, factor), model, _narrow(windows))


def _narrow(windows):
    """Yield the windows in pieces of at most ROWS predictions, or of one time step."""
    for inputs, targets in windows:
        width = max(1, ROWS // len(inputs))
        for start in range(0, inputs.shape[1], width):
            yield inputs[:, start : start + width], targets[:, start : start + width]


def best_inverse_temperature(totals: Callable[[float], LossDerivatives]) -> tuple[float, dict[float, float]]:
    """Return the factor of the logits for the lowest loss of a text, rounded to hundredths, and the loss with each one tried.

    `totals(factor)` returns the `LossDerivatives` of the text with that factor. The loss is convex in it, so Newton's method
    gets there in a few passes over the text, of which the first has the factor 1. Without finite totals it ends there.
    """
    factor, losses = 1.0, {}
    while factor not in losses:
        losses[factor], slope, curvature = totals(factor)
        if not (math.isfinite(losses[factor]) and math.isfinite(slope) and 0 < curvature < math.inf):
            break
        step = min(2.0, max(0.5, 1 - slope / curvature))
        factor = max(LEAST, round(factor * step, DIGITS))
    return min(losses, key=lambda factor: losses[factor]), losses


def scale_temperature(
    model, make_windows: Callable[[], Iterable], agree: Callable[[float], float] = lambda number: number
) -> Scaling:
    """Multiply the logits of a model by the best factor for a text: see `LanguageModel.scale_logits`.

    `make_windows` is called for each pass over the text. `agree` turns a number that each of several processes computed into
    one that all of them have, so that they choose the same factor after the same number of passes.
    """
    step, count = make_tempered_step(model), 0

    def totals(factor):
        nonlocal count
        results = score_tempered(step, model, make_windows(), factor)
        count = results[..., 0].size
        return LossDerivatives(*map(agree, LossDerivatives.of(results)))

    factor, losses = best_inverse_temperature(totals)
    model.scale_logits(factor)
    return Scaling(factor, Score(losses[factor], count), Score(losses[1.0], count))
