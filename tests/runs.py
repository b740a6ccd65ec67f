"""What a run has left in its folder, read for comparison, or changed."""

import json

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util


def weights(save_path):
    """Returns the weights in the newest checkpoint by name."""
    newest = sorted(save_path.glob("checkpoint-*.npz"))[-1]
    with np.load(newest) as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith("weights/")}


def learnt(save_path):
    """Returns the ids of a run's words, and its weights by the names of the model's variables."""
    ids = {word: number for number, word in enumerate((save_path / "vocabulary.txt").read_text().split())}
    arrays = weights(save_path)
    return ids, {name.removeprefix("weights/").removeprefix("language_model/"): array for name, array in arrays.items()}


def spell(save_path, word, other):
    """Writes a word of a run's vocabulary as another."""
    path = save_path / "vocabulary.txt"
    path.write_text(path.read_text().replace(word, other))


def history(save_path):
    """Returns the records of `history.jsonl` without what the clock says."""
    records = [json.loads(line) for line in (save_path / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "words_per_second")} for record in records]


def curve(folder, tag):
    """Returns a curve's points (step, value) as TensorBoard reads them."""
    points = EventAccumulator(str(folder)).Reload().Tensors(tag)
    return [(point.step, float(tensor_util.make_ndarray(point.tensor_proto))) for point in points]


def assert_same(survived, unbroken):
    """The weights bit for bit, the history line for line, the curves point for point, and the score."""
    expected, reached = weights(unbroken), weights(survived)
    assert expected.keys() == reached.keys()
    for name in expected:
        np.testing.assert_array_equal(reached[name], expected[name])
    assert history(survived) == history(unbroken)
    for tag in ("running_train_perplexity", "learning_rate", "mean_gradient_norm"):
        assert curve(survived, tag) == curve(unbroken, tag)
    for series in ("train", "valid"):
        assert curve(survived / series, "perplexity") == curve(unbroken / series, "perplexity")
    scores = [json.loads((folder / "result.json").read_text())["test_perplexity"] for folder in (survived, unbroken)]
    assert scores[0] == scores[1]
