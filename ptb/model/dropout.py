"""Dropout whose masks follow from a seed and do not depend on the number of replicas."""

import tensorflow as tf

from ptb.runtime import replicas
from ptb.runtime.devices import on_host


def dropout(features, rate, seed, place):
    """Return features `[num_steps, batch, size]` with a new mask at each time step, scaled by 1 / (1 - rate).

    `seed` is int32 `[2]`; `place` numbers the places that need masks of their own in one step. Raises ValueError if the rate is
    above 0 and there is no seed.
    """
    if rate == 0:
        return features
    if seed is None:
        raise ValueError("dropout_seed: is needed in training if a dropout rate is above 0; give int32 [2]")
    with on_host():
        seed = tf.random.fold_in(seed, place)
    if replicas.num_replicas() == 1:
        return tf.nn.experimental.stateless_dropout(features, rate, seed)
    # Each replica draws the masks of the whole batch, so that they do not depend on how many replicas there are.
    num_steps, rows, size = features.shape
    ones = tf.ones([num_steps, replicas.num_replicas() * rows, size], features.dtype)
    masks = tf.nn.experimental.stateless_dropout(ones, rate, seed)
    return features * replicas.local_shard(masks, axis=1)
