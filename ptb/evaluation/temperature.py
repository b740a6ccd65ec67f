"""Temperature scaling (Guo et al. 2017): one factor for all logits, chosen on the validation text after the training.

A network that overfits is too sure of its predictions, and a factor below 1 makes it less sure; the order of words stays.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from ptb.evaluation.score import Score, score_windows, state_signature

DIGITS, LEAST = 2, 0.01  # of the factor: the loss is flat around the best one


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
    return score_windows(lambda *window: step(*window, factor), model, windows)


def best_inverse_temperature(
    score: Callable[[float], np.ndarray], report: Callable[[float, Score], None] = lambda factor, score: None
) -> tuple[float, Score]:
    """Return the factor of the logits, to two digits, with the lowest loss on a text, and the text's score with it.

    `score(factor)` returns what `score_tempered` does. The loss is convex in the factor, so Newton's method finds its minimum
    in a few passes over the text; `report` gets each of them.
    """
    factor, scores = 1.0, {}
    while factor not in scores:
        results = score(factor)
        scores[factor] = Score.of(results[..., 0])
        report(factor, scores[factor])
        slope, curvature = results[..., 1:].sum((0, 1), dtype="float64")
        if not (math.isfinite(slope) and curvature > 0):
            break
        step = min(2.0, max(0.5, 1 - slope / curvature))
        factor = max(LEAST, round(factor * step, DIGITS))
    best = min(scores, key=lambda factor: scores[factor].loss)
    return best, scores[best]


def scale_temperature(model, make_windows: Callable[[], Iterable]) -> tuple[float, Score]:
    """Multiply the logits of a model by the best factor on a text. Return the factor, and the text's score with it.

    `make_windows` is called for each pass over the text. See `LanguageModel.scale_logits`.
    """
    step = make_tempered_step(model)
    factor, score = best_inverse_temperature(lambda factor: score_tempered(step, model, make_windows(), factor))
    model.scale_logits(factor)
    return factor, score
