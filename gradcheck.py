"""Holds the gradient of a configuration's objective against central differences, in float64.

    python gradcheck.py --model=small
    python gradcheck.py --model=gru --rnn_mode=basic

The model is the configuration's own, cell, kernel, dropout, objective and all, but for its sizes. Prints the largest relative
error for each variable; one over 1e-5 is a failure, exit code 1.
"""

import dataclasses
import signal

import numpy as np
from absl import flags

import commands
from configs import CONFIGS
from ptb import devices
from ptb.differences import relative_errors

FLAGS = flags.FLAGS

VOCAB_SIZE = 7
SIZES = {"hidden_size": 3, "batch_size": 2, "num_steps": 3}
REACH = 7  # of a gradient that reaches further back than num_steps
SAMPLES = 4  # of the vocabulary, where the softmax is estimated
LIMIT = 1e-5


def define_flags():
    flags.DEFINE_enum("model", "small", list(CONFIGS), "Which configuration to check: see configs.py.")
    flags.DEFINE_enum("rnn_mode", "auto", devices.RNN_MODES, "Which kernel takes the cell through time: see ptb/kernels.py.")


def main(_):
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever has read enough closes the pipe
    errors = check(CONFIGS[FLAGS.model], FLAGS.rnn_mode)
    for name, error in errors.items():
        print(f"{error:.1e}  {name}")
    wrong = [name for name, error in errors.items() if not error <= LIMIT]
    if wrong:
        print(f"FAILED: over {LIMIT:g} off: {', '.join(wrong)}")
    return 1 if wrong else 0


def check(config, rnn_mode="auto"):
    """Returns the largest relative error of the gradient in each variable, by name, for a small model of the configuration."""
    reach, samples = REACH if config.overlap else 0, SAMPLES if config.softmax_samples else 0
    config = dataclasses.replace(config, **SIZES, bptt_steps=reach, softmax_samples=samples)
    kernel = devices.choose_kernel(rnn_mode, devices.visible_gpus(), config.cell)
    model = config.make_model(VOCAB_SIZE, rnn_mode=kernel, dtype="float64")
    shape = (2, config.batch_size, config.num_steps + config.overlap)
    inputs, targets = np.random.default_rng(0).integers(0, VOCAB_SIZE, shape).astype(np.int32)
    return relative_errors(model, config.objective(), inputs, targets)


if __name__ == "__main__":
    commands.run(main, define_flags)
