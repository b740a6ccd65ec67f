"""The training loop: what each step gets, and what a run records of its steps, its epochs and its end, by hand once more."""

import dataclasses
import functools
import json
import math
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import corpora
import processes
import runs
import train
from configs import TEST
from ptb import grammar
from ptb.evaluation import score
from ptb.run import Run
from ptb.training import make_train_step
from training_runs import StopAt, begin


@pytest.fixture(scope="module")
def corpus(tiny_corpus):
    return corpora.load_corpus(str(tiny_corpus))


def test_an_epochs_record_and_curves_are_those_of_its_windows(corpus, tmp_path):
    """At a rate so low that no weight moves, so that all windows meet the same model."""
    config = dataclasses.replace(TEST, learning_rate=1e-30, hidden_size=8)
    model = config.make_model(len(corpus.vocabulary), seed=1)
    state, losses, norms = model.initial_state(config.batch_size), [], []
    for inputs, targets in train.cut_into_windows(corpus, config)[0]:
        with tf.GradientTape() as tape:
            logits, state = model(inputs, state)
            losses_of_words = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            cost = tf.reduce_sum(losses_of_words) / config.batch_size
        gradients = tape.gradient(cost, [variable.value for variable in model.trainable_variables])
        losses.append(np.mean(losses_of_words))
        norms.append(np.sqrt(sum(np.sum(np.square(tf.convert_to_tensor(gradient))) for gradient in gradients)))
    config = dataclasses.replace(config, max_grad_norm=float(np.median(norms)))

    _, progress = begin(config, corpus, tmp_path / "run")
    (record,) = progress.history
    assert record["train_perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert record["mean_gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-5)
    assert 0 < record["clipped_fraction"] == np.mean(np.array(norms) > config.max_grad_norm) < 1
    for tag, reached in (("running_train_perplexity", np.exp(means(losses))), ("mean_gradient_norm", means(norms))):
        points = runs.curve(tmp_path / "run", tag)
        assert len(points) == 10
        assert points == [(step, pytest.approx(reached[step - 1], rel=1e-5)) for step, _ in points]


def means(values):
    """Returns the mean of the first, of the first two, … of all."""
    return np.cumsum(values) / np.arange(1, len(values) + 1)


def test_the_result_is_that_of_the_last_epoch_and_the_seconds_those_of_all(corpus, tmp_path):
    config = dataclasses.replace(TEST, num_epochs=3, hidden_size=8)
    model, progress = begin(config, corpus, tmp_path / "run")
    train.finish(config, corpus, Run(tmp_path / "run"), model, progress, {}, StopAt(1_000_000))
    records = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for split in ("train", "valid"):
        reached = [record[f"{split}_perplexity"] for record in records]
        assert len(set(reached)) == 3
        assert result[f"{split}_perplexity"] == reached[-1]
    assert result["training_seconds"] == pytest.approx(sum(record["seconds"] for record in records))


def test_a_run_that_goes_on_in_another_precision_says_so(random_corpus, tmp_path, caplog):
    config = dataclasses.replace(TEST, num_epochs=1)
    with pytest.raises(SystemExit):
        begin(config, random_corpus, tmp_path / "run", StopAt(3))
    begin(config, random_corpus, tmp_path / "run", precision="bfloat16")
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == f"{tmp_path / 'run'}: its products were in float32, from now on in bfloat16"
    caplog.clear()
    model, progress = begin(config, random_corpus, tmp_path / "run", precision="tf32")  # with nothing left to train
    train.finish(config, random_corpus, Run(tmp_path / "run"), model, progress, {"precision": "tf32"}, StopAt(1_000_000))
    assert json.loads((tmp_path / "run" / "result.json").read_text())["precision"] == "float32, bfloat16"
    assert not caplog.records


