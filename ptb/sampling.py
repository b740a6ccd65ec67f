"""Text out of a model, word by word: the distribution of the next word, narrowed as one likes, and draws from it."""

import numpy as np
import tensorflow as tf


class NotFiniteError(Exception):
    """A model that has gone astray: its logits are no numbers."""


def make_next_step(model):
    """Returns the compiled `next_step(token, state) -> (logits [vocab], state)` for one text, read one token at a time."""
    token = tf.TensorSpec([], tf.int32)
    state = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), model.initial_state(1))

    # One program for all the small operations of a step, which XLA makes, takes a third of the time.
    @tf.function(autograph=False, jit_compile=model.can_be_compiled, input_signature=[token, state])
    def next_step(token, state):
        logits, state = model(tf.reshape(token, [1, 1]), state)
        return logits[0, 0], state

    return next_step


def distribution(logits, temperature=1.0, top_k=None, top_p=1.0, excluded=()):
    """Returns the probabilities `[vocab]`, float64, to draw the next word with.

    They are those of softmax(logits / temperature), less whatever is left out, one thing after the other: the ids `excluded`;
    all but the `top_k` most likely words; all but the nucleus, the fewest most likely words that make up `top_p` of what the
    former have left (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1). Of equally likely
    words the one with the lower id comes first, so that `top_k=1` is the argmax. NotFiniteError for logits that are no numbers.
    """
    logits = np.array(logits, np.float64)
    if not np.isfinite(logits).all():
        raise NotFiniteError("the model's scores of the next word are not finite")
    logits[list(excluded)] = -np.inf
    with np.errstate(over="ignore"):  # of a temperature next to none
        p = np.exp((logits - logits.max()) / temperature)
    if top_k is not None or top_p < 1:
        likeliest = np.sort(p)[::-1][:top_k]
        count = 1 + np.count_nonzero(np.cumsum(likeliest)[:-1] < top_p * likeliest.sum())
        last = likeliest[count - 1]
        surplus = np.flatnonzero(p == last)[count - np.count_nonzero(p > last) :]
        p[p < last] = p[surplus] = 0
    return p / p.sum()


def generate(next_step, token, state, length, seed, distribution=distribution):
    """Yields the ids of `length` words that follow `token`; `state` is that before it.

    Each is drawn from `distribution(logits)`. `seed` is a tuple of non-negative integers; the draw at a position is a function
    of these and of the position, so that there is no generator to carry along.
    """
    for position in range(length):
        logits, state = next_step(token, state)
        p = distribution(logits.numpy())
        token = int(np.random.default_rng((*seed, position)).choice(p.size, p=p))
        yield token
