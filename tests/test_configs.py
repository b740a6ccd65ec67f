"""The configurations against the published numbers, what a run makes of them, and the records against them."""

import dataclasses
import json

import keras
import numpy as np
import pytest

import reproduce
import train
from configs import CHAR_RNN, CONFIGS, DEFAULTS, GRU, SMALL, Config
from ptb.run import Run
from ptb.signals import StopRequest
from ptb.training import Clip, Objective, make_train_step
from reader import Corpus, Vocabulary

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


def rates(name):
    config = CONFIGS[name]
    return [config.learning_rate_of(epoch) for epoch in range(1, config.num_epochs + 1)]


def test_small_trains_four_epochs_at_full_rate_then_halves():
    assert rates("small") == [1, 1, 1, 1, *[0.5**k for k in range(1, 10)]]


def test_medium_trains_six_epochs_at_full_rate_then_divides_by_1_2():
    assert rates("medium") == pytest.approx([1] * 6 + [1.2**-k for k in range(1, 34)])
    assert rates("medium_tutorial_decay") == pytest.approx([1] * 6 + [0.8**k for k in range(1, 34)])


def test_large_trains_fourteen_epochs_at_full_rate_then_divides_by_1_15():
    assert rates("large") == pytest.approx([1] * 14 + [1.15**-k for k in range(1, 42)])


def test_test_trains_one_epoch():
    assert rates("test") == [1]


def test_the_lua_convention_has_one_more_epoch_at_full_rate():
    assert rates("small_lua_decay") == [1, 1, 1, 1, 1, *[0.5**k for k in range(1, 9)]]


OPTIONS_OF_A_MODEL = dataclasses.replace(
    CONFIGS["medium"],
    one_hot_input=True,
    drop_input=False,
    drop_output=False,
    orthogonal_recurrence=True,
    two_biases=True,
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


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_option_of_a_step_reaches_the_training(config, tmp_path, monkeypatch):
    config = dataclasses.replace(config, hidden_size=4, batch_size=2)
    text = np.zeros(500, np.int32)
    corpus = Corpus(Vocabulary(("<eos>", "a", "b")), text, text, text)
    model, made = config.make_model(3, seed=1), []

    def recorded(*arguments):
        made.append(arguments)
        return make_train_step(*arguments)

    monkeypatch.setattr(train, "make_train_step", recorded)
    training = train.Training(config, corpus, Run(tmp_path / "run"), model, {}, StopRequest(), train.Watching())
    ((_, clip, optimizer, objective),) = made
    assert (clip, objective) == (config.gradient_clip(), config.objective())
    assert type(optimizer) is {"sgd": type(None), "rmsprop": keras.optimizers.RMSprop}[config.optimizer]
    assert training.progress.explosion == config.explosion
    inputs, targets = training.train_windows[0]
    assert inputs.shape == targets.shape == (2, max(config.num_steps, config.bptt_steps))


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
        (SMALL, {"clip": "element", "norm_of_repeats": "apart"}, "clipping each element asks for no norm"),
        (SMALL, {"explosion": 0.5}, "explosion would stop at the first loss"),
        (SMALL, {"bptt_steps": 20}, "bptt_steps reaches no further than num_steps"),
        (GRU, {"forget_bias": 1.0}, "forget_bias: gru has no forget gate"),
        (GRU, {"two_biases": True}, "two_biases: gru has two per gate anyway"),
    ],
)
def test_options_that_do_not_go_together_are_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **changes)
