"""Configurations: checks of each field, overrides by name, JSON, and records of earlier versions."""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from configs import CHAR_RNN, CONFIGS, MEDIUM, SMALL
from helpers.processes import ROOT
from ptb.config import (
    FORMER_NAMES,
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
    differences,
    flatten,
    from_json,
    override,
    resolve,
    to_json,
    upgrade,
)

RECORDS = sorted((ROOT / "results").glob("*/config.json"))
NAMED = pytest.mark.parametrize("config", [named.config for named in CONFIGS.values()], ids=CONFIGS)
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
        (Config, {"model": Model(mixture=2), "loss": Loss(softmax_samples=9)}, "softmax_samples"),
        (Config, {"loss": Loss(projection_l2=0.1)}, "projection_l2"),
        (Config, {"bptt_steps": 30, "data": Data(random_lengths=True)}, "random_lengths"),
        (Config, {"num_steps": 1, "loss": Loss(tar=1.0)}, "tar"),
    ],
)
def test_options_that_do_not_go_together_are_rejected(part, fields, name):
    with pytest.raises(ConfigError, match=name) as caught:
        part(**fields)
    assert "\n" not in str(caught.value)


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


LESS_BETWEEN = Dropout(input=0.5, hidden=0.2, output=0.5)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, {}),
        ({"learning_rate": 0.5}, {"optimizer": SGD(learning_rate=0.5)}),
        ({"optimizer.learning_rate": 0.5}, {"optimizer": SGD(learning_rate=0.5)}),
        ({"learning_rate": 0.5, "optimizer.clip_norm": 3}, {"optimizer": SGD(learning_rate=0.5, clip_norm=3)}),
        ({"num_epochs": 3, "batch_size": 7}, {"num_epochs": 3, "batch_size": 7}),
        ({"layers": (3, 4)}, {"model": Model(layers=(3, 4))}),
        ({"model.layers": [3, 4], "cell": "gru"}, {"model": Model(layers=(3, 4), cell="gru")}),
        ({"dropout": 0.5}, {"dropout": Dropout.everywhere(0.5)}),
        ({"dropout": 0.5, "dropout.hidden": 0.2}, {"dropout": LESS_BETWEEN}),
        ({"dropout.hidden": 0.2, "dropout": 0.5}, {"dropout": LESS_BETWEEN}),
        ({"model": Model(layers=(9,))}, {"model": Model(layers=(9,))}),
        ({"optimizer": "RMSprop"}, {"optimizer": RMSprop(learning_rate=1.0, clip_norm=5)}),
        ({"optimizer": "rmsprop", "rho": 0.9}, {"optimizer": RMSprop(learning_rate=1, clip_norm=5, rho=0.9)}),
        ({"optimizer": RMSprop(rho=0.9)}, {"optimizer": RMSprop(rho=0.9)}),
        ({"schedule": "StepDecay"}, {}),
        ({"schedule": "plateau", "patience_to_decay": 3}, {"schedule": Plateau(factor=0.25, patience_to_decay=3)}),
        ({"schedule": "plateau", "factor": 0.1}, {"schedule": Plateau(factor=0.1)}),
        ({"optimizer": "adam", "beta1": 0}, {"optimizer": Adam(learning_rate=1.0, clip_norm=5, beta1=0.0)}),
        ({"averaging": "two_tailed", "keep_best": True}, {"averaging": "two_tailed", "stopping": Stopping(keep_best=True)}),
        ({"num_steps": 5, "bptt_steps": 10}, {"num_steps": 5, "bptt_steps": 10}),
    ],
)
def test_override_replaces_fields_by_path_or_last_name(changes, parts):
    before = to_json(SMALL)
    assert override(SMALL, changes) == dataclasses.replace(SMALL, **parts)
    assert to_json(SMALL) == before


