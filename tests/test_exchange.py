"""Weights to and from torch.nn.LSTM, against what PyTorch 2.13 computed with them (two layers, random weights and state)."""

import json

import numpy as np
import pytest
import tensorflow as tf

from processes import ROOT
from ptb.cells import LSTMState
from ptb.exchange import from_torch, to_torch
from ptb.model import Recurrent


@pytest.fixture(scope="module")
def torch_lstm():
    record = json.loads((ROOT / "tests" / "data" / "torch_lstm.json").read_text())
    state_dict = {name: np.array(weights) for name, weights in record.pop("state_dict").items()}
    return state_dict, {name: np.array(values) for name, values in record.items()}


@pytest.mark.parametrize("rnn_mode", ["basic", "fused"])
def test_layers_with_pytorchs_weights_compute_what_pytorch_did(torch_lstm, rnn_mode):
    state_dict, record = torch_lstm
    outputs = tf.constant(record["inputs"])
    for index, weights in enumerate(from_torch(state_dict)):
        layer = Recurrent(2, initializer="zeros", rnn_mode=rnn_mode, dtype="float64")
        layer.build((None, None, outputs.shape[-1]))
        layer.set_weights(weights)
        outputs, state = layer(outputs, LSTMState(record["hidden"][index], record["cell"][index]))
        np.testing.assert_allclose(state.hidden, record["last_hidden"][index], rtol=1e-9)
        np.testing.assert_allclose(state.cell, record["last_cell"][index], rtol=1e-9)
    np.testing.assert_allclose(outputs, record["outputs"], rtol=1e-9)


def test_the_way_there_is_the_inverse_of_the_way_back(torch_lstm):
    state_dict, _ = torch_lstm
    there = to_torch(from_torch(state_dict))
    assert there.keys() == state_dict.keys()
    for name, weights in there.items():
        assert weights.shape == state_dict[name].shape
        if "weight" in name:
            np.testing.assert_array_equal(weights, state_dict[name])
    for layer in range(2):
        both = [sum(weights[f"bias_{kind}_l{layer}"] for kind in ("ih", "hh")) for weights in (there, state_dict)]
        np.testing.assert_array_equal(*both)


def test_two_biases_are_pytorchs_two():
    weights = [np.full(shape, number) for number, shape in enumerate([(2, 8), (2, 8), 8, 8])]
    state_dict = to_torch([weights])
    assert [state_dict[f"bias_{kind}_l0"][0] for kind in ("ih", "hh")] == [2, 3]


def test_layers_without_biases_have_zeros(torch_lstm):
    bare = {name: weights for name, weights in torch_lstm[0].items() if "bias" not in name}
    for (*matrices, bias), (*expected, _) in zip(from_torch(bare), from_torch(torch_lstm[0]), strict=True):
        for matrix, wanted in zip(matrices, expected, strict=True):
            np.testing.assert_array_equal(matrix, wanted)
        np.testing.assert_array_equal(bias, np.zeros(8))


def test_what_is_not_an_lstm_alone_is_refused(torch_lstm):
    with pytest.raises(ValueError, match="no weight_ih_l0 among rnn.weight_ih_l0.*give the state_dict of the LSTM alone"):
        from_torch({f"rnn.{name}": weights for name, weights in torch_lstm[0].items()})
    with pytest.raises(ValueError, match="weight_ih_l0 without weight_hh_l0"):
        from_torch({name: weights for name, weights in torch_lstm[0].items() if name != "weight_hh_l0"})
    gru = {name: weights[:6] for name, weights in torch_lstm[0].items()}
    with pytest.raises(ValueError, match="weight_hh_l0: has 6 rows for 2 units, not the 4 gates of an LSTM"):
        from_torch(gru)


@pytest.mark.parametrize("name", ["weight_ih_l0_reverse", "weight_hr_l0"])
def test_what_only_pytorch_has_is_refused(torch_lstm, name):
    with pytest.raises(ValueError, match=name):
        from_torch(torch_lstm[0] | {name: np.zeros((2, 2))})
