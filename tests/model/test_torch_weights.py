"""Weights to and from torch.nn.LSTM, against results of PyTorch 2.13 for two layers with random weights and states."""

import json

import numpy as np
import pytest
import tensorflow as tf

from helpers.processes import ROOT
from helpers.texts import raises_one_line
from ptb.model.cells import LSTMState
from ptb.model.language_model import Recurrent
from ptb.model.torch_weights import from_torch, to_torch


@pytest.fixture(scope="module")
def torch_lstm():
    record = json.loads((ROOT / "tests" / "fixtures" / "torch_lstm.json").read_text())
    state_dict = {name: np.array(weights) for name, weights in record.pop("state_dict").items()}
    return state_dict, {name: np.array(values) for name, values in record.items()}


def test_layers_with_pytorchs_weights_compute_what_pytorch_did(torch_lstm):
    state_dict, record = torch_lstm
    outputs = tf.constant(record["inputs"])
    for index, weights in enumerate(from_torch(state_dict)):
        layer = Recurrent(2, dtype="float64")
        layer.build((None, None, outputs.shape[-1]))
        layer.set_weights(weights)
        outputs, state = layer(outputs, LSTMState(record["hidden"][index], record["cell"][index]))
        np.testing.assert_allclose(state.hidden, record["last_hidden"][index], rtol=1e-9)
        np.testing.assert_allclose(state.cell, record["last_cell"][index], rtol=1e-9)
    np.testing.assert_allclose(outputs, record["outputs"], rtol=1e-9)


def test_to_torch_is_the_inverse_of_from_torch(torch_lstm):
    state_dict, _ = torch_lstm
    returned = to_torch(from_torch(state_dict))
    assert returned.keys() == state_dict.keys()
    for name, weights in returned.items():
        assert weights.shape == state_dict[name].shape
        if "weight" in name:
            np.testing.assert_array_equal(weights, state_dict[name])
    for layer in range(2):
        both = [sum(weights[f"bias_{kind}_l{layer}"] for kind in ("ih", "hh")) for weights in (returned, state_dict)]
        np.testing.assert_array_equal(*both)


def test_a_layer_with_two_biases_keeps_both():
    weights = [np.full(shape, number) for number, shape in enumerate([(2, 8), (2, 8), 8, 8])]
    state_dict = to_torch([weights])
    assert [state_dict[f"bias_{kind}_l0"][0] for kind in ("ih", "hh")] == [2, 3]


def test_layers_without_biases_have_zeros(torch_lstm):
    bare = {name: weights for name, weights in torch_lstm[0].items() if "bias" not in name}
    for (*matrices, bias), (*expected, _) in zip(from_torch(bare), from_torch(torch_lstm[0]), strict=True):
        for matrix, wanted in zip(matrices, expected, strict=True):
            np.testing.assert_array_equal(matrix, wanted)
        np.testing.assert_array_equal(bias, np.zeros(8))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda weights: {f"rnn.{name}": array for name, array in weights.items()}, "rnn.weight_ih_l0"),
        (lambda weights: {}, "weight_ih_l0"),
        (lambda weights: {name: array for name, array in weights.items() if name != "weight_hh_l0"}, "weight_hh_l0"),
        (lambda weights: {name: array[:6] for name, array in weights.items()}, "weight_hh_l0"),  # three gates, as of a GRU
        (lambda weights: weights | {"weight_ih_l0_reverse": np.zeros((2, 2))}, "weight_ih_l0_reverse"),
        (lambda weights: weights | {"weight_hr_l0": np.zeros((2, 2))}, "weight_hr_l0"),
    ],
)
def test_weights_of_anything_but_an_lstm_are_an_error_with_their_name(torch_lstm, change, named):
    with raises_one_line(ValueError, named):
        from_torch(change(torch_lstm[0]))
