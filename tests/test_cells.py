"""Every recurrent cell against NumPy in float64, and where Keras has the same, against Keras's layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import oracle
from ptb.cells import CELLS, LSTMState
from ptb.model import LanguageModel, Recurrent

STEPS, BATCH, INPUT, UNITS = 5, 3, 4, 6
cells = pytest.mark.parametrize("cell", CELLS)


def layer_of(cell, dtype="float64"):
    """Returns a layer of the cell with random weights, its biases and peepholes among them."""
    layer = Recurrent(UNITS, cell=cell, initializer="zeros", dtype=dtype)
    layer.build((None, None, INPUT))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(0, 0.7, weights.shape) for weights in layer.get_weights()])
    return layer


def case(layer, dtype=np.float64):
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(STEPS, BATCH, INPUT)).astype(dtype)
    return inputs, tf.nest.map_structure(lambda t: rng.normal(size=t.shape).astype(dtype), layer.initial_state(BATCH))


@cells
def test_outputs_and_state_are_the_oracles(cell):
    layer = layer_of(cell)
    inputs, state = case(layer)
    wanted_outputs, *wanted_state = oracle.CELLS[cell](inputs, *state, *layer.get_weights())
    outputs, state = layer(inputs, state)
    np.testing.assert_allclose(outputs, wanted_outputs, rtol=1e-12)
    for got, wanted in zip(state, wanted_state, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


@cells
def test_step_by_step_and_the_whole_sequence_agree(cell):
    layer = layer_of(cell)
    inputs, state = case(layer)
    whole, last = layer(inputs, state)
    for x, wanted in zip(inputs, whole):
        outputs, state = layer(x[np.newaxis], state)
        np.testing.assert_allclose(outputs[0], wanted, rtol=1e-12)
    np.testing.assert_allclose(tf.stack(state), tf.stack(last), rtol=1e-12)


@cells
def test_the_first_step_starts_from_zeros(cell):
    layer = layer_of(cell)
    state = layer.initial_state(BATCH)
    assert isinstance(state, CELLS[cell].state)
    for tensor in state:
        np.testing.assert_array_equal(tensor, np.zeros((BATCH, UNITS)))


@pytest.mark.parametrize(
    ("cell", "theirs"),
    [
        ("tanh_rnn", keras.layers.SimpleRNN(UNITS, return_sequences=True)),
        ("sigmoid_rnn", keras.layers.SimpleRNN(UNITS, activation="sigmoid", return_sequences=True)),
        ("gru", keras.layers.GRU(UNITS, return_sequences=True)),
    ],
)
def test_a_keras_layer_with_the_same_weights_gives_the_same(cell, theirs):
    ours = layer_of(cell, "float32")
    inputs, state = case(ours, np.float32)
    weights = ours.get_weights()
    if cell == "gru":  # Keras has both biases in one variable
        kernel, recurrent_kernel, bias, recurrent_bias = weights
        weights = [kernel, recurrent_kernel, np.stack([bias, recurrent_bias.reshape(-1)])]
    theirs.build((None, None, INPUT))
    theirs.set_weights(weights)
    wanted = theirs(inputs.transpose(1, 0, 2), initial_state=list(state))
    np.testing.assert_allclose(ours(inputs, state)[0].numpy().transpose(1, 0, 2), wanted, rtol=1e-4, atol=1e-5)


def test_without_peepholes_a_peephole_lstm_is_an_lstm():
    peephole, plain = layer_of("peephole_lstm"), layer_of("lstm")
    *weights, peepholes = peephole.get_weights()
    peephole.set_weights([*weights, np.zeros_like(peepholes)])
    plain.set_weights(weights)
    inputs, state = case(plain)
    np.testing.assert_allclose(peephole(inputs, state)[0], plain(inputs, state)[0], rtol=1e-12)


@pytest.mark.parametrize(("index", "sees"), [(0, "old"), (1, "old"), (2, "new")])
def test_peepholes_of_i_and_f_see_the_cell_before_and_that_of_o_the_cell_after(index, sees):
    layer = layer_of("peephole_lstm")
    *weights, peepholes = layer.get_weights()
    inputs, state = case(layer)
    state = LSTMState(state.hidden, np.zeros_like(state.cell))  # nothing to see before the first step
    outputs = []
    for scale in (1, 2):
        changed = peepholes.copy()
        changed[index] *= scale
        layer.set_weights([*weights, changed])
        outputs.append(layer(inputs[:1], state)[0].numpy())
    assert np.array_equal(*outputs) == (sees == "old")


@pytest.mark.parametrize("cell", ["lstm", "peephole_lstm"])
def test_the_forget_bias_is_added_to_the_forget_gate(cell):
    layer = Recurrent(UNITS, cell=cell, initializer="zeros", forget_bias=0.7)
    layer.build((None, None, INPUT))
    np.testing.assert_array_equal(layer.bias, np.repeat(np.float32([0, 0.7, 0, 0]), UNITS))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"forget_bias": 0.7}, "gru has no forget gate"), ({"two_biases": True}, "gru has two per gate anyway")],
)
def test_options_that_a_cell_has_no_use_for_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LanguageModel(9, UNITS, 1, cell="gru", **options)


def test_orthogonal_recurrence_makes_each_gates_matrix_orthogonal():
    model = LanguageModel(9, UNITS, 2, orthogonal_recurrence=True, seed=3)
    blocks = [block for layer in model.recurrent_layers for block in np.split(layer.recurrent_kernel.numpy(), 4, axis=1)]
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, np.eye(UNITS), atol=1e-5)
    assert len({block.tobytes() for block in blocks}) == 8
