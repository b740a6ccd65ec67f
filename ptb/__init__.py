"""The library: recurrent language models, how they are trained and how they are scored.

It reads no command line, though its errors name the flags of train.py that are the cure.
"""

import contextlib
import os
import sys


@contextlib.contextmanager
def _quiet():
    """Keeps off standard error what native code writes to it, where there is one."""
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:
        yield
        return
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


os.environ["KERAS_BACKEND"] = "tensorflow"
if "keras" in sys.modules and sys.modules["keras"].config.backend() != "tensorflow":
    raise ImportError("ptb: Keras has been imported with another backend than TensorFlow; import ptb before it")
# TensorFlow leaves oneDNN's matrix products off on processors without AVX-512. A step of small is 1.4 times faster with them
# and one of medium 1.2 times (AMD EPYC 7003, two cores).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# TensorFlow reports at its start, and when it first looks for a GPU, on CUDA and processor flags: ten lines that no log level
# silences, on a stream where these commands promise one line for one error. Whoever sets a lower log level gets to see them.
wanted = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "3"
with contextlib.nullcontext() if wanted else _quiet():
    import tensorflow

    tensorflow.config.list_physical_devices()
