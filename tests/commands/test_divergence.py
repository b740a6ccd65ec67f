"""Trainings that really diverge: what stops them, what is kept, and what a rewind does."""

import json
import math
import re

import numpy as np
import pytest

import train
from configs import TEST
from helpers import in_process, run_files
from helpers.texts import raises_one_line
from ptb.config import override
from ptb.data.corpus import load_corpus
from ptb.evaluation.score import Score
from ptb.runs.checkpoint import REWIND_FACTOR
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError
from ptb.training.state import Diverged


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


@pytest.fixture
def begin(run, tiny_corpus):
    """Return `begin(changes, ...)`, which trains the test configuration with these changes, always in the same folder."""
    corpus = load_corpus(str(tiny_corpus))

    def begin(changes, rewinds=False, folder=run.path, **monitoring):
        config, monitoring = override(TEST, {"layers": (8,)} | changes), train.Monitoring(**monitoring)
        return train.train(config, corpus, folder, precision="float32", rewinds=rewinds, monitoring=monitoring)

    return begin


@pytest.mark.parametrize("learning_rate", [1e4, 1e38])  # too large a loss; a number that is not finite
def test_training_that_diverges_stops_and_keeps_its_last_good_checkpoint(begin, run, learning_rate):
    with raises_one_line(Diverged, "--on_nonfinite=rewind", "learning_rate", "--save_path") as error:
        begin({"learning_rate": learning_rate}, checkpoint_seconds=0)
    place = re.search(rf"step (\d+) of epoch 1, learning rate {re.escape(f'{learning_rate:g}')}", error.value.what)
    checkpoint = run.checkpoints.load()
    assert checkpoint.record["step"] <= int(place[1])
    for name, array in checkpoint.arrays.items():
        assert np.isfinite(array).all(), name
    assert run.result is None


def test_samples_of_a_model_that_has_diverged_are_no_error_of_their_own(begin, run):
    with pytest.raises(Diverged):
        begin({"learning_rate": 1e38, "clip_norm": 1e38}, sample_every=1, report_every=1000)
    texts = [text for _, text in run_files.curve(run.path, "sample")]
    assert any("not finite" in text for text in texts)


def test_a_rewind_continues_at_a_lower_rate_to_the_end(begin, run):
    begin({"learning_rate": 100, "num_epochs": 5, "schedule.factor": 0.25}, rewinds=True)
    factor = run.checkpoints.load().record["rate_factor"]
    assert math.log2(1 / factor) == round(math.log2(1 / factor)) >= 1
    records = run_files.history(run.path)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5]
    assert records[1]["learning_rate"] == 100 * 0.25 * factor


def test_a_run_that_no_rewind_helps_is_given_up(begin, run, monkeypatch):
    monkeypatch.setattr("ptb.runs.checkpoint.MAX_REWINDS", 2)
    with raises_one_line(RunError, run.path, 2):
        begin({"learning_rate": 1e30}, rewinds=True)
    assert run.checkpoints.load().record["rate_factor"] == REWIND_FACTOR**2


def test_no_rewind_helps_before_the_first_checkpoint(begin, run):
    with raises_one_line(RunError, run.path, "init_scale"):
        begin({"init_scale": 3e38}, rewinds=True)
    assert not run.checkpoints.paths()


def test_the_lower_rate_survives_a_crash(begin, run):
    with pytest.raises(Diverged, match="learning rate 1e"):
        begin({"learning_rate": 1e30})
    assert run.checkpoints.rewind() == (0, REWIND_FACTOR)
    with pytest.raises(Diverged, match="learning rate 5e"):
        begin({"learning_rate": 1e30})


@pytest.mark.slow
def test_where_a_run_with_rewinds_ends_does_not_depend_on_when_checkpoints_were_written(begin, tmp_path):
    """A checkpoint after each step leaves only those that a bad step has spoilt, and the one of the start of the epoch."""
    ends = [tmp_path / "often", tmp_path / "seldom"]
    for folder, checkpoint_seconds in zip(ends, (0, 1e9)):
        changes = {"learning_rate": 50, "clip_norm": 100}
        with raises_one_line(RunError, folder, "learning_rate"):  # the rewinds did not help enough
            begin(changes, rewinds=True, folder=folder, checkpoint_seconds=checkpoint_seconds, report_every=1000)
        assert RunFolder(folder).checkpoints.load().record["rate_factor"] < 1
    often, seldom = map(run_files.weights, ends)
    for name in seldom:
        np.testing.assert_array_equal(often[name], seldom[name])
    assert run_files.history(ends[0]) == run_files.history(ends[1])


def test_a_training_perplexity_that_is_too_large_ends_the_epoch(begin, monkeypatch):
    monkeypatch.setattr("ptb.training.state.MAX_EPOCH_PERPLEXITY", 2.0)
    with pytest.raises(Diverged, match="in this epoch"):
        begin({})


@pytest.mark.parametrize("perplexity", [math.nan, math.inf, 1e10])
def test_an_epoch_whose_last_step_spoilt_the_weights_is_not_finished(begin, run, monkeypatch, perplexity):
    monkeypatch.setattr("train.score", lambda *_: Score(math.log(perplexity), 1))
    with pytest.raises(Diverged, match="validation"):
        begin({"num_epochs": 2})
    assert run.checkpoints.load().record["epoch"] == 1


@pytest.mark.slow
def test_the_command_stops_with_one_line_or_rewinds_if_it_is_asked_to(tiny_corpus, tmp_path):
    command = ("train.py", "--model=test", f"--data_path={tiny_corpus}", f"--save_path={tmp_path / 'run'}")
    command += ("--set=learning_rate=100", "--set=layers=8", "--precision=float32")
    command += ("--set=num_epochs=5", "--set=schedule.factor=0.25")
    stopped = in_process.call(*command)
    assert (stopped.returncode, stopped.stderr.count("\n")) == (1, 1)
    assert "--on_nonfinite=rewind" in stopped.stderr
    rewound = in_process.succeed(*command, "--on_nonfinite=rewind")
    assert re.search(r"step 0\b.* 0\.5\n", rewound.stdout)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test_perplexity"] < math.inf
