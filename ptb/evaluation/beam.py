"""Beam search: the likeliest continuations of a text, as far as a search through a few of them at a time finds them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ptb.evaluation.score import state_signature


class Continuation(NamedTuple):
    """The ids of a continuation and their total log probability in nats."""

    ids: tuple[int, ...]
    log_probability: float


def make_beam_step(model) -> Callable:
    """Return the compiled `step(tokens [rows], state) -> (log probabilities [rows, vocab], state)`, one token of each row."""

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.int32), state_signature(model, None)])
    def step(tokens, state):
        logits, state = model(tokens[:, tf.newaxis], state)
        return tf.nn.log_softmax(logits[:, 0]), state

    return step


def beam_search(
    step: Callable, token: int, state, width: int, length: int, is_last: Callable, excluded: Sequence[int] = ()
) -> list[Continuation]:
    """Return the `width` likeliest continuations of one text that the search finds, the best first.

    `state` is the one before `token`. A continuation ends if `is_last(ids)`, at the latest after `length` tokens. At each step
    the `width` best unfinished ones are kept. Log probabilities only fall, so the search ends when no unfinished one can
    overtake. The ids `excluded` are never written; the others keep their probabilities.
    """
    live, finished = [Continuation((), 0.0)], []
    tokens = np.array([token], np.int32)
    for _ in range(length):
        log_p, state = step(tokens, state)
        log_p = log_p.numpy().astype(np.float64)
        log_p[:, list(excluded)] = -np.inf
        totals = np.array([[continuation.log_probability] for continuation in live]) + log_p
        extended, rows = [], []
        for index in _largest(totals, 2 * width):  # of which at most half is lost to <eos>
            row, token = divmod(int(index), totals.shape[1])
            continuation = Continuation((*live[row].ids, token), float(totals[row, token]))
            if is_last(continuation.ids):
                finished.append(continuation)
            elif len(extended) < width:
                extended.append(continuation)
                rows.append(row)
        live = extended
        finished = sorted(finished, key=lambda continuation: -continuation.log_probability)[:width]
        if not live or (len(finished) == width and finished[-1].log_probability >= live[0].log_probability):
            break
        tokens = np.array([continuation.ids[-1] for continuation in live], np.int32)
        state = tf.nest.map_structure(lambda tensor, rows=rows: tf.gather(tensor, rows), state)
    return sorted(finished + live, key=lambda continuation: -continuation.log_probability)[:width]


def _largest(totals: np.ndarray, count: int) -> np.ndarray:
    """Return the flat indices of the largest finite values, the largest first; of equal ones the lower index comes first."""
    flat = totals.ravel()
    if count < flat.size:
        last = np.partition(flat, -count)[-count]
        candidates = np.flatnonzero(flat >= last)
    else:
        candidates = np.arange(flat.size)
    candidates = candidates[np.isfinite(flat[candidates])]
    return candidates[np.argsort(-flat[candidates], kind="stable")][:count]
