"""Sums of repeated rows, the kinds of clip, plain SGD and RMSprop, each by hand."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from ptb.config import SGD, Adam, Optimizer, RMSprop
from ptb.training.optimizers import clip_gradients, make_optimizer, make_update, sgd_update, sum_repeated_rows


def test_repeated_rows_are_summed_in_the_first_of_them():
    slices = tf.IndexedSlices(tf.constant([[1.0, 2], [10, 20], [100, 200], [5, 5], [1, 1]]), tf.constant([7, 2, 7, 4, 7]))
    summed = sum_repeated_rows(slices)
    np.testing.assert_array_equal(summed.indices, [7, 2, 7, 4, 7])
    np.testing.assert_array_equal(summed.values, [[102, 203], [10, 20], [0, 0], [5, 5], [0, 0]])


def make_gradients():
    """Return a dense and a sparse gradient, their values with the sparse one made dense, and their norm, 5."""
    sparse = tf.IndexedSlices(tf.constant([[2.0], [-4]]), tf.constant([1, 0]), tf.constant([3, 1]))
    return [tf.constant([1.0, 2]), sparse], [np.array([1.0, 2]), np.array([[-4.0], [2], [0]])], tf.constant(5.0)


@pytest.mark.parametrize(
    ("clip", "limit", "scale", "is_clipped"),
    [
        ("norm", 10, 1, False),
        ("norm", 5, 1, False),
        ("norm", 2.5, 0.5, True),
        ("unit", 10, 2, False),
        ("unit", 2.5, 0.5, True),
    ],
)
def test_clips_of_the_norm_return_a_factor(clip, limit, scale, is_clipped):
    gradients, _, norm = make_gradients()
    same, factor, clipped = clip_gradients(SGD(clip_norm=limit, clip=clip), gradients, norm)
    assert same is gradients
    assert float(factor) == scale
    assert bool(clipped) == is_clipped


def test_a_unit_clip_leaves_a_gradient_of_zero():
    _, factor, clipped = clip_gradients(SGD(clip_norm=5, clip="unit"), [tf.zeros([2])], tf.constant(0.0))
    assert (float(factor), bool(clipped)) == (0, False)


@pytest.mark.parametrize(("limit", "is_clipped"), [(3.0, True), (4.0, False), (5.0, False)])
def test_the_element_clip_limits_each_element(limit, is_clipped):
    gradients, dense, norm = make_gradients()
    limited, factor, clipped = clip_gradients(SGD(clip_norm=limit, clip="element"), gradients, norm)
    assert float(factor) == 1
    assert bool(clipped) == is_clipped
    for got, gradient in zip(limited, dense, strict=True):
        np.testing.assert_array_equal(got, np.clip(gradient, -limit, limit))


def make_variables():
    return [keras.Variable(np.full(shape, 10.0), dtype="float64") for shape in ([2], [3, 1])]


def test_sgd_subtracts_rate_times_gradient_and_adds_repeated_rows():
    variables = make_variables()
    sparse = tf.IndexedSlices(tf.constant([[1.0], [2], [4]], tf.float64), tf.constant([2, 0, 2]))
    sgd_update(variables, [tf.constant([1.0, -2], tf.float64), sparse], tf.constant(0.5, tf.float64))
    np.testing.assert_array_equal(variables[0], [9.5, 11])
    np.testing.assert_array_equal(variables[1], [[9], [10], [7.5]])


def test_plain_sgd_has_no_optimizer_and_multiplies_factor_and_rate():
    assert make_optimizer(SGD()) is None
    variables = make_variables()
    gradients = [tf.ones(variable.shape, tf.float64) for variable in variables]
    make_update(SimpleNamespace(trainable_variables=variables), SGD())(gradients, tf.constant(0.5, tf.float64), np.float64(4))
    for variable in variables:
        np.testing.assert_array_equal(variable, np.full(variable.shape, 8.0))


def test_weight_decay_adds_to_the_gradient_after_the_clip_as_in_torch():
    variables, rng = make_variables(), np.random.default_rng(0)
    update, expected = make_update(SimpleNamespace(trainable_variables=variables), SGD(weight_decay=0.2)), []
    gradients = [rng.normal(size=variable.shape) for variable in variables]
    for variable, gradient in zip(variables, gradients):
        expected.append(variable.numpy() - 0.5 * (0.25 * gradient + 0.2 * variable.numpy()))  # rate, factor of the clip, decay
    update([tf.constant(gradient) for gradient in gradients], tf.constant(0.25, tf.float64), np.float64(0.5))
    for variable, values in zip(variables, expected):
        np.testing.assert_allclose(variable, values, rtol=1e-12)


@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.999), (0.0, 0.9), (0.9, 0.99)])
def test_adam_with_bias_correction(beta1, beta2):
    """With beta1 = 0 the numerator is the gradient itself, not corrected. The learning rate changes from step to step."""
    variables, rng = make_variables(), np.random.default_rng(0)
    config = Adam(beta1=beta1, beta2=beta2, epsilon=1e-12)
    optimizer = make_optimizer(config)
    update = make_update(SimpleNamespace(trainable_variables=variables), config, optimizer)
    assert {variable.path.split("/")[0] for variable in optimizer.variables} == {"adam"}
    expected, means, mean_squares = [variable.numpy() for variable in variables], [0.0, 0.0], [0.0, 0.0]
    for step in range(1, 4):
        rate, factor = 0.1 / step, 0.5
        gradients = [rng.normal(size=variable.shape) for variable in variables]
        update([tf.constant(gradient) for gradient in gradients], tf.constant(factor, tf.float64), np.float64(rate))
        for index, gradient in enumerate(gradients):
            means[index] = beta1 * means[index] + (1 - beta1) * factor * gradient
            mean_squares[index] = beta2 * mean_squares[index] + (1 - beta2) * (factor * gradient) ** 2
            root = np.sqrt(mean_squares[index] / (1 - beta2**step))
            expected[index] = expected[index] - rate * means[index] / (1 - beta1**step) / (root + 1e-12)
    for variable, values in zip(variables, expected):
        np.testing.assert_allclose(variable, values, rtol=1e-6)


@pytest.mark.parametrize(("rho", "epsilon"), [(0.95, 1e-16), (0.5, 0.25)])
def test_rmsprop_divides_by_the_root_of_the_mean_square(rho, epsilon):
    """With an epsilon of 1e-16 it is Torch's, which divides by √m + 1e-8. The learning rate changes from step to step."""
    variables, rng = make_variables(), np.random.default_rng(0)
    config = RMSprop(rho=rho, epsilon=epsilon)
    optimizer = make_optimizer(config)
    update = make_update(SimpleNamespace(trainable_variables=variables), config, optimizer)
    assert {variable.path.split("/")[0] for variable in optimizer.variables} == {"rmsprop"}
    expected, mean_squares = [variable.numpy() for variable in variables], [0.0, 0.0]
    for step in range(3):
        rate, factor = 0.1 / (1 + step), 0.5
        gradients = [rng.normal(size=variable.shape) for variable in variables]
        update([tf.constant(gradient) for gradient in gradients], tf.constant(factor, tf.float64), np.float64(rate))
        for index, gradient in enumerate(gradients):
            gradient = factor * gradient
            mean_squares[index] = rho * mean_squares[index] + (1 - rho) * gradient**2
            expected[index] = expected[index] - rate * gradient / np.sqrt(mean_squares[index] + epsilon)
    for variable, values in zip(variables, expected):
        np.testing.assert_allclose(variable, values, rtol=1e-6)


def test_rmsprop_takes_a_sparse_gradient_as_a_dense_one():
    """The mean square of rows that a step does not read decays too."""
    results = []
    for is_sparse in (True, False):
        variables = make_variables()
        config = RMSprop()
        update = make_update(SimpleNamespace(trainable_variables=variables), config, make_optimizer(config))
        for values, rows in (([[1.0], [2]], [0, 0]), ([[4.0]], [2]), ([[8.0]], [0])):
            gradient = tf.IndexedSlices(tf.constant(values, tf.float64), tf.constant(rows), tf.constant([3, 1]))
            gradients = [tf.ones([2], tf.float64), gradient if is_sparse else tf.convert_to_tensor(gradient)]
            update(gradients, tf.constant(1.0, tf.float64), np.float64(0.1))
        results.append(variables[1].numpy())
    np.testing.assert_allclose(*results, rtol=1e-12)


def test_another_kind_of_optimizer_is_an_error():
    with pytest.raises(ValueError, match="Optimizer"):
        make_optimizer(Optimizer())
