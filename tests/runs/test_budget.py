"""A training that must end in time: how many epochs fit, and that a resumed run keeps their number."""

import itertools
import types

import numpy as np
import pytest

import train
from configs import TEST
from helpers import in_process, run_files
from helpers.texts import raises_one_line
from helpers.training_runs import StopAt
from ptb.config import ConfigError, override
from ptb.data.windows import validation_windows, windows
from ptb.model.language_model import build_model
from ptb.runs import budget
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError

CONFIG = override(TEST, {"budget_minutes": 0.01, "batch_size": 8, "num_steps": 5, "averaging": "two_tailed"})


@pytest.mark.parametrize(("seconds", "epoch_seconds", "epochs"), [(600, 100, 5), (600, 9, 56), (3600, 120, 27), (60, 500, 1)])
def test_epochs_that_fit_beside_the_start_and_the_score(seconds, epoch_seconds, epochs):
    """(0.92 · 600 - 40) / 100 = 5.1, / 9 = 56.9; (0.92 · 3600 - 40) / 120 = 27.3."""
    assert budget.epochs_within(seconds, epoch_seconds) == epochs


@pytest.mark.parametrize(("changes", "validations"), [({}, 1), ({"temperature_scaling": True}, 1), ({"validate_every": 6}, 4)])
def test_an_epoch_takes_the_time_of_its_windows_and_of_validations_of_each_average(changes, validations, monkeypatch):
    """With a clock on which each window takes a second, and the first two take a hundred. The epoch has 19 windows."""
    config = override(CONFIG, changes)
    ticks = itertools.accumulate(itertools.chain([0], *([100, 0, 100, 0] + [1, 0] * 8 for _ in range(2))))
    monkeypatch.setattr(budget, "time", types.SimpleNamespace(monotonic=lambda: next(ticks)))
    train_windows, valid_windows = (windows(np.arange(size, dtype=np.int32) % 7, 8, 5) for size in (800, 500))
    model = build_model(config, 7)
    validation = len(valid_windows)
    scaling = budget.SCALING_PASSES * validation if config.temperature_scaling else 0
    expected = len(train_windows) + 2 * validations * validation
    assert budget.time_epoch(model, config, train_windows, valid_windows) == (expected, scaling)


def test_a_short_validation_text_with_fewer_streams_can_be_timed():
    config = override(CONFIG, {"batch_size": 64, "temperature_scaling": True})
    valid_windows = validation_windows(np.arange(100, dtype=np.int32) % 7, 64, 5)
    assert len(valid_windows.streams) < 64
    train_windows = windows(np.arange(2000, dtype=np.int32) % 7, 64, 5)
    model = build_model(config, 7)
    assert min(budget.time_epoch(model, config, train_windows, valid_windows)) > 0


def test_the_epochs_fit_into_what_the_start_and_the_scaling_leave_of_the_budget(tmp_path, monkeypatch, caplog):
    """Of 600 seconds the model takes 12 and the scaling 5: (0.92 · 583 - 40) / 7 = 70.9."""
    now = 1000.0

    def make_model():
        nonlocal now
        now += 12

    monkeypatch.setattr(budget, "time", types.SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(budget, "time_epoch", lambda *_: (7.0, 5.0))
    config = override(CONFIG, {"budget_minutes": 10})
    assert budget.within_budget(config, RunFolder(tmp_path), make_model, None, None) == override(config, {"num_epochs": 70})
    assert not caplog.messages
    short = override(CONFIG, {"budget_minutes": 0.3})  # 18 seconds, of which 1 remains
    assert budget.within_budget(short, RunFolder(tmp_path), make_model, None, None).num_epochs == 1
    assert "budget_minutes" in caplog.text


def test_several_workers_cannot_have_a_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(budget.replicas, "has_many_workers", lambda: True)
    with raises_one_line(ConfigError, "budget_minutes", "num_epochs"):
        budget.within_budget(CONFIG, RunFolder(tmp_path), None, None, None)


def test_a_stopped_run_goes_on_to_the_epochs_that_it_began_with(random_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "epochs_within", lambda *_: 3)
    train.train(CONFIG, random_corpus, tmp_path / "unbroken")
    with monkeypatch.context() as patches, pytest.raises(SystemExit):
        patches.setattr(train, "StopRequest", lambda **_: StopAt(100))
        train.train(CONFIG, random_corpus, tmp_path / "run")
    monkeypatch.setattr(budget, "epochs_within", lambda *_: 5)
    train.train(CONFIG, random_corpus, tmp_path / "run")
    assert len(run_files.history(tmp_path / "run")) == 3
    run_files.assert_same_run(tmp_path / "run", tmp_path / "unbroken")


def test_a_run_that_has_begun_does_not_change_its_budget_but_its_epochs(random_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "epochs_within", lambda *_: 2)
    train.train(CONFIG, random_corpus, tmp_path)
    longer = override(CONFIG, {"budget_minutes": 0.02})
    with raises_one_line(ConfigError, tmp_path, "2 epochs", "budget_minutes=0", "num_epochs"):
        train.train(longer, random_corpus, tmp_path, resume_with_changes=True)
    more = override(CONFIG, {"budget_minutes": 0, "num_epochs": 3})
    train.train(more, random_corpus, tmp_path, resume_with_changes=True)
    assert len(run_files.history(tmp_path)) == 3


def test_another_run_in_the_folder_is_named_before_its_budget(random_corpus, tmp_path):
    train.train(TEST, random_corpus, tmp_path)
    with raises_one_line(RunError, tmp_path, "model.layers", "--save_path"):
        train.train(override(CONFIG, {"layers": (3,)}), random_corpus, tmp_path)


def test_a_number_of_epochs_beside_a_budget_is_an_error(tmp_path):
    command = ("train.py", "--model=ten_minutes", "--data_path=demo", "--set=num_epochs=3", f"--save_path={tmp_path / 'run'}")
    done = in_process.call(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--set budget_minutes=0" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_damaged_configuration_is_an_error_for_a_run_with_a_budget_too(random_corpus, tmp_path):
    (tmp_path / "config.json").write_text('{"config": 3}')
    with raises_one_line(RunError, tmp_path / "config.json"):
        train.train(CONFIG, random_corpus, tmp_path)
