"""Every kernel that this machine has against NumPy in float64 and against Keras's layer."""

import contextlib
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import oracle
from ptb.model import kernels
from ptb.model.cells import CELLS, LSTMState
from ptb.model.kernels import find_kernel, matmul

STEPS, BATCH, INPUT, UNITS = 4, 3, 5, 2
HAS_GPU = bool(tf.config.list_physical_devices("GPU"))
each_kernel = pytest.mark.parametrize(
    "name", ["stepwise", pytest.param("cudnn", marks=pytest.mark.skipif(not HAS_GPU, reason="needs a GPU"))]
)


def make_case(dtype=np.float64):
    """Return inputs, first hidden, first cell, kernel, recurrent_kernel and bias."""
    rng = np.random.default_rng(0)
    shapes = [
        (STEPS, BATCH, INPUT),
        (BATCH, UNITS),
        (BATCH, UNITS),
        (INPUT, 4 * UNITS),
        (UNITS, 4 * UNITS),
        (4 * UNITS,),
    ]
    return [rng.normal(0, 0.7, shape).astype(dtype) for shape in shapes]


def result_weights(dtype):
    """Return the weights of outputs, last hidden and last cell in the sum whose gradient is taken."""
    rng = np.random.default_rng(9)
    return [rng.normal(size=shape).astype(dtype) for shape in ((STEPS, BATCH, UNITS), (BATCH, UNITS), (BATCH, UNITS))]


@functools.cache
def compile_kernel(name, dtype, product_dtype, dynamic=False):
    """Return a compiled function of the arguments of a kernel, for a static or a dynamic number of time steps.

    It returns the outputs, last hidden and last cell, and the gradients of their weighted sum by all six arguments.
    """
    shapes = [argument.shape for argument in make_case()]
    specs = [tf.TensorSpec([None if dynamic else STEPS, *shapes[0][1:]], dtype), *[tf.TensorSpec(s, dtype) for s in shapes[1:]]]

    @tf.function(autograph=False, input_signature=specs)
    def compute(*arguments):
        inputs, hidden, cell, *matrices = arguments
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            outputs, state = find_kernel(name)(inputs, LSTMState(hidden, cell), matrices, product_dtype)
            results = [outputs, state.hidden, state.cell]
            total = tf.add_n([tf.reduce_sum(w * r) for w, r in zip(result_weights(dtype.as_numpy_dtype), results)])
        return results, tape.gradient(total, arguments)

    return compute


def run_kernel(name, arguments, product_dtype=None, dynamic=False):
    """Return the results and the gradients as one list of arrays."""
    dtype = tf.as_dtype(arguments[0].dtype)
    results, gradients = compile_kernel(name, dtype, product_dtype or dtype, dynamic)(*map(tf.constant, arguments))
    return [tensor.numpy() for tensor in (*results, *gradients)]


def expected_results(arguments):
    """Return what `run_kernel` should, from NumPy."""
    outputs, hidden, cell, trace = oracle.lstm(*arguments)
    return [outputs, hidden, cell, *oracle.lstm_gradient(trace, arguments[3], arguments[4], *result_weights(np.float64))]


def test_the_gradient_in_numpy_equals_central_differences():
    arguments, epsilon = make_case(), 1e-5
    rng = np.random.default_rng(3)
    for argument, gradient in zip(arguments, expected_results(arguments)[3:], strict=True):
        for _ in range(5):
            place = tuple(rng.integers(size) for size in argument.shape)
            totals = []
            for sign in (1, -1):
                kept, argument[place] = argument[place], argument[place] + sign * epsilon
                totals.append(sum((w * r).sum() for w, r in zip(result_weights(np.float64), oracle.lstm(*arguments))))
                argument[place] = kept
            assert gradient[place] == pytest.approx((totals[0] - totals[1]) / (2 * epsilon), rel=1e-6, abs=1e-8)


@each_kernel
@pytest.mark.parametrize("dynamic", [False, True], ids=["unrolled", "while_loop"])
def test_values_and_gradients_equal_numpy(name, dynamic):
    for got, expected in zip(run_kernel(name, make_case(), dynamic=dynamic), expected_results(make_case()), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)


