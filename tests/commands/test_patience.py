"""Early stopping and validation within an epoch: when training ends, and which weights it leaves, stopped or not."""

import numpy as np
import pytest

import ptb
import train
from configs import TEST
from helpers import run_files
from helpers.run_files import curve, history
from helpers.training_runs import StopAt, begin
from ptb.config import override
from ptb.evaluation.score import make_eval_step, score
from ptb.runs.folder import RunFolder
from ptb.runs.tensorboard import VALID
from ptb.training.state import Diverged

PATIENT = override(  # the rate changes with each step, and training stops long before its last epoch
    TEST,
    {"layers": (16,), "num_epochs": 12, "patience": 3, "validate_every": 10, "learning_rate": 0.5, "schedule": "OneCycle"},
)
RISKY = {"max_loss_ratio": 1.5, "learning_rate": 8.0, "clip_norm": 100, "patience": 0, "schedule": TEST.schedule}
WILD = override(PATIENT, RISKY)


@pytest.fixture(scope="module")
def patient(random_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "patient"
    return folder, *begin(PATIENT, random_corpus, folder)


def validation_curve(folder):
    return curve(folder, VALID)


def test_training_stops_when_patience_runs_out(patient):
    folder, _, state = patient
    assert len(history(folder)) < PATIENT.num_epochs
    assert state.validations_since_best == PATIENT.stopping.patience
    validations = [perplexity for _, perplexity in validation_curve(folder)]
    assert state.best_perplexity == pytest.approx(min(validations), rel=1e-6)
    assert 0 < state.best_step < state.step


def test_the_best_weights_are_restored_and_are_those_that_other_commands_open(patient, random_corpus):
    folder, model, state = patient
    _, valid_windows, _ = train.make_windows(random_corpus, PATIENT)
    assert score(make_eval_step(model), model, valid_windows).perplexity == pytest.approx(state.best_perplexity, rel=1e-6)
    opened = ptb.load(folder).model
    for ours, theirs in zip(model.get_weights(), opened.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    newest = run_files.weights(folder)
    assert any(not np.array_equal(newest[f"weights/{variable.path}"], variable) for variable in model.trainable_variables)


def test_validation_comes_every_so_many_steps_and_after_each_epoch(patient, random_corpus):
    _, _, state = patient
    count = len(train.make_windows(random_corpus, PATIENT)[0])
    expected = {*range(10, state.step + 1, 10), *range(count, state.step + 1, count)}
    assert [step for tag, step, *_ in state.points if tag == VALID] == sorted(expected)


class StopSomewhere(StopAt):
    """A request to stop that knows whether it came in a validation."""

    validating = False

    def watch(self, windows):
        self.validating = True
        yield from super().watch(windows)
        self.validating = False


def test_a_patient_run_that_is_stopped_anywhere_ends_as_an_unbroken_one(patient, random_corpus, tmp_path):
    folder, unbroken, expected = patient
    train_windows, _, _ = train.make_windows(random_corpus, PATIENT)
    run, places = RunFolder(tmp_path), set()
    for count in [47, 31, 52] * 10:
        stop = StopSomewhere(count)
        try:
            model, reached = begin(PATIENT, random_corpus, run.path, stop)
            break
        except SystemExit:
            at_the_end = run.checkpoints.load().record["window"] == len(train_windows)
            places.add((stop.validating, at_the_end))
    assert {(False, False), (True, False), (True, True)} <= places
    assert history(run.path) == history(folder)
    assert validation_curve(run.path) == validation_curve(folder)
    assert (reached.best_step, reached.step) == (expected.best_step, expected.step)
    for ours, theirs in zip(model.get_weights(), unbroken.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_training_perplexity_of_the_result_is_that_of_the_epoch_with_the_best_weights(patient, random_corpus):
    folder, model, state = patient
    result = train.score_test(PATIENT, random_corpus, RunFolder(folder), model, state, {}, StopAt())
    windows, _, _ = train.make_windows(random_corpus, PATIENT)
    record = history(folder)[(result["best_step"] - 1) // len(windows)]
    assert record["epoch"] < len(state.history)  # or it could as well be the last
    assert result["train_perplexity"] == record["train_perplexity"]
    assert result["valid_perplexity"] == state.best_perplexity


def test_a_stopped_run_prints_the_best_so_far_once_there_is_one(random_corpus, tmp_path):
    for count, has_best in ((3, False), (60, True), (0, True)):
        stop = StopAt(count)
        with pytest.raises(SystemExit):
            begin(PATIENT, random_corpus, tmp_path, stop)
        assert str(tmp_path) in stop.hint
        assert ("valid perplexity" in stop.hint) == has_best


@pytest.mark.parametrize(("checkpoint_seconds", "report_every"), [(0, 0), (1e9, 0), (1e9, 7)])
def test_a_loss_that_is_too_many_times_the_first_stops_the_run_whenever_it_is_read(
    checkpoint_seconds, report_every, random_corpus, tmp_path
):
    with pytest.raises(Diverged, match=r"of epoch 1, .*limit 3.29"):
        begin(WILD, random_corpus, tmp_path, checkpoint_seconds=checkpoint_seconds, report_every=report_every)
    assert ptb.load(tmp_path).model


def test_a_resumed_run_remembers_the_first_loss(random_corpus, tmp_path):
    with pytest.raises(SystemExit):
        begin(WILD, random_corpus, tmp_path, StopAt(0))  # after the first step, whose loss is the first
    with pytest.raises(Diverged, match="limit 3.29"):
        begin(WILD, random_corpus, tmp_path)


def test_without_a_limit_a_loss_may_be_any_number_of_times_the_first(random_corpus, tmp_path):
    config = override(WILD, {"max_loss_ratio": 0, "num_epochs": 2})
    assert begin(config, random_corpus, tmp_path)[1].epoch > config.num_epochs


@pytest.mark.slow
def test_the_state_of_the_optimiser_survives_a_stop(random_corpus, tmp_path):
    config = override(PATIENT, {"optimizer": "RMSprop", "learning_rate": 0.01, "num_epochs": 2, "patience": 0})
    begin(config, random_corpus, tmp_path / "unbroken")
    with pytest.raises(SystemExit):
        begin(config, random_corpus, tmp_path / "stopped", StopAt(30))
    begin(config, random_corpus, tmp_path / "stopped")
    ours, theirs = run_files.weights(tmp_path / "stopped"), run_files.weights(tmp_path / "unbroken")
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])
