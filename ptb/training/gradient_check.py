"""Compare the gradient of a model's loss with central differences: slow, and independent of how the gradient is derived."""

import dataclasses

import numpy as np
import tensorflow as tf

from ptb.config import Config, Model, override
from ptb.model.language_model import build_model
from ptb.training.loss import loss_fn

EPSILON = 1e-4
VOCAB_SIZE = 7
UNITS = 2
SIZES = {"batch_size": 2, "num_steps": 2}
MOST_DROPOUT = 0.25  # a higher rate could drop all of a few units
BPTT_STEPS = 7  # if the gradient reaches further back than num_steps
SOFTMAX_SAMPLES = 4  # if the softmax is estimated


def check_config(config: Config, rnn_mode: str = "auto") -> dict[str, float]:
    """Return the largest relative error of the gradient per variable, for a tiny float64 model of a configuration.

    Cell, kernel, places of dropout and loss are those of the configuration; layers, window and vocabulary are a few units each.
    """
    rates = {f"dropout.{name}": min(rate, MOST_DROPOUT) for name, rate in vars(config.dropout).items() if name != "locked"}
    changes = SIZES | rates | {"model": tiny_architecture(config.model), "bptt_steps": BPTT_STEPS * bool(config.burn_in)}
    config = override(config, changes)
    if config.loss.softmax_samples:
        config = override(config, {"softmax_samples": SOFTMAX_SAMPLES})
    model = build_model(config, VOCAB_SIZE, rnn_mode=rnn_mode, dtype="float64")
    shape = (2, config.batch_size, config.num_steps + config.burn_in)
    inputs, targets = np.random.default_rng(0).integers(0, VOCAB_SIZE, shape).astype(np.int32)
    return relative_errors(model, config, inputs, targets)


def tiny_architecture(model: Model) -> Model:
    """Return the same architecture with a few units per layer, different ones if it allows that."""
    layers = tuple(UNITS + (0 if model.sum_layers else index) for index, _ in enumerate(model.layers))
    projected = model.projection != "none" or model.mixture
    return dataclasses.replace(
        model,
        layers=layers,
        embedding_size=UNITS + 1 if projected else layers[-1],
        mogrifier_rank=min(model.mogrifier_rank, 2),
        mixture=min(model.mixture, 3),
    )


def relative_errors(model, config: Config, inputs, targets) -> dict[str, float]:
    """Return the largest relative error of the gradient per variable of a float64 model, by name.

    `inputs` and `targets` are int32 `[batch, steps]`, one window. Weights and state are random, the same each time. An error is
    relative to the derivative, or to a hundredth of the variable's largest derivative if that is larger: differences of nearly
    equal costs say nothing about derivatives near zero. NaN if all derivatives of a variable are zero.
    """
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    state = tf.nest.map_structure(
        lambda tensor: tf.constant(rng.normal(0, 0.5, tensor.shape)), model.initial_state(len(inputs))
    )

    def cost():
        return loss_fn(model, config.loss, inputs, targets, state, tf.constant([0, 0]), config.burn_in)[0]

    with tf.GradientTape() as tape:  # not compiled: that takes longer than to run it once
        total = cost()
    gradient = tape.gradient(total, [variable.value for variable in model.trainable_variables])
    compiled_cost, errors = tf.function(cost, autograph=False), {}
    for variable, derived in zip(model.trainable_variables, map(tf.convert_to_tensor, gradient)):
        measured = central_differences(compiled_cost, variable)
        scale = np.maximum(np.abs(measured), np.abs(measured).max() / 100)
        with np.errstate(invalid="ignore"):
            errors[variable.path.removeprefix(f"{model.name}/")] = float((np.abs(derived.numpy() - measured) / scale).max())
    return errors


def central_differences(function, variable) -> np.ndarray:
    """Return (function(x + ε) - function(x - ε)) / 2ε for each element x of the variable; `function` has no arguments."""
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