def test_another_kind_of_optimizer_keeps_the_fields_that_all_have():
    sgd = override(CHAR_RNN, {"optimizer": "SGD"})
    assert sgd.optimizer == SGD(learning_rate=2e-3, clip_norm=5, clip="element")
    rmsprop = override(CHAR_RNN, {"epsilon": 0.5})
    assert override(rmsprop, {"optimizer": "Adam"}).optimizer.epsilon == Adam().epsilon
    assert override(rmsprop, {"optimizer": "RMSprop"}) == rmsprop


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("model.layers", "512,512", (512, 512)),
        ("layers", "650", (650,)),
        ("layers", "(3, 4)", (3, 4)),
        ("layers", "[3,4,]", (3, 4)),
        ("learning_rate", "0.5", 0.5),
        ("learning_rate", "2e-3", 0.002),
        ("factor", "1/1.15", 1 / 1.15),
        ("num_epochs", "39", 39),
        ("cell", "gru", "gru"),
        ("dropout", "0.5", Dropout.everywhere(0.5)),
        ("two_biases", "true", True),
        ("two_biases", "True", True),
        ("two_biases", "1", True),
        ("two_biases", "yes", True),
        ("two_biases", "false", False),
        ("two_biases", "0", False),
        ("two_biases", "NO", False),
    ],
)
def test_strings_are_read_as_the_type_of_the_field(name, text, value):
    assert override(SMALL, {name: text}) == override(SMALL, {name: value})
    config = override(SMALL, {name: text})
    assert config.dropout == value if name == "dropout" else flatten(config)[resolve(SMALL, name)] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_epochs", "1.5"),
        ("num_epochs", "three"),
        ("num_epochs", ""),
        ("num_epochs", 1.5),
        ("num_epochs", True),
        ("learning_rate", "fast"),
        ("learning_rate", "1/0"),
        ("learning_rate", "1/2/3"),
        ("learning_rate", "nan"),
        ("learning_rate", "-1"),
        ("learning_rate", None),
        ("two_biases", "maybe"),
        ("two_biases", 1),
        ("layers", "512;512"),
        ("layers", ""),
        ("layers", "0"),
        ("layers", 512),
        ("layers", {"a": 1}),
        ("cell", "transformer"),
        ("cell", 3),
        ("dropout", "much"),
        ("dropout", "1"),
        ("dropout", Model()),
        ("model", "512"),
        ("model", Dropout()),
        ("optimizer", "adagrad"),
        ("optimizer", "StepDecay"),
        ("optimizer", StepDecay()),
        ("schedule", "SGD"),
        ("loss", "mean"),
    ],
)
def test_values_that_do_not_fit_are_rejected_with_the_name_of_the_field(name, value):
    with pytest.raises(ConfigError, match=name) as caught:
        override(SMALL, {name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("learning_rat", "optimizer.learning_rate"),
        ("model.layer", "model.layers"),
        ("batchsize", "batch_size"),
        ("optimiser.clip_norm", "optimizer.clip_norm"),
        ("optimizer.layers", "model.layers"),
        ("epoch", "num_epochs"),
        ("model.learning_rate", "optimizer.learning_rate"),
        *((name, text.partition("=")[0]) for name, text in FORMER_NAMES.items()),
    ],
)
def test_a_wrong_name_gets_the_nearest_right_one(name, nearest):
    with pytest.raises(ConfigError) as caught:
        override(SMALL, {name: "1"})
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert nearest in message
    assert "\n" not in message


def test_what_is_written_for_a_former_name_is_right():
    for name, text in FORMER_NAMES.items():
        field, _, value = text.partition(" ")[0].partition("=")
        assert override(CHAR_RNN, {field: value}) != override(CHAR_RNN, {field: "0.01" if "." in value else "7"}), name


def test_a_name_that_is_like_no_other_lists_the_fields():
    with pytest.raises(ConfigError) as caught:
        resolve(SMALL, "qqqq")
    assert all(path in str(caught.value) for path in ("model.layers", "optimizer.learning_rate", "num_epochs"))


def test_a_last_name_that_two_fields_have_needs_the_whole_path():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class WithWarmup(Config):
        warmup: StepDecay = StepDecay()
        epsilon: float = 0.5

    config = WithWarmup(optimizer=RMSprop())
    with pytest.raises(ConfigError) as caught:
        resolve(config, "factor")
    assert "schedule.factor" in str(caught.value)
    assert "warmup.factor" in str(caught.value)
    assert resolve(config, "warmup.factor") == "warmup.factor"
    assert resolve(config, "epsilon") == "epsilon"  # a whole path, and the last name of optimizer.epsilon


