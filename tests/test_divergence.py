"""Trainings that go astray for real: what stops them, what is kept, and what a rewind does."""

import dataclasses
import functools
import json
import math
import re
import shutil

import numpy as np
import pytest

import corpora
import processes
import runs
import training_runs
from configs import TEST
from ptb.evaluation import Score
from ptb.progress import MOST_REWINDS, REWIND_FACTOR, Diverged, Progress, rewind
from ptb.run import Run, RunError
from ptb.training import Sums


@pytest.fixture
def begin(tiny_corpus, tmp_path):
    """Returns `begin(**changes)`, which trains the test configuration with these changes, always in the same folder."""
    corpus = corpora.load_corpus(str(tiny_corpus))

    def begin(checkpoint_seconds=0, rewinds=False, sample_every=0, report_every=0, **changes):
        watching = {"checkpoint_seconds": checkpoint_seconds, "sample_every": sample_every, "report_every": report_every}
        config = dataclasses.replace(TEST, hidden_size=8, **changes)
        training_runs.begin(config, corpus, begin.run.path, rewinds=rewinds, **watching)

    begin.run = Run(tmp_path / "run")
    return begin


def assert_finite(checkpoint):
    for name, array in checkpoint.arrays.items():
        assert np.isfinite(array).all(), name


@pytest.mark.parametrize(
    ("learning_rate", "numbers"),
    [(1e4, r"loss \S+ a token"), (1e38, "(loss (nan|inf)|.* is no longer finite)")],
)
def test_a_training_that_diverges_stops_and_keeps_its_last_good_checkpoint(begin, learning_rate, numbers):
    with pytest.raises(Diverged) as error:
        begin(learning_rate=learning_rate)
    stopped = re.search(
        rf"at step (\d+) of epoch 1, learning rate {re.escape(f'{learning_rate:g}')}: {numbers}", error.value.what
    )
    assert stopped, error.value
    checkpoint = begin.run.load_checkpoint()
    assert_finite(checkpoint)
    assert checkpoint.record["step"] <= int(stopped[1])
    assert not (begin.run.path / "result.json").exists()


def test_samples_of_a_model_that_has_gone_astray_are_no_error_of_their_own(begin):
    with pytest.raises(Diverged):
        begin(checkpoint_seconds=1e9, sample_every=1, report_every=1000, learning_rate=1e38, max_grad_norm=1e38)
    (curves,) = begin.run.path.glob("events.out.*")
    assert b"(the model's scores of the next word are not finite)" in curves.read_bytes()


