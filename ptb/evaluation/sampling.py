"""Sample text from a model word by word: the distribution of the next word, how it is narrowed, and draws from it."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from ptb.data.tokens import EOS, join_tokens
from ptb.data.vocabulary import Vocabulary
from ptb.evaluation.score import state_signature

SAMPLE_LENGTH = 100  # tokens


class NotFiniteError(Exception):
    """The scores of a model are NaN or infinite: training diverged."""


def make_next_step(model) -> Callable:
    """Return the compiled `next_step(token, state) -> (logits [vocab], state)` for one text, one token at a time."""
    token, state = tf.TensorSpec([], tf.int32), state_signature(model, 1)

    # One XLA program for all small operations of a step takes a third of the time.
    @tf.function(autograph=False, jit_compile=model.can_use_xla, input_signature=[token, state])
    def next_step(token, state):
        logits, state = model(tf.reshape(token, [1, 1]), state)
        return logits[0, 0], state

    return next_step


def make_read_step(model, jit_compile: bool = False) -> Callable:
    """Return the compiled `read_step(ids [1, num_steps], state) -> state` for a text that is only read.

    With `jit_compile` XLA makes one program of it, twice as fast, compiled once per length of a window.
    """
    ids, state = tf.TensorSpec([1, None], tf.int32), state_signature(model, 1)

    @tf.function(autograph=False, jit_compile=jit_compile and model.can_use_xla, input_signature=[ids, state])
    def read_step(ids, state):
        return model.outputs(ids, state)[1]

    return read_step


def distribution(
    logits, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0, excluded: Sequence[int] = ()
) -> np.ndarray:
    """Return the probabilities `[vocab]`, float64, to draw the next word with.

    They are softmax(logits / temperature) without, in this order: the ids `excluded`; all but the `top_k` most likely words;
    all but the nucleus, the fewest most likely words that make up `top_p` of what is left (Holtzman et al. 2020, "The Curious
    Case of Neural Text Degeneration", section 3.1). Of equally likely words the lower id comes first, so `top_k=1` is the
    argmax.
    Raises NotFiniteError if a logit is not finite.
    """
    logits = np.array(logits, np.float64)
    if not np.isfinite(logits).all():
        raise NotFiniteError("the model's scores of the next word are not finite")
    logits[list(excluded)] = -np.inf
    with np.errstate(over="ignore"):  # at a temperature near zero
        p = np.exp((logits - logits.max()) / temperature)
    if top_k is not None or top_p < 1:
        likeliest = np.sort(p)[::-1][:top_k]
        count = 1 + np.count_nonzero(np.cumsum(likeliest)[:-1] < top_p * likeliest.sum())
        last = likeliest[count - 1]
        surplus = np.flatnonzero(p == last)[count - np.count_nonzero(p > last) :]
        p[p < last] = p[surplus] = 0
    return p / p.sum()


def generate(
    next_step: Callable, token: int, state, length: int, seed: Sequence[int], distribution: Callable = distribution
) -> Iterator[int]:
    """Yield the ids of `length` words that follow `token`; `state` is the state before `token`.

    Each word is drawn from `distribution(logits)`. `seed` is a tuple of non-negative integers. The draw at a position depends
    on the seed and the position alone, so there is no generator whose state must be saved.
    """
    for position in range(length):
        logits, state = next_step(token, state)
        p = distribution(logits.numpy())
        token = int(np.random.default_rng((*seed, position)).choice(p.size, p=p))
        yield token


def sample_text(next_step: Callable, model, vocabulary: Vocabulary, level: str, seed: int, length: int = SAMPLE_LENGTH) -> str:
    """Return a text of `length` tokens that the model writes after an `<eos>`; the error in brackets if it is not finite."""
    try:
        ids = list(generate(next_step, vocabulary.ids[EOS], model.initial_state(1), length, (seed,)))
    except NotFiniteError as error:
        return f"({error})"
    return "".join(join_tokens((vocabulary.words[token] for token in ids), level))


def until_sentence(ids: Iterable[int], eos: int, count: int | None) -> Iterator[int]:
    """Yield ids up to the `count`-th `eos`; all of them if `count` is None."""
    ends = 0
    for token in ids:
        yield token
        ends += token == eos
        if ends == count:
            return
