"""Scores of a text under a model: every prediction counts once, and a perplexity is derived from sums at the very end."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Score(NamedTuple):
    """The total negative log-likelihood in nats of `tokens` predictions."""

    loss: float
    tokens: int

    @property
    def perplexity(self):
        return perplexity(self.loss, self.tokens)

    @property
    def bits(self):
        """Bits a token."""
        return self.loss / self.tokens / math.log(2)


def perplexity(loss, tokens):
    """Returns exp(loss / tokens) for a total loss in nats; infinite where that is more than a float can hold."""
    try:
        return math.exp(loss / tokens)
    except OverflowError:
        return math.inf


def make_eval_step(model, jit_compile=False):
    """Returns the compiled `eval_step(inputs, targets, state) -> (losses [batch, num_steps] in nats, state)`.

    Traced once for windows of every shape. At batch 1 the recurrence is a thousand small operations a window: with
    `jit_compile` XLA makes one program of them, three times as fast, once for each shape that comes.
    """
    return _compile(model, model.cross_entropy, jit_compile)


def make_rank_step(model, jit_compile=False):
    """Returns the compiled `rank_step(inputs, targets, state) -> (ranks [batch, num_steps], state)`.

    A target's rank is one more than the number of words that the model holds more likely. `jit_compile` is as above.
    """

    def ranks_of(features, targets):
        logits = model.logits_of(features)
        more_likely = logits > tf.gather(logits, targets, batch_dims=2)[..., tf.newaxis]
        return 1 + tf.reduce_sum(tf.cast(more_likely, tf.int64), -1)  # of int32 it would be a sum on the host

    return _compile(model, ranks_of, jit_compile)


def _compile(model, score_of, jit_compile):
    """Returns the step that scores the model's features; XLA gets no part in the softmax's product, where it is slower."""
    ids = tf.TensorSpec([None, None], tf.int32)
    state = tf.nest.map_structure(lambda tensor: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype), model.initial_state(1))

    @tf.function(autograph=False, jit_compile=jit_compile and model.can_be_compiled, input_signature=[ids, state])
    def features_of(inputs, state):
        return model.features(inputs, state)

    @tf.function(autograph=False, input_signature=[ids, ids, state])
    def step(inputs, targets, state):
        features, state = features_of(inputs, state)
        return score_of(features, targets), state

    return step


def carry_through(step, model, windows):
    """Runs a step over all `windows`, the state carried on. Returns what it gives for each target, `[batch, total steps]`."""
    state, results = None, []
    for inputs, targets in windows:
        state = state or model.initial_state(len(inputs))
        result, state = step(inputs, targets, state)
        results.append(result)
    return np.concatenate(results, axis=1)


def score(eval_step, model, windows):
    """Returns the `Score` of a text that has been cut into `windows`."""
    losses = carry_through(eval_step, model, windows)
    return Score(float(losses.sum(dtype=np.float64)), losses.size)
