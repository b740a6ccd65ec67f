"""Every kernel that this machine has against NumPy in float64 and against Keras's layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import oracle
from ptb.cells import LSTMState
from ptb.kernels import kernel_of, product

STEPS, BATCH, INPUT, UNITS = 6, 4, 5, 3
HAS_GPU = bool(tf.config.list_physical_devices("GPU"))
kernels = pytest.mark.parametrize(
    "name", ["basic", "fused", pytest.param("cudnn", marks=pytest.mark.skipif(not HAS_GPU, reason="needs a GPU"))]
)


def case(dtype=np.float64, seed=0):
    """Returns inputs, first hidden, first cell, kernel, recurrent_kernel and bias."""
    rng = np.random.default_rng(seed)
    shapes = [
        (STEPS, BATCH, INPUT),
        (BATCH, UNITS),
        (BATCH, UNITS),
        (INPUT, 4 * UNITS),
        (UNITS, 4 * UNITS),
        (4 * UNITS,),
    ]
    return [rng.normal(0, 0.7, shape).astype(dtype) for shape in shapes]


def compiled(name, arguments, product_dtype=None, dynamic=False):
    """Returns a function of arguments like these.

    It returns outputs, last hidden and cell of a kernel, and the gradients of their weighted sum in all six arguments.
    """
    weights = sum_weights(arguments[0].dtype)
    product_dtype = product_dtype or arguments[0].dtype

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None if dynamic and i == 0 and axis == 0 else size for axis, size in enumerate(a.shape)], a.dtype)
            for i, a in enumerate(arguments)
        ],
    )
    def compute(*arguments):
        inputs, hidden, cell, *matrices = arguments
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            outputs, state = kernel_of(name)(inputs, LSTMState(hidden, cell), matrices, product_dtype)
            results = [outputs, state.hidden, state.cell]
            total = tf.add_n([tf.reduce_sum(w * r) for w, r in zip(weights, results)])
        return results, tape.gradient(total, arguments)

    def run(*arguments):
        results, gradients = compute(*map(tf.constant, arguments))
        return [r.numpy() for r in results], [g.numpy() for g in gradients]

    return run


def run(name, arguments, **options):
    return compiled(name, arguments, **options)(*arguments)


def sum_weights(dtype):
    rng = np.random.default_rng(9)
    return [rng.normal(size=shape).astype(dtype) for shape in ((STEPS, BATCH, UNITS), (BATCH, UNITS), (BATCH, UNITS))]


def expected(arguments):
    outputs, hidden, cell, trace = oracle.lstm(*arguments)
    gradients = oracle.lstm_gradient(trace, arguments[3], arguments[4], *sum_weights(np.float64))
    return [outputs, hidden, cell], gradients


@kernels
@pytest.mark.parametrize("dynamic", [False, True], ids=["unrolled", "while loop"])
def test_values_and_gradients_are_the_oracles(name, dynamic):
    results, gradients = run(name, case(), dynamic=dynamic)
    wanted_results, wanted_gradients = expected(case())
    for got, wanted in zip([*results, *gradients], [*wanted_results, *wanted_gradients]):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-11)


@kernels
def test_float32_stays_close_to_float64(name):
    results, gradients = run(name, case(np.float32))
    wanted_results, wanted_gradients = expected(case())
    for got, wanted in zip([*results, *gradients], [*wanted_results, *wanted_gradients]):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["basic", "fused"])  # cuDNN's are in float32: see there
def test_bfloat16_products_stay_within_their_rounding(name):
    arguments = case(np.float32)
    results, gradients = run(name, arguments, product_dtype=tf.bfloat16)
    wanted_results, wanted_gradients = expected([a.astype(np.float64) for a in arguments])
    for got, wanted in zip([*results, *gradients], [*wanted_results, *wanted_gradients]):
        error = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
        assert got.dtype == np.float32
        assert 1e-5 < error < 3e-2  # rounded to 8 bits, but not lost


@kernels
def test_central_differences_agree_with_the_gradient(name):
    arguments, epsilon = case(), 1e-5
    weights = sum_weights(np.float64)
    kernel = compiled(name, arguments)
    gradients = kernel(*arguments)[1]
    rng = np.random.default_rng(3)
    for argument, gradient in zip(arguments, gradients):
        for _ in range(3):
            place = tuple(rng.integers(size) for size in argument.shape)
            totals = []
            for sign in (1, -1):
                kept, argument[place] = argument[place], argument[place] + sign * epsilon
                totals.append(sum((w * r).sum() for w, r in zip(weights, kernel(*arguments)[0])))
                argument[place] = kept
            assert gradient[place] == pytest.approx((totals[0] - totals[1]) / (2 * epsilon), rel=1e-6, abs=1e-8)


@kernels
def test_a_keras_layer_with_the_same_weights_gives_the_same(name):
    inputs, hidden, cell, *weights = case(np.float32)
    layer = keras.layers.LSTM(UNITS, return_sequences=True, return_state=True)
    layer.build((None, None, INPUT))
    layer.set_weights(weights)
    with tf.GradientTape() as tape:
        keras_outputs, keras_hidden, keras_cell = layer(inputs.transpose(1, 0, 2), initial_state=[hidden, cell])
        total = sum(
            tf.reduce_sum(w * r)
            for w, r in zip(sum_weights(np.float32), (tf.transpose(keras_outputs, [1, 0, 2]), keras_hidden, keras_cell))
        )
    keras_gradients = tape.gradient(total, [variable.value for variable in layer.trainable_variables])
    (outputs, last_hidden, last_cell), gradients = run(name, [inputs, hidden, cell, *weights])
    np.testing.assert_allclose(outputs.transpose(1, 0, 2), keras_outputs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last_hidden, keras_hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last_cell, keras_cell, rtol=1e-4, atol=1e-5)
    for got, wanted in zip(gradients[3:], keras_gradients):
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4)


@kernels
def test_one_long_window_equals_two_with_the_state_carried(name):
    inputs, hidden, cell, *weights = [tf.constant(argument) for argument in case()]
    kernel = kernel_of(name)
    whole, last = kernel(inputs, LSTMState(hidden, cell), weights, tf.float64)
    first, state = kernel(inputs[:2], LSTMState(hidden, cell), weights, tf.float64)
    second, state = kernel(inputs[2:], state, weights, tf.float64)
    np.testing.assert_allclose(tf.concat([first, second], 0), whole, rtol=1e-12)
    np.testing.assert_allclose(state, last, rtol=1e-12)
    alone, _ = kernel(inputs[2:], LSTMState(hidden, tf.zeros_like(cell)), weights, tf.float64)
    assert np.abs(alone - whole[2:]).max() > 1e-3  # both halves of the state matter


def test_product_rounds_its_factors_and_itself_but_not_its_sums():
    a = np.random.default_rng(0).normal(size=(64, 300)).astype(np.float32)
    b = np.random.default_rng(1).normal(size=(300, 48)).astype(np.float32)
    exact = a.astype(np.float64) @ b
    assert np.linalg.norm(product(a, b, tf.float32) - exact) / np.linalg.norm(exact) < 1e-6
    factors = [tf.cast(tf.cast(factor, tf.bfloat16), tf.float64).numpy() for factor in (a, b)]
    rounded = product(a, b, tf.bfloat16)
    one_bit = 2**-7  # of bfloat16's mantissa, which some processors cut off and others round
    np.testing.assert_allclose(rounded, factors[0] @ factors[1], rtol=one_bit, atol=1e-4)
    np.testing.assert_array_equal(rounded, tf.cast(tf.cast(rounded, tf.bfloat16), tf.float32))
    assert np.linalg.norm(rounded - exact) / np.linalg.norm(exact) > 1e-3
