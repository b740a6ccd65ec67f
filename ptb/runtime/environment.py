"""Import TensorFlow for the first time in a process, without its startup messages.

Import this module before TensorFlow or Keras; importing it is all there is to do. `ptb/__init__.py` has set the environment
variables that it depends on.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

if "keras" in sys.modules and sys.modules["keras"].config.backend() != "tensorflow":
    raise ImportError("ptb: Keras has been imported with another backend than TensorFlow; import ptb before it")


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Discard what native code writes to standard error, unless standard error is closed."""
    try:
        saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:
        yield
        return
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


# TensorFlow writes some ten lines about CUDA and processor features when it starts and when it first looks for a GPU. No log
# level silences them, and the commands promise one line on standard error per error. A lower log level shows them.
with _without_stderr() if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3" else contextlib.nullcontext():
    import tensorflow

    tensorflow.config.list_physical_devices()
