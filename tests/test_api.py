"""The library in a fresh process: `import ptb` is fast, and Keras loads a model that it saved."""

import json
import subprocess
import sys

import numpy as np
import pytest

import ptb
from helpers.processes import ROOT
from ptb.config import Dropout, Model

NAMES = ["Config", "LanguageModel", "TrainedModel", "load", "override"]
MODELS = {
    "plain": Model(layers=(6, 5)),
    "one_hot": Model(layers=(6,), one_hot_input=True),
    "orthogonal": Model(layers=(6, 5), orthogonal_recurrence=True, forget_bias=1.0),
    "two_biases": Model(layers=(6, 5), two_biases=True),
    "gru": Model(layers=(6, 5), cell="gru"),
    "peephole_lstm": Model(layers=(6, 5), cell="peephole_lstm"),
}
IDS = np.arange(12, dtype=np.int32).reshape(3, 4)
LOAD = """
import json, sys
import ptb; ptb.Config, ptb.override, dir(ptb)
assert {"tensorflow", "keras", "numpy"}.isdisjoint(sys.modules), "not before they are used"
from ptb import LanguageModel
import keras, numpy as np
for path in sys.argv[1:]:
    model = keras.models.load_model(path)
    logits, _ = model(np.arange(12, dtype=np.int32).reshape(3, 4), model.initial_state(3))
    np.save(path.replace(".keras", ".npy"), logits)
    with open(path.replace(".keras", ".json"), "w") as file:
        json.dump(model.get_config(), file)
"""


def python(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_public_names():
    assert sorted(ptb.__all__) == NAMES
    assert {*NAMES} <= {*dir(ptb)}
    for name in NAMES:
        assert getattr(ptb, name).__name__ == name
    with pytest.raises(AttributeError, match="Trained"):
        ptb.Trained  # noqa: B018


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a .keras file of each model, and the models."""
    folder, models = tmp_path_factory.mktemp("saved"), {}
    for seed, (name, architecture) in enumerate(MODELS.items()):
        models[name] = ptb.LanguageModel(30, architecture, Dropout(hidden=0.5), product_dtype="bfloat16", seed=seed)
        models[name].save(folder / f"{name}.keras")
    return folder, models


@pytest.mark.slow
def test_keras_loads_saved_models_in_a_fresh_process(saved):
    folder, models = saved
    paths = sorted(folder.glob("*.keras"))
    process = python(LOAD, *paths)
    assert process.returncode == 0, process.stderr
    for path in paths:
        model = models[path.stem]
        expected, _ = model(IDS, model.initial_state(3))
        np.testing.assert_array_equal(np.load(path.with_suffix(".npy")), expected)
        assert json.loads(path.with_suffix(".json").read_text()) == model.get_config()
