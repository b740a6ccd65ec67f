"""Every recurrent cell against NumPy in float64 and, if Keras has the same cell, against Keras's layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import oracle
from ptb import config
from ptb.model.cells import CELLS, LSTMState
from ptb.model.language_model import Recurrent

STEPS, BATCH, INPUT, UNITS = 5, 3, 4, 6
each_cell = pytest.mark.parametrize("cell", CELLS)


def build_layer(cell, dtype="float32", **options):
    layer = Recurrent(UNITS, cell=cell, dtype=dtype, **{"mogrifier_rounds": 5, "mogrifier_rank": 3} | options)
    layer.build((None, None, INPUT))
    return layer


def make_layer(cell, dtype="float64", **options):
    """Return a layer of the cell with random weights, biases and extra weights included."""
    layer = build_layer(cell, dtype, **options)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(0, 0.7, weights.shape) for weights in layer.get_weights()])
    return layer


def make_case(layer, dtype=np.float64):
    """Return random inputs and a random state."""
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(STEPS, BATCH, INPUT)).astype(dtype)
    return inputs, tf.nest.map_structure(lambda t: rng.normal(size=t.shape).astype(dtype), layer.initial_state(BATCH))


def test_a_configuration_knows_every_cell():
    assert set(config.CELLS) == set(CELLS)
    assert set(config.CELLS_WITH_FORGET_GATE) == {name for name, cell in CELLS.items() if cell.forget_gate is not None}


def assert_equals_numpy(cell, layer):
    inputs, state = make_case(layer)
    expected_outputs, *expected_state = oracle.CELLS[cell](inputs, *state, *layer.get_weights())
    outputs, state = layer(inputs, state)
    np.testing.assert_allclose(outputs, expected_outputs, rtol=1e-12)
    for got, expected in zip(state, expected_state, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)


@each_cell
def test_outputs_and_state_equal_numpy(cell):
    assert_equals_numpy(cell, make_layer(cell))


@each_cell
def test_a_mask_of_the_state_multiplies_h_before_the_recurrent_product_alone(cell):
    """As in Keras's recurrent_dropout and Gal & Ghahramani (2016); the Mogrifier of lamb drops h before its rounds too."""
    layer, mask = make_layer(cell), np.array([0.0, 2.0, 1.0, 0.5, 0.0, 3.0])
    inputs, state = make_case(layer)
    outputs, (hidden, *_) = layer(inputs, state, mask)
    expected = []
    for x in inputs:
        if cell == "mogrifier_lstm":
            state = LSTMState(state.hidden * mask, state.cell)
        weights = layer.get_weights()
        weights[1] = weights[1] * (1 if cell == "mogrifier_lstm" else mask[:, np.newaxis])  # (m ∘ h) R = h (m ∘ R)
        (output,), *state = oracle.CELLS[cell](x[np.newaxis], *state, *weights)
        state = CELLS[cell].state(*state)
        expected.append(output)
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    np.testing.assert_allclose(hidden, expected[-1], rtol=1e-12)


@each_cell
def test_single_steps_equal_the_whole_sequence(cell):
    layer = make_layer(cell)
    inputs, state = make_case(layer)
    whole, last = layer(inputs, state)
    for x, expected in zip(inputs, whole):
        outputs, state = layer(x[np.newaxis], state)
        np.testing.assert_allclose(outputs[0], expected, rtol=1e-12)
    np.testing.assert_allclose(tf.stack(state), tf.stack(last), rtol=1e-12)


@each_cell
def test_the_initial_state_is_zero(cell):
    layer = make_layer(cell)
    state = layer.initial_state(BATCH)
    assert isinstance(state, CELLS[cell].state)
    for tensor in state:
        np.testing.assert_array_equal(tensor, np.zeros((BATCH, UNITS)))


@pytest.mark.parametrize(
    ("cell", "keras_layer"),
    [
        ("tanh_rnn", keras.layers.SimpleRNN(UNITS, return_sequences=True)),
        ("sigmoid_rnn", keras.layers.SimpleRNN(UNITS, activation="sigmoid", return_sequences=True)),
        ("gru", keras.layers.GRU(UNITS, return_sequences=True)),
    ],
)
def test_a_keras_layer_with_the_same_weights_gives_the_same_outputs(cell, keras_layer):
    layer = make_layer(cell, "float32")
    inputs, state = make_case(layer, np.float32)
    weights = layer.get_weights()
    if cell == "gru":  # Keras has both biases in one variable
        kernel, recurrent_kernel, bias, recurrent_bias = weights
        weights = [kernel, recurrent_kernel, np.stack([bias, recurrent_bias.reshape(-1)])]
    keras_layer.build((None, None, INPUT))
    keras_layer.set_weights(weights)
    expected = keras_layer(inputs.transpose(1, 0, 2), initial_state=list(state))
    np.testing.assert_allclose(layer(inputs, state)[0].numpy().transpose(1, 0, 2), expected, rtol=1e-4, atol=1e-5)


def test_a_peephole_lstm_with_peepholes_of_zero_is_an_lstm():
    peephole, plain = make_layer("peephole_lstm"), make_layer("lstm")
    *weights, peepholes = peephole.get_weights()
    peephole.set_weights([*weights, np.zeros_like(peepholes)])
    plain.set_weights(weights)
    inputs, state = make_case(plain)
    np.testing.assert_allclose(peephole(inputs, state)[0], plain(inputs, state)[0], rtol=1e-12)


