"""Gradients against central differences for every configuration and option; and that a wrong gradient is found."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs import CONFIGS, SMALL
from ptb.config import flatten, override
from ptb.model.cells import CELLS
from ptb.training.gradient_check import central_differences, check_config

LIMIT = 5e-6
OPTIONS = {
    "mean": {"reduction": "mean", "layers": (1,)},
    "softmax_l2": {"softmax_l2": 0.1, "layers": (1,)},
    "dropout_between_layers": {"dropout.hidden": 0.5},
    "burn_in": {"num_steps": 3, "bptt_steps": 7, "layers": (1,)},
    "burn_in_with_dropout": {"num_steps": 3, "bptt_steps": 7, "dropout": 0.5},
}


def derivation(config):
    """Return what the derivation of a gradient depends on. The check replaces sizes and initial weights by its own."""
    fields = {path.rpartition(".")[2]: value for path, value in flatten(config).items()}
    kinds = [fields[name] for name in ("cell", "two_biases", "one_hot_input", "reduction")]
    uses = [fields[name] > 0 for name in ("input", "hidden", "output", "softmax_samples", "softmax_l2")]
    return len(config.model.layers), config.burn_in > 0, *kinds, *uses


# One configuration for each way in which a gradient is derived: the first that has it.
DERIVATIONS = {derivation(named.config): name for name, named in reversed(CONFIGS.items())}


def test_configurations_have_every_cell():
    assert {named.config.model.cell for named in CONFIGS.values()} == set(CELLS)


@pytest.mark.parametrize("option", OPTIONS)
def test_gradients_equal_central_differences(option):
    errors = check_config(override(SMALL, OPTIONS[option]))
    assert max(errors.values()) < LIMIT, errors


@pytest.mark.parametrize("name", DERIVATIONS.values())
def test_gradients_of_the_configurations_equal_central_differences(name):
    errors = check_config(CONFIGS[name].config)
    assert max(errors.values()) < LIMIT, errors


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
