"""What a run records of its epochs and of its end, against the same once more by hand."""

import dataclasses
import functools
import json
import math

import numpy as np
import pytest
import tensorflow as tf

import corpora
import processes
import runs
import train
from configs import TEST
from ptb import grammar
from ptb.run import Run
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
