"""A training that must end in time: how many epochs fit, and that a resumed run keeps their number."""

import itertools
import types

import numpy as np
import pytest

import train
from configs import TEST
from helpers import run_files
from helpers.texts import raises_one_line
from helpers.training_runs import StopAt
from ptb.config import override
from ptb.data.windows import windows
from ptb.model.language_model import build_model
from ptb.runs.storage import RunError
from ptb.training import budget

CONFIG = override(TEST, {"budget_minutes": 0.01, "batch_size": 8, "num_steps": 5, "averaging": "two_tailed"})


@pytest.mark.parametrize(("seconds", "epoch_seconds", "epochs"), [(600, 100, 5), (600, 9, 58), (3600, 120, 28), (60, 500, 1)])
def test_epochs_that_fit_beside_the_start_and_the_score(seconds, epoch_seconds, epochs):
    """(0.95 · 600 - 40) / 100 = 5.3, / 9 = 58.9; (0.95 · 3600 - 40) / 120 = 28.2."""
    assert budget.epochs_within(seconds, epoch_seconds) == epochs


@pytest.mark.parametrize("config", [CONFIG, override(CONFIG, {"temperature_scaling": True})])
def test_an_epoch_takes_the_time_of_its_windows_and_of_a_validation_of_each_average(config, monkeypatch):
    """With a clock on which each window takes a second, and the first two take a hundred."""
    ticks = itertools.accumulate(itertools.chain([0], *([100, 0, 100, 0] + [1, 0] * 8 for _ in range(2))))
    monkeypatch.setattr(budget, "time", types.SimpleNamespace(monotonic=lambda: next(ticks)))
    train_windows, valid_windows = (windows(np.arange(size, dtype=np.int32) % 7, 8, 5) for size in (800, 500))
    model = build_model(config, 7)
    validation = len(valid_windows)
    scaling = budget.SCALING_PASSES * validation if config.temperature_scaling else 0
    assert budget.time_epoch(model, config, train_windows, valid_windows) == (len(train_windows) + 2 * validation, scaling)


def test_a_stopped_run_goes_on_to_the_epochs_that_it_began_with(random_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "epochs_within", lambda *_: 3)
    train.train(CONFIG, random_corpus, tmp_path / "unbroken")
    with monkeypatch.context() as patches, pytest.raises(SystemExit):
        patches.setattr(train, "StopRequest", lambda **_: StopAt(100))
        train.train(CONFIG, random_corpus, tmp_path / "run")
    monkeypatch.setattr(train, "epochs_within", lambda *_: 5)
    train.train(CONFIG, random_corpus, tmp_path / "run")
    assert len(run_files.history(tmp_path / "run")) == 3
    run_files.assert_same_run(tmp_path / "run", tmp_path / "unbroken")


def test_a_damaged_configuration_is_an_error_for_a_run_with_a_budget_too(random_corpus, tmp_path):
    (tmp_path / "config.json").write_text('{"config": 3}')
    with raises_one_line(RunError, tmp_path / "config.json"):
        train.train(CONFIG, random_corpus, tmp_path)