@each_kernel
def test_float32_is_close_to_float64(name):
    for got, expected in zip(run_kernel(name, make_case(np.float32)), expected_results(make_case()), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_products_have_errors_of_their_rounding():
    """Of `stepwise`: cuDNN computes bfloat16 in float32."""
    arguments = make_case(np.float32)
    expected_arrays = expected_results([a.astype(np.float64) for a in arguments])
    for got, expected in zip(run_kernel("stepwise", arguments, product_dtype=tf.bfloat16), expected_arrays, strict=True):
        error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
        assert got.dtype == np.float32
        assert 1e-5 < error < 3e-2  # rounded to 8 bits, but not lost


@each_kernel
def test_a_keras_layer_with_the_same_weights_gives_the_same_results(name):
    inputs, hidden, cell, *weights = arguments = make_case(np.float32)
    layer = keras.layers.LSTM(UNITS, return_sequences=True, return_state=True)
    layer.build((None, None, INPUT))
    layer.set_weights(weights)
    with tf.GradientTape() as tape:
        keras_outputs, keras_hidden, keras_cell = layer(inputs.transpose(1, 0, 2), initial_state=[hidden, cell])
        keras_results = tf.transpose(keras_outputs, [1, 0, 2]), keras_hidden, keras_cell
        total = sum(tf.reduce_sum(w * r) for w, r in zip(result_weights(np.float32), keras_results))
    keras_gradients = tape.gradient(total, [variable.value for variable in layer.trainable_variables])
    *results, _, _, _, d_kernel, d_recurrent_kernel, d_bias = run_kernel(name, arguments)
    for got, expected in zip(results, keras_results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    for got, expected in zip((d_kernel, d_recurrent_kernel, d_bias), keras_gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("has_mask", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("cell", ["lstm", "capped_lstm"])
def test_the_cap_and_recurrent_dropout_equal_numpy_and_central_differences(cell, has_mask):
    """The mask is on h alone, the same at all steps, also on the state before the first; the outputs are not dropped."""
    arguments, epsilon = make_case(), 1e-5
    mask = np.array([[0.0, 1.5], [2.0, 0.0], [1.0, 0.5]]) if has_mask else None
    numpy_cell = {"lstm": oracle.masked_lstm, "capped_lstm": oracle.capped_lstm}[cell]

    def total(values):
        results = numpy_cell(*values, 1 if mask is None else mask)
        return sum((w * r).sum() for w, r in zip(result_weights(np.float64), results, strict=True))

    inputs, hidden, state_cell, *weights = tensors = [tf.constant(argument) for argument in arguments]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs, state = find_kernel("stepwise", cell)(inputs, LSTMState(hidden, state_cell), weights, tf.float64, mask)
        results = [outputs, state.hidden, state.cell]
        cost = tf.add_n([tf.reduce_sum(w * r) for w, r in zip(result_weights(np.float64), results)])
    for got, expected in zip(results, numpy_cell(*arguments, 1 if mask is None else mask), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    for argument, gradient in zip(arguments, tape.gradient(cost, tensors), strict=True):
        for place in np.ndindex(argument.shape):
            totals, kept = [], argument[place]
            for sign in (1, -1):
                argument[place] = kept + sign * epsilon
                totals.append(total(arguments))
            argument[place] = kept
            assert gradient[place].numpy() == pytest.approx((totals[0] - totals[1]) / (2 * epsilon), rel=1e-6, abs=1e-8)


def test_cudnn_rejects_recurrent_dropout():
    inputs, hidden, cell, *weights = make_case(np.float32)
    with pytest.raises(ValueError, match="cudnn"):
        find_kernel("cudnn")(inputs, LSTMState(hidden, cell), weights, tf.float32, np.ones((BATCH, UNITS), np.float32))


@each_kernel
def test_one_long_window_equals_two_that_carry_the_state(name):
    inputs, hidden, cell, *weights = [tf.constant(argument) for argument in make_case()]
    kernel = find_kernel(name)
    whole, last = kernel(inputs, LSTMState(hidden, cell), weights, tf.float64)
    first, state = kernel(inputs[:2], LSTMState(hidden, cell), weights, tf.float64)
    second, state = kernel(inputs[2:], state, weights, tf.float64)
    np.testing.assert_allclose(tf.concat([first, second], 0), whole, rtol=1e-12)
    np.testing.assert_allclose(state, last, rtol=1e-12)
    without_cell, _ = kernel(inputs[2:], LSTMState(hidden, tf.zeros_like(cell)), weights, tf.float64)
    assert np.abs(without_cell - whole[2:]).max() > 1e-3  # both halves of the state matter


def test_cudnn_rejects_the_cells_that_it_cannot_run():
    for cell in CELLS:
        with contextlib.nullcontext() if cell == "lstm" else pytest.raises(ValueError, match=cell):
            find_kernel("cudnn", cell)


@pytest.mark.parametrize("has_avx512", [False, True])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("rows", [20, 65, None])
@pytest.mark.parametrize("size", [(512, 600), (40, 600)])
def test_a_product_with_a_transposed_matrix_is_the_same_on_every_processor(has_avx512, dtype, rows, size, monkeypatch):
    """And is computed in the other order on the processors, for the sizes and in the type for which that is faster."""
    monkeypatch.setattr(kernels, "has_avx512", lambda: has_avx512)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(rows or 20, 600)).astype(np.float32), rng.normal(size=size).astype(np.float32)
    product = tf.function(lambda a: kernels.matmul_transposed(a, b, dtype), [tf.TensorSpec([rows, 600])], autograph=False)
    exact = a.astype(np.float64) @ b.T
    error = np.linalg.norm(product(a) - exact) / np.linalg.norm(exact)
    assert error < (1e-6 if dtype == tf.float32 else 1e-2)
    orders = [operation.type for operation in product.get_concrete_function().graph.get_operations()]
    assert ("Transpose" in orders) == (has_avx512 and dtype == tf.float32 and rows == 20 and size[0] == 512)


def test_matmul_rounds_its_factors_and_its_result_but_not_its_sums():
    a = np.random.default_rng(0).normal(size=(64, 300)).astype(np.float32)
    b = np.random.default_rng(1).normal(size=(300, 48)).astype(np.float32)
    exact = a.astype(np.float64) @ b
    assert np.linalg.norm(matmul(a, b, tf.float32) - exact) / np.linalg.norm(exact) < 1e-6
    factors = [tf.cast(tf.cast(factor, tf.bfloat16), tf.float64).numpy() for factor in (a, b)]
    rounded = matmul(a, b, tf.bfloat16)
    assert rounded.dtype == tf.float32
    one_bit = 2**-7  # of bfloat16's mantissa: some processors truncate the result, others round it
    np.testing.assert_allclose(rounded, factors[0] @ factors[1], rtol=one_bit, atol=1e-4)
    np.testing.assert_array_equal(rounded, tf.cast(tf.cast(rounded, tf.bfloat16), tf.float32))
    assert np.linalg.norm(rounded - exact) / np.linalg.norm(exact) > 1e-3
