"""Dropout masks that follow from a seed and do not depend on the number of replicas."""

import tensorflow as tf

from ptb.runtime import replicas
from ptb.runtime.devices import on_host


def dropout(features, rate, seed, place, locked=False):
    """Return features `[num_steps, batch, size]` with elements dropped, and the others scaled by 1 / (1 - rate).

    The mask is new at each time step, or if `locked` the same at all of them (Gal & Ghahramani 2016; Merity et al. 2018).
    `seed` is int32 `[2]`; `place` numbers the places that need masks of their own in one step. Raises ValueError if the rate is
    above 0 and there is no seed.
    """
    if rate == 0:
        return features
    if replicas.num_replicas() == 1 and not locked:
        return tf.nn.experimental.stateless_dropout(features, rate, _seed_of(seed, place))
    num_steps, rows, size = features.shape
    if num_steps is None or rows is None:
        num_steps, rows = tf.unstack(tf.shape(features)[:2])
    return features * row_mask([1 if locked else num_steps, rows, size], rate, seed, place, features.dtype)


def row_mask(shape, rate, seed, place, dtype):
    """Return this replica's rows of a mask for `shape`, `[num_steps, batch, size]`: zeros and 1 / (1 - rate).

    Each replica draws the mask of the whole batch, so that it does not depend on how many replicas there are.
    """
    num_steps, rows, size = shape
    count = replicas.num_replicas()
    whole = constant_mask([num_steps, count * rows, size], rate, seed, place, dtype)
    return replicas.local_shard(whole, axis=1)


def constant_mask(shape, rate, seed, place, dtype):
    """Return a mask that is the same on all replicas: zeros and 1 / (1 - rate)."""
    return tf.nn.experimental.stateless_dropout(tf.ones(shape, dtype), rate, _seed_of(seed, place))


def _seed_of(seed, place):
    if seed is None:
        raise ValueError("dropout_seed: is needed in training if a dropout rate is above 0; give int32 [2]")
    with on_host():
        return tf.random.fold_in(seed, place)
