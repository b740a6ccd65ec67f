"""Scores a text under a model. Every prediction counts once; a perplexity is computed from sums, at the very end."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

LONG_TEXT = 3000  # tokens; for a shorter text XLA's compiler takes longer than its program saves


class Score(NamedTuple):
    """The total negative log-likelihood, in nats, of `tokens` predictions."""

    loss: float
    tokens: int

    @classmethod
    def of(cls, losses: np.ndarray) -> "Score":
        """Return the score of predictions with these losses in nats."""
        return cls(float(losses.sum(dtype=np.float64)), losses.size)

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss, self.tokens)

    @property
    def bits(self) -> float:
        """Bits per token."""
        return self.loss / self.tokens / math.log(2)


def perplexity(loss: float, tokens: float) -> float:
    """Return exp(loss / tokens) for a total loss in nats; infinity if that is too large for a float."""
    try:
        return math.exp(loss / tokens)
    except OverflowError:
        return math.inf


def make_eval_step(model, jit_compile: bool = False) -> Callable:
    """Return the compiled `eval_step(inputs, targets, state) -> (losses [batch, num_steps] in nats, state)`.

    It is traced once for windows of every shape. At batch 1 the recurrence is a thousand small operations per window: with
    `jit_compile` XLA makes one program of them, up to three times as fast, compiled once per shape. See `LONG_TEXT`.
    """
    return _compile(model, model.head.losses, jit_compile)


def make_rank_step(model, jit_compile: bool = False) -> Callable:
    """Return the compiled `rank_step(inputs, targets, state) -> (ranks [batch, num_steps], state)`.

    The rank of a target is one more than the number of words with a higher probability. `jit_compile`: see `make_eval_step`.
    """

    def ranks(features, targets):
        logits = model.head.logits(features)
        more_likely = logits > tf.gather(logits, targets, batch_dims=2)[..., tf.newaxis]
        return 1 + tf.reduce_sum(tf.cast(more_likely, tf.int64), -1)  # TensorFlow sums int32 on the host

    return _compile(model, ranks, jit_compile)


def make_confidence_step(model, jit_compile: bool = False) -> Callable:
    """Return the compiled `confidence_step(inputs, targets, state) -> (log p of the likeliest word, [batch, steps], state)`.

    `jit_compile`: see `make_eval_step`.
    """

    def confidences(features, targets):
        return tf.reduce_max(tf.nn.log_softmax(model.head.logits(features)), -1)

    return _compile(model, confidences, jit_compile)


def state_signature(model, batch_size: int | None):
    """Return the TensorSpecs of a recurrent state with that batch size; None leaves it open."""
    return tf.nest.map_structure(
        lambda tensor: tf.TensorSpec([batch_size, *tensor.shape[1:]], tensor.dtype), model.initial_state(1)
    )


def _compile(model, score_features, jit_compile):
    """Return the step that scores the model's features. XLA does not get the product of the softmax: it is slower there."""
    ids, state = tf.TensorSpec([None, None], tf.int32), state_signature(model, None)

    @tf.function(autograph=False, jit_compile=jit_compile and model.can_use_xla, input_signature=[ids, state])
    def features(inputs, state):
        outputs, state = model.outputs(inputs, state)
        return outputs.features, state

    @tf.function(autograph=False, input_signature=[ids, ids, state])
    def step(inputs, targets, state):
        last, state = features(inputs, state)
        return score_features(last, targets), state

    return step


def score_windows(step: Callable, model, windows: Iterable) -> np.ndarray:
    """Run a step over all windows and carry the state on. Return its results per target, `[batch, total steps]`."""
    state, results = None, []
    for inputs, targets in windows:
        state = state or model.initial_state(len(inputs))
        result, state = step(inputs, targets, state)
        results.append(result)
    return np.concatenate(results, axis=1)


def score(eval_step: Callable, model, windows: Iterable) -> Score:
    """Return the `Score` of a text that is cut into `windows`."""
    return Score.of(score_windows(eval_step, model, windows))


def make_sampled_dropout_step(model) -> Callable:
    """Return the compiled `step(inputs, targets, state, seed) -> (losses, state)` with the dropout of training (Gal 2016).

    It is for one text: masks need the number of rows.
    """
    ids, state = tf.TensorSpec([1, None], tf.int32), state_signature(model, 1)

    @tf.function(autograph=False, input_signature=[ids, ids, state, tf.TensorSpec([2], tf.int32)])
    def step(inputs, targets, state, seed):
        outputs, state = model.outputs(inputs, state, training=True, dropout_seed=seed)
        return model.head.losses(outputs.features, targets), state

    return step
