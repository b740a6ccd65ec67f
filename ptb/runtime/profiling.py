"""Profile a few training steps for TensorBoard's profile plugin (`pip install tensorboard-plugin-profile`)."""

import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator

from ptb.runtime import environment  # noqa: F401 -- must run before TensorFlow is imported

# isort: split
import tensorflow as tf

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def profile_steps(step: Callable, folder: str | os.PathLike, first: int = 10, count: int = 10) -> Iterator[Callable]:
    """Yield `step` with `count` of its calls recorded in `folder`, starting at call number `first` (from 0).

    The default skips the calls that trace and compile. Logs a warning if fewer than `first` + 1 calls were made.
    """
    calls, recording = itertools.count(), False

    def profiled_step(*arguments):
        nonlocal recording
        call = next(calls)
        if call == first:
            tf.profiler.experimental.start(str(folder))
            recording = True
        results = step(*arguments)
        if call == first + count - 1:
            tf.nest.map_structure(lambda tensor: tensor.numpy(), results)  # wait: the device may still be computing
            tf.profiler.experimental.stop()
            recording = False
        return results

    try:
        yield profiled_step
    finally:
        if recording:
            tf.profiler.experimental.stop()
        elif next(calls) <= first:
            logger.warning("--profile: nothing was recorded, because recording starts after %d steps", first)