def test_a_rewind_goes_on_with_a_lower_rate_to_the_end(begin):
    begin(rewinds=True, learning_rate=1e3, num_epochs=2)
    record = begin.run.load_checkpoint().record
    halvings = math.log2(1 / record["rate_factor"])
    assert halvings == round(halvings) >= 1
    lines = [json.loads(line) for line in (begin.run.path / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[1]["learning_rate"] == 1e3 * TEST.lr_decay * record["rate_factor"]


def test_a_run_that_no_rewind_cures_is_given_up(begin):
    with pytest.raises(RunError, match="diverged after 10 rewinds too"):
        begin(rewinds=True, learning_rate=1e30)
    assert begin.run.load_checkpoint().record["rate_factor"] == REWIND_FACTOR**MOST_REWINDS


def test_the_lower_rate_survives_a_crash(begin):
    with pytest.raises(Diverged):
        begin(learning_rate=1e30)
    before = begin.run.load_checkpoint(up_to=0)
    assert rewind(begin.run) == (0, REWIND_FACTOR)
    after = begin.run.load_checkpoint()
    assert after.record == before.record | {"rate_factor": REWIND_FACTOR}
    with pytest.raises(Diverged, match="learning rate 5e"):
        begin(learning_rate=1e30)


def test_without_the_checkpoint_to_go_back_to_a_rewind_is_an_error(begin):
    with pytest.raises(Diverged):
        begin(learning_rate=1e30)
    begin.run.save_checkpoint(5, {}, {"step": 5, "window": 5})
    (begin.run.path / "checkpoint-000000000.npz").unlink()
    with pytest.raises(RunError, match="has no checkpoint of step 0, where the epoch began"):
        rewind(begin.run)


def test_where_a_run_with_rewinds_ends_does_not_depend_on_when_checkpoints_were_written(begin, tmp_path):
    """With one after each step, those that a bad step had spoilt were all that was left to go back to."""
    ends = []
    for checkpoint_seconds in (0, 1e9):
        shutil.rmtree(begin.run.path, ignore_errors=True)
        begin(checkpoint_seconds, rewinds=True, learning_rate=1e3, max_grad_norm=100.0)
        ends.append((runs.weights(begin.run.path), runs.history(begin.run.path)))
    (weights, history), (same_weights, same_history) = ends
    assert history == same_history
    assert begin.run.load_checkpoint().record["rate_factor"] < 1
    for name, array in weights.items():
        np.testing.assert_array_equal(same_weights[name], array)


@pytest.mark.parametrize(
    ("loss", "grad_norm", "message"),
    [
        (math.nan, 1.0, "loss nan"),
        (100.0, math.inf, "gradient norm inf"),
        (1e5, 1.0, r"loss 1e.04 a token in one step .limit 46.1."),
    ],
)
def test_what_counts_as_diverged(loss, grad_norm, message):
    progress = Progress({}, (), Sums.zero().after(20.0, 10.0, 2.0, False))
    progress.check()
    progress.sums = progress.sums.after(loss, 10.0, grad_norm, False).after(20.0, 10.0, 2.0, False)
    with pytest.raises(Diverged, match=message):
        progress.check()


def test_one_bad_step_of_an_untrained_model_is_no_divergence():
    """Of `large` the third step has 23 nats a word; a report after each step saw that alone."""
    progress = Progress({}, (), Sums.zero().after(9.2 * 700, 700, 5.0, False).after(23.0 * 700, 700, 500.0, True))
    progress.check()


def test_a_loss_that_stays_high_is_found_at_the_end_of_the_epoch(begin, monkeypatch):
    progress = Progress({}, (), Sums.zero().after(9.2 * 700, 700, 5.0, False))
    progress.check_epoch()
    for _ in range(20):
        progress.sums = progress.sums.after(30.0 * 700, 700, 5.0, True)
    progress.check()
    with pytest.raises(Diverged, match=r"perplexity \S+e\+12 in this epoch .limit 1e.09."):
        progress.check_epoch()
    monkeypatch.setattr("ptb.progress.WORST_PERPLEXITY_OF_AN_EPOCH", 2.0)
    with pytest.raises(Diverged, match=r"perplexity \S+ in this epoch .limit 2."):
        begin()


def test_the_command_stops_with_one_line_or_rewinds_where_it_is_asked_to(tiny_corpus, tmp_path):
    command = ("train.py", "--model=test", f"--data_path={tiny_corpus}", f"--save_path={tmp_path / 'run'}")
    diverging = functools.partial(processes.change, "test", hidden_size=8, learning_rate=1e3)
    stopped = processes.run(*command, before=diverging)
    assert stopped.returncode == 1
    assert "the training has diverged at step" in stopped.stderr
    assert stopped.stderr.count("\n") == 1
    rewound = processes.succeed(*command, "--on_nonfinite=rewind", before=diverging)
    assert "Going back to step 0, learning rates × 0.5\n" in rewound.stdout


@pytest.mark.parametrize("perplexity", [math.nan, math.inf, 1e10])
def test_weights_that_the_last_step_of_an_epoch_has_spoilt_begin_no_other(begin, monkeypatch, perplexity):
    monkeypatch.setattr("train.score", lambda *_: Score(math.log(perplexity), 1))
    with pytest.raises(Diverged, match="perplexity .* of the validation text .limit 1e.09."):
        begin(num_epochs=2)
    assert begin.run.load_checkpoint().record["epoch"] == 1
