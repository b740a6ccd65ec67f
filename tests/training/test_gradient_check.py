"""Gradients against central differences for every configuration and option; and that a wrong gradient is found."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs import CONFIGS, SMALL
from ptb.config import flatten, override
from ptb.model.cells import CELLS
from ptb.training.gradient_check import central_differences, check_config, tiny_architecture

LIMIT = 5e-6
# The check replaces these by values of its own, or does not use them.
NO_PART_OF_A_DERIVATION = {
    *("model.init_scale", "model.initializers", "model.forget_bias", "model.orthogonal_recurrence"),
    *("averaging", "temperature_scaling", "batch_size", "num_steps", "num_epochs", "bptt_steps"),
}
USUAL = (
    "small",
    "medium",
    "char_rnn",
    "gru",
    "melis_10m",
    "awd_lstm",
    "mogrifier_24m",
    "mos",
)  # slow tests check the others
OPTIONS = {  # that no configuration has
    "dropout_between_layers": {"dropout.hidden": 0.5},
    "burn_in_with_dropout": {"num_steps": 3, "bptt_steps": 7, "dropout": 0.5, "layers": (1,)},
    "gru_with_recurrent_dropout": {"cell": "gru", "dropout.state": 0.3, "dropout.weights": 0.3, "layers": (1,)},
}


def derivation(config):
    """Return what the derivation of a gradient depends on: of rates and weights only whether they are above 0."""
    fields = flatten(override(config, {"model": tiny_architecture(config.model)})) | {"burn_in": config.burn_in}
    unused = {*NO_PART_OF_A_DERIVATION, *(path for path in fields if re.match("optimizer|schedule|stopping|data", path))}
    if config.model.cell != "mogrifier_lstm":
        unused |= {"model.mogrifier_rounds", "model.mogrifier_rank"}
    used = {path: fields[path] for path in fields.keys() - unused}
    return frozenset((path, value > 0 if isinstance(value, float) else value) for path, value in used.items())


# Every configuration, by the first that has the same derivation.
DERIVATIONS = {derivation(named.config): name for name, named in reversed(CONFIGS.items())}


def test_configurations_have_every_cell():
    assert {named.config.model.cell for named in CONFIGS.values()} == set(CELLS)


@pytest.mark.parametrize("option", OPTIONS)
def test_gradients_equal_central_differences(option):
    errors = check_config(override(SMALL, OPTIONS[option]))
    assert all(error < LIMIT for error in errors.values()), errors


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in USUAL else pytest.mark.slow) for n in DERIVATIONS.values()])
def test_gradients_of_the_configurations_equal_central_differences(name):
    errors = check_config(CONFIGS[name].config)
    assert all(error < LIMIT for error in errors.values()), errors


def test_every_variable_has_an_error():
    errors = check_config(override(SMALL, {"layers": (1,), "cell": "gru"}))
    layer = {f"gru_0/{name}" for name in ("kernel", "recurrent_kernel", "bias", "recurrent_bias")}
    assert errors.keys() == {"embedding", "softmax_weights", "softmax_bias"} | layer


def test_a_wrong_gradient_is_found(monkeypatch):
    def without_the_recurrent_path(step):
        def cut(z, state, recurrent_matmul):
            return step(z, state, lambda hidden: recurrent_matmul(tf.stop_gradient(hidden)))

        return cut

    monkeypatch.setitem(CELLS, "lstm", CELLS["lstm"]._replace(step=without_the_recurrent_path(CELLS["lstm"].step)))
    errors = check_config(SMALL, rnn_mode="stepwise")
    assert errors["lstm_0/kernel"] > 1e-2
    assert errors["softmax_weights"] < LIMIT  # the recurrent path does not reach these


def test_central_differences_by_hand():
    variable = keras.Variable([[1.0, -2.0], [0.5, 3.0]], dtype="float64")
    measured = central_differences(lambda: np.sum(variable.numpy() ** 3), variable)
    np.testing.assert_allclose(measured, [[3, 12], [0.75, 27]], rtol=1e-7)
    np.testing.assert_array_equal(variable, [[1.0, -2.0], [0.5, 3.0]])
