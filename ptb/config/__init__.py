"""Configurations: frozen dataclasses that check themselves, overrides by name, and their JSON. Imports no TensorFlow.

    SMALL = Config(model=Model(layers=(200, 200)), optimizer=SGD(learning_rate=1.0), schedule=StepDecay(full_rate_epochs=4))
    override(SMALL, {"learning_rate": 0.5, "model.layers": (512, 512)})

A `Config` holds everything that decides what a run learns, except text, seed and precision.
"""

from ptb.config.fields import (
    AVERAGES,
    CELLS,
    CELLS_WITH_FORGET_GATE,
    CLIPS,
    INITIALIZERS,
    KINDS,
    LEVELS,
    PROJECTIONS,
    REDUCTIONS,
    SGD,
    Adam,
    Config,
    Cosine,
    Data,
    Dropout,
    Loss,
    Model,
    OneCycle,
    Optimizer,
    Plateau,
    RMSprop,
    Schedule,
    StepDecay,
    Stopping,
)
from ptb.config.overrides import FORMER_NAMES, differences, flatten, override, resolve
from ptb.config.records import from_json, non_defaults, to_json, upgrade
from ptb.config.values import ConfigError, value_text
