"""The gradient of a model's objective held against central differences: slow, and independent of how it is derived."""

import numpy as np
import tensorflow as tf

from ptb.training import cost_of

EPSILON = 1e-4


def relative_errors(model, objective, inputs, targets):
    """Returns the largest relative error of the gradient in each variable of a float64 model, by name.

    `inputs` and `targets` are int32 `[batch, steps]`, a window; weights and state are random, the same each time. An error is
    relative to the derivative, or to a hundredth of the variable's largest where it is smaller than that: differences of nearly
    equal costs say nothing about derivatives that are next to nothing.
    """
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    state = tf.nest.map_structure(
        lambda tensor: tf.constant(rng.normal(0, 0.5, tensor.shape)), model.initial_state(len(inputs))
    )

    @tf.function(autograph=False)
    def cost():
        return cost_of(model, objective, inputs, targets, state, tf.constant([0, 0]))[0]

    @tf.function(autograph=False)
    def gradient():
        variables = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            total = cost()
        return [tf.convert_to_tensor(derivative) for derivative in tape.gradient(total, variables)]

    errors = {}
    for variable, derived in zip(model.trainable_variables, gradient()):
        measured = central_differences(cost, variable)
        scale = np.maximum(np.abs(measured), np.abs(measured).max() / 100)
        errors[variable.path.removeprefix(f"{model.name}/")] = float((np.abs(derived.numpy() - measured) / scale).max())
    return errors


def central_differences(function, variable):
    """Returns (function(x + ε) - function(x - ε)) / 2ε for each element x of the variable; `function` takes no arguments."""
    values = variable.numpy()
    measured = np.zeros_like(values)
    for place in np.ndindex(values.shape):
        results = []
        for sign in (1, -1):
            moved = values.copy()
            moved[place] += sign * EPSILON
            variable.assign(moved)
            results.append(float(function()))
        measured[place] = (results[0] - results[1]) / (2 * EPSILON)
    variable.assign(values)
    return measured
