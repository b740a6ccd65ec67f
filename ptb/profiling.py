"""A profile of a few training steps, for TensorBoard's profile plugin (`pip install tensorboard-plugin-profile`)."""

import contextlib
import itertools
import logging

import tensorflow as tf

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def profiled(step, folder, first=10, count=10):
    """Gives `step` with `count` of its calls recorded below `folder`, from number `first` on: none that still traces."""
    calls, recording = itertools.count(), False

    def profiled_step(*arguments):
        nonlocal recording
        call = next(calls)
        if call == first:
            tf.profiler.experimental.start(str(folder))
            recording = True
        results = step(*arguments)
        if call == first + count - 1:
            tf.nest.map_structure(lambda tensor: tensor.numpy(), results)  # the device may be behind
            tf.profiler.experimental.stop()
            recording = False
        return results

    try:
        yield profiled_step
    finally:
        if recording:
            tf.profiler.experimental.stop()
        elif next(calls) <= first:
            logger.warning("--profile: nothing was recorded, which begins after %d steps", first)