@pytest.mark.parametrize(("index", "sees_old_cell"), [(0, True), (1, True), (2, False)])
def test_peepholes_of_i_and_f_see_the_old_cell_and_that_of_o_the_new_one(index, sees_old_cell):
    layer = make_layer("peephole_lstm")
    *weights, peepholes = layer.get_weights()
    inputs, state = make_case(layer)
    state = LSTMState(state.hidden, np.zeros_like(state.cell))  # the old cell of the first step is zero
    outputs = []
    for scale in (1, 2):
        changed = peepholes.copy()
        changed[index] *= scale
        layer.set_weights([*weights, changed])
        outputs.append(layer(inputs[:1], state)[0].numpy())
    assert np.array_equal(*outputs) == sees_old_cell


def test_the_cap_holds_some_input_gates_and_not_others():
    layer = make_layer("capped_lstm")
    inputs, state = make_case(layer)
    kernel, recurrent_kernel, bias = layer.get_weights()
    i, f, _, _ = np.split(oracle.sigmoid(inputs[0] @ kernel + state.hidden @ recurrent_kernel + bias), 4, axis=1)
    assert 0 < (i > 1 - f).mean() < 1
    plain = make_layer("lstm")
    plain.set_weights(layer.get_weights())
    is_free = i < 1 - f
    cell, plain_cell = (each(inputs[:1], state)[1].cell.numpy() for each in (layer, plain))
    np.testing.assert_array_equal(cell == plain_cell, is_free)


@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
def test_a_mogrifier_of_any_number_of_rounds_and_any_rank_equals_numpy(rounds, rank):
    layer = make_layer("mogrifier_lstm", mogrifier_rounds=rounds, mogrifier_rank=rank)
    assert len(layer.extra_weights) == rounds * (3 if rank else 2)
    assert_equals_numpy("mogrifier_lstm", layer)


def test_a_mogrifier_whose_weights_are_zero_is_a_capped_lstm():
    """Its gates are then 2 σ(0) = 1."""
    layer, plain = make_layer("mogrifier_lstm"), make_layer("capped_lstm")
    weights = layer.get_weights()
    layer.set_weights([*weights[:3], *(np.zeros_like(weight) for weight in weights[3:])])
    plain.set_weights(weights[:3])
    inputs, state = make_case(plain)
    np.testing.assert_allclose(layer(inputs, state)[0], plain(inputs, state)[0], rtol=1e-12)


@pytest.mark.parametrize(("rank", "shapes"), [(84, {"a": (900, 84), "b": (84, 400)}), (0, {"a": (900, 400)})])
def test_the_products_of_a_mogrifier_start_as_large_as_a_matrix_of_full_rank_would(rank, shapes):
    """In the first round, from h [900] to x [400]. lamb: the variance of A B is 1 / fan-in, before the truncation of both."""
    layer = Recurrent(900, cell="mogrifier_lstm", mogrifier_rounds=5, mogrifier_rank=rank)
    layer.build((None, None, 400))
    by_name = {weight.name: weight.numpy() for weight in layer.extra_weights}
    product, truncated = np.eye(900), 0.7737  # the variance that a truncated normal distribution has left
    for name, shape in shapes.items():
        assert by_name[f"mogrifier_0_{name}"].shape == shape
        product = product @ by_name[f"mogrifier_0_{name}"]
    assert product.var() == pytest.approx(truncated ** len(shapes) / 900, rel=0.05)
    assert not by_name["mogrifier_0_bias"].any()
    assert by_name["mogrifier_1_bias"].shape == (900,)


@pytest.mark.parametrize("cell", ["lstm", "peephole_lstm"])
def test_two_biases_are_added(cell):
    """The extra weights of a cell stay in their place."""
    layer = make_layer(cell, two_biases=True)
    inputs, state = make_case(layer)
    kernel, recurrent_kernel, bias, recurrent_bias, *extra = layer.get_weights()
    expected = oracle.CELLS[cell](inputs, *state, kernel, recurrent_kernel, bias + recurrent_bias, *extra)[0]
    np.testing.assert_allclose(layer(inputs, state)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("cell", config.CELLS_WITH_FORGET_GATE)
def test_the_forget_bias_is_added_to_the_forget_gate_alone(cell):
    """Without other weights the candidate g is 0: c' = σ(0.7) c, and h' = σ(0) tanh(c')."""
    layer = build_layer(cell, "float64", forget_bias=0.7, kernel_initializer="zeros", recurrent_initializer="zeros")
    inputs, state = make_case(layer)
    _, new = layer(inputs[:1], state)
    np.testing.assert_allclose(new.cell, oracle.sigmoid(0.7) * state.cell, rtol=1e-12)
    np.testing.assert_allclose(new.hidden, np.tanh(new.cell) / 2, rtol=1e-12)
    assert np.count_nonzero(layer.bias) == UNITS


@pytest.mark.parametrize(("cell", "name"), [("peephole_lstm", "peepholes"), ("gru", "recurrent_bias")])
def test_extra_weights_start_at_zero(cell, name):
    layer = build_layer(cell, kernel_initializer="ones", bias_initializer="ones")
    assert layer.variables[-1].name == name
    np.testing.assert_array_equal(layer.get_weights()[-1], np.zeros((3, UNITS)))
