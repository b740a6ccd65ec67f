"""Fields of configurations: their ranges, types and defaults, and what does not go together."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from configs import SMALL
from helpers.processes import ROOT
from ptb.config import (
    KINDS,
    SGD,
    Adam,
    Config,
    ConfigError,
    Cosine,
    Data,
    Dropout,
    Loss,
    Model,
    OneCycle,
    Plateau,
    RMSprop,
    StepDecay,
    Stopping,
    to_json,
)

POSITIVE, NON_NEGATIVE = (0, -1, math.inf, math.nan), (-1, math.inf, math.nan)
COUNT, COUNT_OR_ZERO = (0, -1, 1.5, "3", True, None), (-1, 1.5, "3", True, None)
WRONG_VALUES = {
    Model: {
        "layers": ((), (200, 0), (200, -1), (1.5,), ("200",), 200, "200", None),
        "cell": ("LSTM", "", None, 1),
        "init_scale": (*NON_NEGATIVE, "0.1", None, True),
        "two_biases": (1, "true", None),
        "forget_bias": (math.inf, math.nan, "1"),
        "orthogonal_recurrence": (1, "true", None),
        "one_hot_input": (1, "true", None),
        "embedding_size": COUNT_OR_ZERO,
        "tied": (1, "true", None),
        "projection": ("Linear", True, None),
        "sum_layers": (1, "true", None),
        "initializers": ("normal", None),
        "mogrifier_rounds": COUNT_OR_ZERO,
        "mogrifier_rank": COUNT_OR_ZERO,
        "mixture": COUNT_OR_ZERO,
    },
    Dropout: dict.fromkeys(
        ("input", "hidden", "output", "projected", "state", "embedding", "weights"), (1, 1.5, -0.1, math.nan, "0.5", None)
    )
    | {"locked": (1, "true", None)},
    SGD: {
        "learning_rate": (*POSITIVE, "1", None),
        "clip_norm": (*POSITIVE, "5", None),
        "clip": ("value", None),
        "weight_decay": (*NON_NEGATIVE, "0.1"),
    },
    RMSprop: {
        "learning_rate": POSITIVE,
        "clip_norm": POSITIVE,
        "clip": ("value",),
        "rho": (1, -0.1, math.nan),
        "epsilon": NON_NEGATIVE,
    },
    Adam: {
        "learning_rate": POSITIVE,
        "clip_norm": POSITIVE,
        "clip": ("value",),
        "beta1": (1, -0.1, math.nan),
        "beta2": (1, -0.1, math.nan),
        "epsilon": NON_NEGATIVE,
    },
    StepDecay: {"full_rate_epochs": COUNT_OR_ZERO, "factor": (*POSITIVE, "0.5")},
    Plateau: {"factor": (0, -1, 1.5, math.nan, "0.5"), "patience_to_decay": COUNT},
    Cosine: {"warmup": (1, -0.1, math.nan), "final_factor": (1.5, -0.1, math.nan)},
    OneCycle: {"start_divisor": (0.5, math.inf, math.nan), "rise": (0, 0.6, math.nan), "final_factor": (1.5, -0.1)},
    Loss: {
        "reduction": ("average", None),
        "softmax_samples": COUNT_OR_ZERO,
        "softmax_l2": (*NON_NEGATIVE, "0.1"),
        "l2": NON_NEGATIVE,
        "projection_l2": NON_NEGATIVE,
        "ar": NON_NEGATIVE,
        "tar": NON_NEGATIVE,
    },
    Stopping: {
        "validate_every": COUNT_OR_ZERO,
        "patience": COUNT_OR_ZERO,
        "max_loss_ratio": (*NON_NEGATIVE, 0.5, 0.99, "3"),
        "keep_best": (1, "true", None),
    },
    Data: {
        "level": ("words", None),
        "lowercase": (1, "true", None),
        "min_count": COUNT_OR_ZERO,
        "vocab_size": (*COUNT_OR_ZERO, 1, 2),
        "train_fraction": (0, 1, -0.1, 0.95, math.nan),  # with valid_fraction 0.05 nothing is left for test
        "valid_fraction": (0, 1, -0.1, 0.1, math.nan),
        "partial_shuffle": (1, "true", None),
        "random_lengths": (1, "true", None),
    },
    Config: {
        "model": (Dropout(), None, "small"),
        "dropout": (0.5, Model()),
        "optimizer": (StepDecay(), None, "SGD"),
        "schedule": (SGD(), None),
        "averaging": ("asgd", None, True),
        "temperature_scaling": (1, "true", None),
        "loss": (Stopping(), None),
        "stopping": (Loss(), None),
        "data": (Loss(), "data"),
        "batch_size": COUNT,
        "num_steps": COUNT,
        "num_epochs": COUNT,
        "bptt_steps": (*COUNT_OR_ZERO, 1, 19, 20),  # num_steps is 20
        "budget_minutes": (*NON_NEGATIVE, "60"),
    },
}


@pytest.mark.parametrize("kind", WRONG_VALUES)
def test_every_field_rejects_values_out_of_its_range_or_type(kind):
    assert WRONG_VALUES[kind].keys() == {field.name for field in dataclasses.fields(kind)}
    for name, values in WRONG_VALUES[kind].items():
        for value in values:
            with pytest.raises(ConfigError, match=name) as caught:
                kind(**{name: value})
            assert "\n" not in str(caught.value)


BOUNDS = {
    Model: {"layers": (1,), "init_scale": 0, "forget_bias": -3.5},
    Dropout: {"input": 0.999, "hidden": 0, "output": 0},
    SGD: {"learning_rate": 1e-30, "clip_norm": 1e-30},
    RMSprop: {"rho": 0, "epsilon": 0},
    Adam: {"beta1": 0, "beta2": 0, "epsilon": 0},
    StepDecay: {"full_rate_epochs": 0, "factor": 1.5},
    Plateau: {"factor": 1, "patience_to_decay": 1},
    Cosine: {"warmup": 0, "final_factor": 1},
    OneCycle: {"start_divisor": 1, "rise": 0.5, "final_factor": 0},
    Loss: {"softmax_samples": 0, "softmax_l2": 0},
    Stopping: {"validate_every": 0, "patience": 0, "max_loss_ratio": 1},
    Data: {"train_fraction": 0.01, "valid_fraction": 0.98},
    Config: {"batch_size": 1, "num_steps": 1, "num_epochs": 1, "bptt_steps": 2},
}


@pytest.mark.parametrize("kind", BOUNDS)
def test_the_ends_of_the_ranges_are_allowed(kind):
    assert dataclasses.asdict(kind(**BOUNDS[kind])).items() >= BOUNDS[kind].items()


@pytest.mark.parametrize("cell", ["gru", "tanh_rnn", "sigmoid_rnn"])
def test_options_that_a_cell_does_not_have_are_rejected(cell):
    with pytest.raises(ConfigError, match="forget_bias"):
        Model(cell=cell, forget_bias=1)
    Model(cell="peephole_lstm", forget_bias=1)
    Model(cell="tanh_rnn", two_biases=True)
    with pytest.raises(ConfigError, match="two_biases"):
        Model(cell="gru", two_biases=True)


@pytest.mark.parametrize(
    ("part", "fields", "name"),
    [
        (Model, {"tied": True, "layers": (3, 4)}, "tied"),
        (Model, {"tied": True, "one_hot_input": True}, "one_hot_input"),
        (Model, {"sum_layers": True, "layers": (3, 4)}, "sum_layers"),
        (Model, {"mixture": 2, "projection": "linear"}, "mixture"),
        (Model, {"mixture": 1}, "mixture"),
        (Config, {"model": Model(mixture=2), "loss": Loss(projection_l2=0.1)}, "projection_l2: .*leave it 0"),
        (Config, {"model": Model(mixture=2), "loss": Loss(softmax_samples=9)}, "softmax_samples"),
        (Config, {"loss": Loss(projection_l2=0.1)}, "projection_l2"),
        (Config, {"bptt_steps": 30, "data": Data(random_lengths=True)}, "random_lengths"),
        *[(Config, {"bptt_steps": 30, "dropout": Dropout(**{name: 0.1})}, name) for name in ("state", "embedding", "weights")],
        (Config, {"bptt_steps": 30, "dropout": Dropout(locked=True)}, "locked"),
        *[(Config, {"bptt_steps": 30, "loss": Loss(**{name: 1.0})}, name) for name in ("ar", "tar")],
        (Config, {"dropout": Dropout(projected=0.1)}, "projected"),
        (Config, {"dropout": Dropout(embedding=0.1), "model": Model(one_hot_input=True)}, "embedding"),
        (Config, {"num_steps": 1, "loss": Loss(tar=1.0)}, "tar"),
        (Config, {"averaging": "nt_asgd", "stopping": Stopping(patience=6)}, "patience"),
        (Config, {"budget_minutes": 60, "data": Data(random_lengths=True)}, "budget_minutes"),
    ],
)
def test_options_that_do_not_go_together_are_rejected(part, fields, name):
    with pytest.raises(ConfigError, match=name) as caught:
        part(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("every", [0, 10, 11, 20, 40, 60, 99])
def test_an_epoch_of_40_steps_is_validated_every_so_many_and_at_its_end(every):
    epochs = every or 1  # after which both periods have come together
    steps = {*range(40, 40 * epochs + 1, 40), *(range(every, 40 * epochs + 1, every) if every else ())}
    assert Stopping(validate_every=every).validations_per_epoch(40) == pytest.approx(len(steps) / epochs)


@pytest.mark.parametrize(
    ("fields", "input_size", "features_size"),
    [
        ({}, 3, 4),
        ({"embedding_size": 5}, 5, 4),
        ({"embedding_size": 4, "tied": True}, 4, 4),
        ({"projection": "linear", "tied": True}, 3, 3),
        ({"projection": "affine", "embedding_size": 5}, 5, 5),
        ({"mixture": 2, "embedding_size": 5, "tied": True}, 5, 5),
    ],
)
def test_sizes_of_the_embedding_and_of_what_the_softmax_reads(fields, input_size, features_size):
    model = Model(layers=(3, 4), **fields)
    assert (model.input_size, model.features_size) == (input_size, features_size)


@pytest.mark.parametrize(
    ("fields", "keeps"),
    [
        ({}, False),
        ({"averaging": "two_tailed"}, True),
        ({"averaging": "nt_asgd"}, True),
        ({"stopping": Stopping(patience=1)}, True),
        ({"stopping": Stopping(keep_best=True)}, True),
    ],
)
def test_the_best_weights_are_kept_with_patience_or_averages_or_if_asked_for(fields, keeps):
    assert Config(**fields).keeps_best == keeps


def test_values_get_the_type_of_their_field():
    """Equal configurations have equal JSON, however they were written."""
    model = Model(layers=[np.int64(3), 4], init_scale=np.float32(0.5), forget_bias=1)
    assert model == Model(layers=(3, 4), init_scale=0.5, forget_bias=1.0)
    assert [type(value) for value in (model.layers, model.layers[0], model.init_scale, model.forget_bias)] == [
        *(tuple, int, float, float)
    ]
    assert json.dumps(to_json(SGD(clip_norm=5))) == json.dumps(to_json(SGD(clip_norm=5.0)))
    assert hash(Config(model=model)) == hash(Config(model=model))


def test_configurations_are_frozen_and_take_keywords_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.batch_size = 5
    with pytest.raises(TypeError):
        SGD(1.0)


def test_dropout_everywhere_sets_all_three_rates():
    assert Dropout.everywhere(0.3) == Dropout(input=0.3, hidden=0.3, output=0.3)


@pytest.mark.parametrize(("num_steps", "bptt_steps", "burn_in"), [(20, 0, 0), (5, 10, 5), (5, 6, 1)])
def test_burn_in_is_what_bptt_steps_add_to_num_steps(num_steps, bptt_steps, burn_in):
    assert Config(num_steps=num_steps, bptt_steps=bptt_steps).burn_in == burn_in


def test_the_table_of_wrong_values_has_every_kind():
    assert {*KINDS.values()} <= WRONG_VALUES.keys() == BOUNDS.keys()


def test_the_module_imports_neither_tensorflow_nor_keras_nor_numpy():
    code = "import sys, ptb.config; print(*{'tensorflow', 'keras', 'numpy'} & {*sys.modules})"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == ""