def test_seconds_are_those_of_an_epochs_training_also_of_a_resumed_one(random_corpus, tmp_path, monkeypatch):
    """By a clock that a step takes one second on, and a validation a hundred."""
    now = 0

    def lasting(seconds, function):
        def timed(*arguments):
            nonlocal now
            now += seconds
            return function(*arguments)

        return timed

    monkeypatch.setattr("ptb.progress.time", types.SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(train, "make_train_step", lambda *arguments: lasting(1, make_train_step(*arguments)))
    monkeypatch.setattr(train, "score", lasting(100, score))
    config = dataclasses.replace(TEST, num_epochs=2, validate_every=10)
    with pytest.raises(SystemExit):
        begin(config, random_corpus, tmp_path / "run", StopAt(5))
    begin(config, random_corpus, tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    windows, _ = train.cut_into_windows(random_corpus, config)
    assert len(windows) > 10
    assert [record["seconds"] for record in records] == [len(windows)] * 2
    assert [record["words_per_second"] for record in records] == [config.batch_size * config.num_steps] * 2


def test_each_step_has_the_state_of_the_one_before_and_masks_of_its_own(random_corpus, tmp_path, monkeypatch):
    calls = []

    def make_recorded_step(*arguments):
        step = make_train_step(*arguments)

        def recorded_step(inputs, targets, state, sums, rate, dropout_seed):
            results = step(inputs, targets, state, sums, rate, dropout_seed)
            calls.append((state, float(sums.steps), float(rate), tuple(dropout_seed), results[0]))
            return results

        return recorded_step

    monkeypatch.setattr(train, "make_train_step", make_recorded_step)
    begin(dataclasses.replace(TEST, num_epochs=2), random_corpus, tmp_path / "run")
    count = len(calls) // 2
    assert count > 1
    assert [dropout_seed for _, _, _, dropout_seed, _ in calls] == [(1, step) for step in range(2 * count)]
    assert [steps for _, steps, _, _, _ in calls] == [*range(count)] * 2
    assert [rate for _, _, rate, _, _ in calls] == [1.0] * count + [0.5] * count
    for step, (state, *_) in enumerate(calls):
        before = tf.nest.map_structure(tf.zeros_like, state) if step in (0, count) else calls[step - 1][-1]
        tf.nest.map_structure(np.testing.assert_array_equal, state, before)
        assert step in (0, count) or np.any(state[0].hidden)


def test_samples_go_to_tensorboard_as_text(random_corpus, tmp_path):
    config = dataclasses.replace(TEST, num_epochs=1)
    begin(config, random_corpus, tmp_path / "run", sample_every=6)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert events.summary_metadata["sample"].plugin_data.plugin_name == "text"
    points = events.Tensors("sample")
    assert [point.step for point in points] == [6, 12]
    texts = [tensor_util.make_ndarray(point.tensor_proto).item().decode() for point in points]
    for text in texts:
        assert set(text.split()) <= set("abcdefgh")
        assert len(text.split()) + text.count("\n") == train.SAMPLE_LENGTH


def test_reports_come_every_so_many_steps(random_corpus, tmp_path, capsys):
    begin(dataclasses.replace(TEST, num_epochs=2), random_corpus, tmp_path / "run", report_every=9)  # of 14 an epoch
    assert len([line for line in capsys.readouterr().out.splitlines() if "speed:" in line]) == 3
    assert [step for step, _ in runs.curve(tmp_path / "run", "running_train_perplexity")] == [9, 18, 27]


def test_a_run_of_the_built_in_corpus_ends_with_its_distance_from_the_grammar(tmp_path):
    small = {"hidden_size": 4, "batch_size": 100, "num_epochs": 1}
    change = functools.partial(processes.change, "demo", **small)
    process = processes.succeed(
        "train.py", "--model=demo", "--data_path=demo", f"--save_path={tmp_path / 'run'}", before=change
    )
    floor = grammar.perplexity(grammar.demo_text().test)
    reached = json.loads((tmp_path / "run" / "result.json").read_text())["test_perplexity"]
    assert process.stdout.splitlines()[-1] == (
        f"Floor: {floor:.3f}, the perplexity of the grammar that wrote the text; this model: {reached / floor - 1:.1%} above it"
    )
