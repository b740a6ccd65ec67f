"""Configurations as JSON, and records of earlier versions."""

import json

import pytest

from configs import CONFIGS, SMALL
from helpers.processes import ROOT
from ptb.config import Config, ConfigError, Model, from_json, override, to_json, upgrade

RECORDS = sorted((ROOT / "results").glob("*/config.json"))
NAMED = pytest.mark.parametrize("config", [named.config for named in CONFIGS.values()], ids=CONFIGS)


@NAMED
def test_every_configuration_survives_json(config):
    record = json.loads(json.dumps(to_json(config)))
    assert from_json(record) == config
    assert to_json(from_json(record)) == record


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
    config, named = from_json(record["config"]), CONFIGS[name.removesuffix("_repeats_apart")]
    counted = {"num_epochs": config.num_epochs} if config.budget_minutes else {}  # the machine's speed decided it
    assert config == override(named.config, counted)
    assert record.get("retired") == ({"norm_of_repeats": "apart"} if name.endswith("_repeats_apart") else None)


def test_there_are_recorded_runs():
    assert len(RECORDS) > 40
