"""Other values of fields by name, and what differs between two configurations."""

import dataclasses

import pytest

from configs import CHAR_RNN, CONFIGS, MEDIUM, SMALL
from ptb.config import (
    FORMER_NAMES,
    SGD,
    Adam,
    Config,
    ConfigError,
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
    override,
    resolve,
    to_json,
)

NAMED = pytest.mark.parametrize("config", [named.config for named in CONFIGS.values()], ids=CONFIGS)


PROJECTED = Loss(projection_l2=0.1)  # without a projection of the model it is an error
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
        ({"schedule": "one_cycle"}, {"schedule": OneCycle()}),
        ({"optimizer": "adam", "beta1": 0}, {"optimizer": Adam(learning_rate=1.0, clip_norm=5, beta1=0.0)}),
        ({"averaging": "two_tailed", "keep_best": True}, {"averaging": "two_tailed", "stopping": Stopping(keep_best=True)}),
        ({"num_steps": 5, "bptt_steps": 10}, {"num_steps": 5, "bptt_steps": 10}),
        ({"loss": PROJECTED, "model": Model(projection="linear")}, {"loss": PROJECTED, "model": Model(projection="linear")}),
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
def test_differences_are_overrides(config):
    for base in (SMALL, CHAR_RNN):
        assert override(base, differences(config, base)) == config
    assert differences(config, config) == {}


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
