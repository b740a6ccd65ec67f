"""A profile of a few training steps, for TensorBoard's profile plugin (`pip install tensorboard-plugin-profile`)."""

import itertools

import tensorflow as tf


def profiled(step, folder, first=10, count=10):
    """Returns `step` with `count` of its calls recorded below `folder`, from number `first` on: none that still traces."""
    calls = itertools.count()

    def profiled_step(*arguments):
        call = next(calls)
        if call == first:
            tf.profiler.experimental.start(str(folder))
        results = step(*arguments)
        if call == first + count - 1:
            tf.nest.map_structure(lambda tensor: tensor.numpy(), results)  # the device may be behind
            tf.profiler.experimental.stop()
        return results

    return profiled_step