@NAMED
def test_every_configuration_survives_json(config):
    record = json.loads(json.dumps(to_json(config)))
    assert from_json(record) == config
    assert to_json(from_json(record)) == record


@NAMED
def test_differences_are_overrides(config):
    for base in (SMALL, CHAR_RNN):
        assert override(base, differences(config, base)) == config
    assert differences(config, config) == {}


def test_the_table_of_wrong_values_has_every_kind():
    assert {*KINDS.values()} <= WRONG_VALUES.keys() == BOUNDS.keys()


def test_differences_have_the_fields_of_another_kind():
    config = override(SMALL, {"optimizer": RMSprop(rho=0.5)})
    assert differences(config, SMALL).items() >= {"optimizer": "RMSprop", "optimizer.rho": 0.5}.items()
    assert override(SMALL, differences(config, SMALL)) == config


def test_flatten_has_every_field_by_its_path():
    fields = flatten(CHAR_RNN)
    assert fields["model.layers"] == (128, 128)
    assert fields["optimizer"] == "RMSprop"
    assert fields["optimizer.rho"] == 0.95
    assert fields["schedule"] == "StepDecay"
    assert fields["stopping.max_loss_ratio"] == 3
    assert fields["num_epochs"] == 50
    assert differences(MEDIUM, SMALL) == {
        "model.layers": (650, 650),
        "model.init_scale": 0.05,
        "dropout.input": 0.5,
        "dropout.hidden": 0.5,
        "dropout.output": 0.5,
        "schedule.full_rate_epochs": 6,
        "schedule.factor": 1 / 1.2,
        "num_steps": 35,
        "num_epochs": 39,
    }


def test_a_field_that_is_absent_from_json_has_its_default():
    assert from_json({}) == Config()
    assert from_json({"model": {"cell": "gru"}, "num_epochs": 3}) == Config(model=Model(cell="gru"), num_epochs=3)


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (None, "config"),
        ([], "config"),
        ({"model": 3}, "model"),
        ({"model": {"depth": 3}}, "depth"),
        ({"learning_rate": 1.0}, "learning_rate"),
        ({"num_epochs": "13"}, "num_epochs"),
        ({"num_epochs": 0}, "num_epochs"),
        ({"model": {"layers": "200"}}, "layers"),
        ({"model": {"layers": [200, "200"]}}, "layers"),
        ({"model": {"two_biases": "true"}}, "two_biases"),
        ({"optimizer": {"kind": "Adagrad"}}, "optimizer"),
        ({"optimizer": {"kind": ["SGD"]}}, "optimizer"),
        ({"optimizer": {"learning_rate": 1.0}}, "optimizer"),
        ({"optimizer": {"kind": "StepDecay"}}, "optimizer"),
        ({"optimizer": {"kind": "SGD", "rho": 0.9}}, "rho"),
        ({"schedule": {"kind": "SGD"}}, "schedule"),
        ({"dropout": 0.5}, "dropout"),
    ],
)
def test_json_of_something_else_is_rejected_with_the_name_of_the_field(record, name):
    with pytest.raises(ConfigError, match=name) as caught:
        from_json(record)
    assert "\n" not in str(caught.value)


OLD = {  # a record of an earlier version, with only what every one of them had
    "model": "small",
    "seed": 3,
    "precision": "auto",
    "corpus": "c99d52bc14688496",
    "data_path": "../shared/ptb",
    "init_scale": 0.1,
    "learning_rate": 1.0,
    "max_grad_norm": 5,
    "num_layers": 2,
    "num_steps": 20,
    "hidden_size": 200,
    "full_rate_epochs": 4,
    "num_epochs": 13,
    "keep_prob": 1.0,
    "lr_decay": 0.5,
    "batch_size": 20,
}


