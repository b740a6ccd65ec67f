"""The configurations against the published numbers, and the records against the configurations."""

import dataclasses
import json

import pytest

import reproduce
from configs import CHAR_RNN, CONFIGS, DEFAULTS, GRU, SMALL, Config
from ptb.training import Clip, Objective

# Zaremba et al. (2014), section 4.1, as ../shared/REFERENCE.md has it; the last row is the tutorial's smoke test.
TABLE = """
config | init | lr | clip | layers | steps | hidden | full-rate epochs | epochs | keep | decay    | batch
small  | .1   | 1  | 5    | 2      | 20    | 200    | 4                | 13     | 1.0  | 1 / 2    | 20
medium | .05  | 1  | 5    | 2      | 35    | 650    | 6                | 39     | .5   | 1 / 1.2  | 20
large  | .04  | 1  | 10   | 2      | 35    | 1500   | 14               | 55     | .35  | 1 / 1.15 | 20
test   | .1   | 1  | 1    | 1      | 2     | 2      | 1                | 1      | 1.0  | 1 / 2    | 20
"""
FIELDS = (
    *("init_scale", "learning_rate", "max_grad_norm", "num_layers", "num_steps", "hidden_size"),
    *("full_rate_epochs", "num_epochs", "keep_prob", "lr_decay", "batch_size"),
)


@pytest.mark.parametrize("row", TABLE.strip().splitlines()[1:])
def test_the_published_configurations_are_the_papers(row):
    name, *cells = map(str.strip, row.split("|"))
    published = {
        field: float(dividend) / float(divisor or 1)
        for field, (dividend, _, divisor) in zip(FIELDS, (cell.partition("/") for cell in cells), strict=True)
    }
    assert dataclasses.asdict(CONFIGS[name]) == DEFAULTS | published


OPTIONS_OF_A_MODEL = dataclasses.replace(
    CONFIGS["medium"],
    one_hot_input=True,
    drop_input=False,
    drop_output=False,
    orthogonal_recurrence=True,
    forget_bias=1.0,
    softmax_samples=3,
)


@pytest.mark.parametrize("config", [*CONFIGS.values(), OPTIONS_OF_A_MODEL], ids=[*CONFIGS, "options"])
def test_every_field_reaches_the_model_the_objective_and_the_clip(config):
    config = dataclasses.replace(config, hidden_size=4)
    fields, made = dataclasses.asdict(config), config.make_model(9).get_config()
    shared = fields.keys() & made.keys()
    assert "keep_prob" in shared
    assert {name: made[name] for name in shared} == {name: fields[name] for name in shared}
    assert config.objective()._asdict() == {name: fields[name] for name in Objective._fields}
    assert config.gradient_clip() == Clip(config.max_grad_norm, config.clip, config.norm_of_repeats)


@pytest.mark.parametrize("path", sorted(reproduce.RESULTS.glob("*/config.json")), ids=lambda path: path.parent.name)
def test_what_is_recorded_was_run_with_the_configuration_of_its_row(path):
    record = DEFAULTS | json.loads(path.read_text())
    row, _ = path.parent.name.rsplit("-", 1)
    config = CONFIGS[row.removesuffix(f"_{record['precision']}")]
    assert {field.name: record[field.name] for field in dataclasses.fields(Config)} == dataclasses.asdict(config)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (SMALL, {"softmax_samples": 5, "norm_of_repeats": "apart"}, "for each replica"),
        (CHAR_RNN, {"norm_of_repeats": "apart"}, "a one-hot input has no rows"),
        (GRU, {"forget_bias": 1.0}, "forget_bias: gru has no forget gate"),
    ],
)
def test_options_that_do_not_go_together_are_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **changes)
