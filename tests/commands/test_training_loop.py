"""The training loop: what each step gets, and what a run records of steps, epochs and its end, computed once more by hand."""

import json
import math
import types

import numpy as np
import pytest
import tensorflow as tf

import ptb
import train
from configs import TEST
from helpers import in_process, run_files
from helpers.run_files import curve, events
from helpers.training_runs import StopAt, begin
from ptb.config import override
from ptb.data.corpus import load_corpus
from ptb.evaluation import sampling
from ptb.evaluation.score import score
from ptb.model.language_model import build_model
from ptb.runs.export.card import model_card
from ptb.runs.folder import RunFolder
from ptb.runs.progress import tutorial_report_windows
from ptb.runs.tensorboard import CLIPPED, GRADIENT_NORM, RUNNING, Curves
from ptb.runs.tensorboard import TEST as TEST_CURVE
from ptb.training.step import make_train_step


@pytest.fixture(scope="module")
def corpus(tiny_corpus):
    return load_corpus(str(tiny_corpus))


def records(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def finish(config, corpus, folder, model, state, setting=None):
    """Score the test text, as train.py does at the end. Return the result."""
    return train.score_test(config, corpus, RunFolder(folder), model, state, setting or {}, StopAt())


def means(values):
    """Return the mean of the first value, of the first two, … of all."""
    return np.cumsum(values) / np.arange(1, len(values) + 1)


def test_the_record_and_the_curves_of_an_epoch_are_those_of_its_windows(corpus, tmp_path):
    """At a learning rate that moves no weight, so that all windows meet the same model."""
    config = override(TEST, {"learning_rate": 1e-30, "layers": (8,)})
    model = build_model(config, len(corpus.vocabulary), seed=1)
    state, losses, norms = model.initial_state(config.batch_size), [], []
    for inputs, targets in train.make_windows(corpus, config)[0]:
        with tf.GradientTape() as tape:
            logits, state = model(inputs, state)
            losses_of_words = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            cost = tf.reduce_sum(losses_of_words) / config.batch_size
        gradients = tape.gradient(cost, [variable.value for variable in model.trainable_variables])
        losses.append(np.mean(losses_of_words))
        norms.append(np.sqrt(sum(np.sum(np.square(tf.convert_to_tensor(gradient))) for gradient in gradients)))
    config = override(config, {"clip_norm": float(np.median(norms))})

    _, state = begin(config, corpus, tmp_path / "run")
    (record,) = state.history
    assert record["train_perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert record["mean_gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-5)
    assert 0 < record["clipped_fraction"] == np.mean(np.array(norms) > config.optimizer.clip_norm) < 1
    assert curve(tmp_path / "run", CLIPPED)[-1] == (len(losses), pytest.approx(record["clipped_fraction"]))
    for tag, reached in ((RUNNING, np.exp(means(losses))), (GRADIENT_NORM, means(norms))):
        points = curve(tmp_path / "run", tag)
        assert len(points) == 10
        assert points == [(step, pytest.approx(reached[step - 1], rel=1e-5)) for step, _ in points]


def test_the_result_is_that_of_the_last_epoch_and_the_seconds_are_those_of_all(corpus, tmp_path):
    config = override(TEST, {"num_epochs": 3, "layers": (8,)})
    model, state = begin(config, corpus, tmp_path)
    result = finish(config, corpus, tmp_path, model, state)
    for split in ("train", "valid"):
        reached = [record[f"{split}_perplexity"] for record in records(tmp_path)]
        assert len(set(reached)) == 3
        assert result[f"{split}_perplexity"] == reached[-1]
    assert result["training_seconds"] == pytest.approx(sum(record["seconds"] for record in records(tmp_path)))


def test_a_run_that_continues_in_another_precision_says_so(random_corpus, tmp_path, caplog):
    with pytest.raises(SystemExit):
        begin(TEST, random_corpus, tmp_path, StopAt(3))
    begin(TEST, random_corpus, tmp_path, precision="bfloat16")
    (message,) = caplog.messages
    assert all(fact in message for fact in (str(tmp_path), "float32", "bfloat16"))
    caplog.clear()
    model, state = begin(TEST, random_corpus, tmp_path, precision="tf32")  # with nothing left to train
    assert finish(TEST, random_corpus, tmp_path, model, state, {"precision": "tf32"})["precision"] == "float32, bfloat16"
    assert not caplog.messages


def test_seconds_are_those_of_the_training_of_an_epoch_also_in_a_resumed_run(random_corpus, tmp_path, monkeypatch):
    """By a clock that moves a second in a step, a hundred in a validation and a thousand before the first step."""
    now = 0

    def lasting(seconds, function):
        def timed(*arguments):
            nonlocal now
            now += seconds
            return function(*arguments)

        return timed

    monkeypatch.setattr("ptb.training.state.time", types.SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(train, "make_train_step", lambda *arguments: lasting(1, make_train_step(*arguments)))
    monkeypatch.setattr(train, "score", lasting(100, score))
    monkeypatch.setattr("ptb.runs.progress.Curves", lasting(1000, Curves))
    config = override(TEST, {"num_epochs": 2, "validate_every": 10})
    with pytest.raises(SystemExit):
        begin(config, random_corpus, tmp_path, StopAt(5))
    begin(config, random_corpus, tmp_path)
    windows, _, _ = train.make_windows(random_corpus, config)
    assert len(windows) > 10
    assert [record["seconds"] for record in records(tmp_path)] == [len(windows)] * 2
    assert [record["words_per_second"] for record in records(tmp_path)] == [config.batch_size * config.num_steps] * 2


def test_each_step_gets_the_state_of_the_one_before_and_masks_of_its_own(random_corpus, tmp_path, monkeypatch):
    calls = []

    def make_recorded_step(*arguments):
        step = make_train_step(*arguments)

        def recorded_step(inputs, targets, state, sums, rate, dropout_seed):
            results = step(inputs, targets, state, sums, rate, dropout_seed)
            calls.append((state, float(sums.steps), float(rate), tuple(dropout_seed), results[0]))
            return results

        return recorded_step

    monkeypatch.setattr(train, "make_train_step", make_recorded_step)
    begin(override(TEST, {"num_epochs": 2}), random_corpus, tmp_path)
    count = len(calls) // 2
    assert count > 1
    assert [dropout_seed for _, _, _, dropout_seed, _ in calls] == [(1, step) for step in range(2 * count)]
    assert [steps for _, steps, _, _, _ in calls] == [*range(count)] * 2
    assert [rate for _, _, rate, _, _ in calls] == [1.0] * count + [0.5] * count
    for step, (state, *_) in enumerate(calls):
        before = tf.nest.map_structure(tf.zeros_like, state) if step in (0, count) else calls[step - 1][-1]
        tf.nest.map_structure(np.testing.assert_array_equal, state, before)
        assert step in (0, count) or np.any(state[0].hidden)


def test_reports_and_samples_come_every_so_many_steps(random_corpus, tmp_path, capsys):
    config = override(TEST, {"num_epochs": 2})  # of 14 steps an epoch
    begin(config, random_corpus, tmp_path, report_every=9, sample_every=12)
    assert len([line for line in capsys.readouterr().out.splitlines() if "speed:" in line]) == 3
    assert [step for step, _ in curve(tmp_path, RUNNING)] == [9, 18, 27]
    assert events(tmp_path).summary_metadata["sample"].plugin_data.plugin_name == "text"
    samples = dict(curve(tmp_path, "sample"))
    assert [*samples] == [12, 24]
    for text in samples.values():
        assert set(text.split()) <= set("abcdefgh")
        assert len(text.split()) + text.count("\n") == sampling.SAMPLE_LENGTH


@pytest.mark.parametrize(("count", "reports"), [(2323, 10), (10, 10), (19, 10), (3, 3), (1, 1)])
def test_by_default_there_are_ten_reports_an_epoch_or_one_a_window(count, reports):
    windows = sorted(tutorial_report_windows(count))
    assert len(windows) == reports
    assert 1 <= windows[0] <= windows[-1] <= count
    if count == 2323:
        assert [f"{(window - 1) / count:.3f}" for window in windows[:2]] == ["0.004", "0.104"]  # as the tutorial prints


def test_training_works_from_python_and_resumes_by_the_same_call(random_corpus, tmp_path):
    """As in a notebook: a configuration, a corpus and a folder are enough."""
    config = override(TEST, {"batch_size": 5})
    result = train.train(config, random_corpus, str(tmp_path / "run"))
    assert result["tokens_scored"] == len(random_corpus.test) - 1
    assert result["seed"] == 1
    assert train.train(config, random_corpus, tmp_path / "run") == result == run_files.result(tmp_path / "run")
    assert train.train(config, random_corpus, tmp_path / "other", seed=2)["test_perplexity"] != result["test_perplexity"]


def test_a_run_that_is_killed_once_it_is_finished_has_all_its_curves(corpus, tmp_path, monkeypatch):
    def write_and_die(run, name, record):
        write_json(run, name, record)
        if name == "result.json":
            raise SystemExit(9)

    write_json = RunFolder.write_json
    monkeypatch.setattr(RunFolder, "write_json", write_and_die)
    with pytest.raises(SystemExit):
        train.train(TEST, corpus, tmp_path)
    steps = len(train.make_windows(corpus, TEST)[0])
    assert curve(tmp_path, TEST_CURVE) == [(steps, pytest.approx(run_files.result(tmp_path)["test_perplexity"]))]


def test_a_run_from_python_does_not_pass_for_one_on_ptb(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("ptb.data.download.download_ptb", lambda _: pytest.fail("PTB was asked for"))
    train.train(TEST, corpus, tmp_path / "run")
    done = in_process.call("evaluate.py", tmp_path / "run")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / "run") in done.stderr and "--data_path" in done.stderr
    card = model_card(ptb.load(tmp_path / "run"), {})
    assert "Penn Treebank" not in card and "Linguistic Data Consortium" not in card
    assert corpus.fingerprint() in card


def test_a_run_of_the_command_keeps_its_names_if_python_resumes_it(folder_to_damage, monkeypatch):
    monkeypatch.chdir(folder_to_damage)
    path = folder_to_damage / "run" / "config.json"
    before = path.read_bytes()
    (folder_to_damage / "run" / "result.json").unlink()
    train.train(TEST, load_corpus("data"), "run")
    assert path.read_bytes() == before
    assert json.loads(before)["data_path"] == "data"