def test_an_old_record_keeps_what_it_has_besides_the_configuration():
    record = upgrade(OLD)
    beside = ("model", "seed", "precision", "corpus", "data_path")
    assert record == {name: OLD[name] for name in beside} | {"config": to_json(SMALL), "overrides": {}}
    assert upgrade(record) == record
    assert "init_scale" in OLD  # the argument is unchanged


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({}, {}),
        ({"decay_convention": "tutorial"}, {}),
        ({"decay_convention": "lua"}, {"full_rate_epochs": 5}),
        ({"keep_prob": 0.35}, {"dropout": 0.65}),
        ({"keep_prob": 0.9}, {"dropout": 0.1}),
        ({"keep_prob": 0.75, "drop_input": False}, {"dropout.hidden": 0.25, "dropout.output": 0.25}),
        ({"keep_prob": 0.75, "drop_output": False}, {"dropout.hidden": 0.25, "dropout.input": 0.25}),
        ({"num_layers": 1, "hidden_size": 7, "keep_prob": 0.75}, {"layers": (7,), "dropout": 0.25}),
        ({"num_layers": 3}, {"layers": (200, 200, 200)}),
        ({"max_grad_norm": 1, "clip": "unit"}, {"clip_norm": 1, "clip": "unit"}),
        ({"optimizer": "sgd", "lr_decay": 0.25}, {"factor": 0.25}),
        ({"optimizer": "rmsprop", "learning_rate": 0.002}, {"optimizer": "RMSprop", "learning_rate": 0.002}),
        ({"explosion": 3.0}, {"max_loss_ratio": 3}),
        *(
            (same, same)
            for same in (
                {"init_scale": 0.2, "forget_bias": 1.0, "two_biases": True},
                {"cell": "gru", "one_hot_input": True, "orthogonal_recurrence": True},
                {"num_steps": 5, "bptt_steps": 10, "num_epochs": 7, "batch_size": 3},
                {"full_rate_epochs": 0, "learning_rate": 0.5},
                {"validate_every": 7, "patience": 2},
                {"level": "char", "train_fraction": 0.5, "valid_fraction": 0.25},
                {"reduction": "mean", "softmax_samples": 9, "softmax_l2": 0.5},
            )
        ),
    ],
)
def test_old_fields_become_todays(fields, changes):
    record = upgrade(OLD | fields)
    assert from_json(record["config"]) == override(SMALL, changes)
    assert "retired" not in record


def test_norms_of_repeats_apart_are_retired():
    """The configuration is that without the option; the record tells that the run was trained with it."""
    record = upgrade(OLD | {"norm_of_repeats": "apart"})
    assert from_json(record["config"]) == SMALL
    assert record["retired"] == {"norm_of_repeats": "apart"}
    assert "retired" not in upgrade(OLD | {"norm_of_repeats": "summed"})


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"num_epochs": "13"}, "num_epochs"),
        ({"lr_decay": 0}, "factor"),
        ({"depth": 3}, "depth"),
        ({"num_layers": "2"}, None),
        ({"optimizer": "adam"}, "adam"),
        *(({name: ...}, name) for name in ("keep_prob", "learning_rate", "max_grad_norm", "hidden_size", "lr_decay")),
    ],
)
def test_an_old_record_that_is_damaged_is_rejected(fields, name):
    record = {key: value for key, value in (OLD | fields).items() if value is not ...}
    with pytest.raises(ConfigError, match=name):
        upgrade(record)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_every_recorded_run_had_the_configuration_of_its_row(path):
    record = upgrade(json.loads(path.read_text()))
    row, _ = path.parent.name.rsplit("-", 1)
    name = row.removesuffix(f"_{record['precision']}")
    named = CONFIGS[name.removesuffix("_repeats_apart")]
    assert from_json(record["config"]) == named.config
    assert record.get("retired") == ({"norm_of_repeats": "apart"} if name.endswith("_repeats_apart") else None)


def test_there_are_recorded_runs():
    assert len(RECORDS) > 40


def test_the_module_imports_neither_tensorflow_nor_keras_nor_numpy():
    code = "import sys, ptb.config; print(*{'tensorflow', 'keras', 'numpy'} & {*sys.modules})"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == ""
