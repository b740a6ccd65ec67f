"""Files of a run folder: read for comparison, or written for a test."""

import json

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util import tensor_util

from ptb.config import to_json
from ptb.data.vocabulary import Vocabulary
from ptb.model.language_model import build_model
from ptb.runs.folder import RunFolder
from ptb.runs.tensorboard import GRADIENT_NORM, LEARNING_RATE, RUNNING, TEST, TRAIN, VALID
from ptb.training.state import TrainState, trained_variables
from ptb.training.step import Sums


def record_of(config, corpus="", **fields):
    """Return the content of config.json for a run of a configuration with seed 1, on a text with the fingerprint `corpus`."""
    record = {"model": "custom", "seed": 1, "precision": "float32", "corpus": corpus, "data_path": None, "overrides": {}}
    return record | {"encoding": "utf-8"} | fields | {"config": to_json(config)}


def write_run(folder, config, words, seed=1, **fields):
    """Write a run that was saved before its first step. Return its model. `fields` are those of `record_of`."""
    run, vocabulary = RunFolder(folder), Vocabulary(tuple(words))
    run.begin(record_of(config, **fields), vocabulary)
    model = build_model(config, len(vocabulary), seed=seed)
    run.save(TrainState(trained_variables(model), model.initial_state(config.batch_size), Sums.zero()))
    return model


def edit_json(path, function):
    """Replace the content of a JSON file by a function of it."""
    path.write_text(json.dumps(function(json.loads(path.read_text()))))


def edit_checkpoints(folder, function):
    """Replace the content `{name: array}` of each checkpoint by a function of it. The record is `__record__`, as bytes."""
    for path in folder.glob("checkpoint-*.npz"):
        with np.load(path) as arrays:
            content = function(dict(arrays))
        np.savez(path, **content)


def without_digests(arrays):
    """Return the content of a checkpoint as it was before checkpoints had digests."""
    record = json.loads(arrays["__record__"].tobytes())
    del record["digests"]
    return arrays | {"__record__": np.frombuffer(json.dumps(record).encode(), np.uint8)}


def weights(folder):
    """Return the weights in the newest checkpoint by name."""
    newest = sorted(folder.glob("checkpoint-*.npz"))[-1]
    with np.load(newest) as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith("weights/")}


def ids_and_weights(folder):
    """Return the ids of a run's words, and its weights by the names that `helpers.oracle` expects."""
    ids = {word: number for number, word in enumerate((folder / "vocabulary.txt").read_text().split())}
    arrays = weights(folder)
    return ids, {name.removeprefix("weights/").removeprefix("language_model/"): array for name, array in arrays.items()}


def result(folder):
    """Return the content of `result.json`."""
    return json.loads((folder / "result.json").read_text())


def history(folder):
    """Return the records of `history.jsonl` without what depends on the clock and on who edits the program meanwhile."""
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    varying = ("seconds", "words_per_second", "git_revision")
    return [{name: value for name, value in record.items() if name not in varying} for record in records]


def events(folder):
    """Return the events of a folder as TensorBoard reads them, all of them."""
    return EventAccumulator(str(folder), size_guidance={TENSORS: 0}).Reload()


def trial(folder):
    """Return the start of the trial that TensorBoard's table of hyperparameters shows for a run."""
    (started,) = [value for tag, value in events(folder).summary_metadata.items() if "session_start" in tag]
    return HParamsPluginData.FromString(started.plugin_data.content).session_start_info


def curve(folder, tag):
    """Return the points (step, value) of a curve as TensorBoard reads them; a text is a string."""
    points = events(folder).Tensors(tag)
    return [(point.step, _value(tensor_util.make_ndarray(point.tensor_proto))) for point in points]


def curves(folder):
    """Return the points of all curves of training that there are, by tag."""
    tags = events(folder).Tags()["tensors"]
    return {tag: curve(folder, tag) for tag in (RUNNING, LEARNING_RATE, GRADIENT_NORM, TRAIN, VALID, TEST) if tag in tags}


def _value(array):
    return array.item().decode() if array.dtype == object else float(array)


def assert_same_run(survived, unbroken):
    """Weights bit for bit, history line for line, curves point for point, and the score."""
    expected, reached = weights(unbroken), weights(survived)
    assert expected.keys() == reached.keys()
    for name in expected:
        np.testing.assert_array_equal(reached[name], expected[name])
    assert history(survived) == history(unbroken)
    assert curves(survived) == curves(unbroken)
    assert result(survived)["test_perplexity"] == result(unbroken)["test_perplexity"]
