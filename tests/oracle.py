"""Cells, the LSTM's gradient and losses once more, in NumPy and float64, from the equations and from nothing in ptb/."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(inputs, hidden, cell, kernel, recurrent_kernel, bias):
    """`inputs [num_steps, batch, input]` → outputs, last hidden, last cell, and what `lstm_gradient` needs."""
    trace, outputs = [], []
    for x in inputs:
        z = x @ kernel + hidden @ recurrent_kernel + bias
        i, f, g, o = np.split(z, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        new_cell = f * cell + i * g
        trace.append((x, hidden, cell, new_cell, i, f, g, o))
        cell, hidden = new_cell, o * np.tanh(new_cell)
        outputs.append(hidden)
    return np.stack(outputs), hidden, cell, trace


def lstm_gradient(trace, kernel, recurrent_kernel, d_outputs, d_hidden, d_cell):
    """Returns the gradients of inputs, first hidden, first cell, kernel, recurrent_kernel and bias, in this order."""
    d_kernel, d_recurrent = np.zeros_like(kernel), np.zeros_like(recurrent_kernel)
    d_bias, d_inputs = np.zeros(kernel.shape[1]), []
    for (x, hidden, cell, new_cell, i, f, g, o), d_output in zip(reversed(trace), reversed(d_outputs)):
        d_hidden = d_hidden + d_output
        d_new_cell = d_cell + d_hidden * o * (1 - np.tanh(new_cell) ** 2)
        d_o, d_i = d_hidden * np.tanh(new_cell), d_new_cell * g
        d_f, d_g, d_cell = d_new_cell * cell, d_new_cell * i, d_new_cell * f
        dz = np.concatenate([d_i * i * (1 - i), d_f * f * (1 - f), d_g * (1 - g**2), d_o * o * (1 - o)], axis=1)
        d_kernel += x.T @ dz
        d_recurrent += hidden.T @ dz
        d_bias += dz.sum(0)
        d_inputs.append(dz @ kernel.T)
        d_hidden = dz @ recurrent_kernel.T
    return np.stack(d_inputs[::-1]), d_hidden, d_cell, d_kernel, d_recurrent, d_bias


def lstm_with_peepholes(inputs, hidden, cell, kernel, recurrent_kernel, bias, peepholes):
    """`peepholes [3, units]`, of i, f and o; without them the same as `lstm`. Returns outputs, last hidden, last cell."""
    outputs = []
    for x in inputs:
        i, f, g, o = np.split(x @ kernel + hidden @ recurrent_kernel + bias, 4, axis=1)
        i, f = sigmoid(i + peepholes[0] * cell), sigmoid(f + peepholes[1] * cell)
        cell = f * cell + i * np.tanh(g)
        hidden = sigmoid(o + peepholes[2] * cell) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs), hidden, cell


def gru(inputs, hidden, kernel, recurrent_kernel, bias, recurrent_bias):
    """Gates u, r, h; `recurrent_bias [3, units]`. Returns outputs and last hidden."""
    outputs = []
    for x in inputs:
        x_u, x_r, x_h = np.split(x @ kernel + bias, 3, axis=1)
        h_u, h_r, h_h = np.split(hidden @ recurrent_kernel + recurrent_bias.reshape(-1), 3, axis=1)
        u, r = sigmoid(x_u + h_u), sigmoid(x_r + h_r)
        hidden = u * hidden + (1 - u) * np.tanh(x_h + r * h_h)
        outputs.append(hidden)
    return np.stack(outputs), hidden


def simple_rnn(activation, inputs, hidden, kernel, recurrent_kernel, bias):
    """Returns outputs and last hidden."""
    outputs = []
    for x in inputs:
        hidden = activation(x @ kernel + hidden @ recurrent_kernel + bias)
        outputs.append(hidden)
    return np.stack(outputs), hidden


CELLS = {
    "lstm": lambda *arguments: lstm(*arguments)[:3],
    "peephole_lstm": lstm_with_peepholes,
    "gru": gru,
    "tanh_rnn": lambda *arguments: simple_rnn(np.tanh, *arguments),
    "sigmoid_rnn": lambda *arguments: simple_rnn(sigmoid, *arguments),
}


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def weights_of(model):
    """Returns a model's weights by name, as NumPy has them."""
    return {variable.path.removeprefix(f"{model.name}/"): variable.numpy() for variable in model.trainable_variables}


def language_model_losses(weights, inputs, targets):
    """−log p of each target `[batch, num_steps]` under a model without dropout, from a state of zeros.

    `weights` is a dictionary by the names of the model's variables, those of each layer in an LSTM of its own.
    """
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    features = weights["embedding"][inputs.T]
    for layer in range(sum(name.endswith("/recurrent_kernel") for name in weights)):
        kernel, recurrent_kernel, bias = [weights[f"lstm_{layer}/{name}"] for name in ("kernel", "recurrent_kernel", "bias")]
        zeros = np.zeros((inputs.shape[0], recurrent_kernel.shape[0]))
        bias = bias + weights.get(f"lstm_{layer}/recurrent_bias", 0)
        features = lstm(features, zeros, zeros, kernel, recurrent_kernel, bias)[0]
    scores = log_softmax(features @ weights["softmax_weights"].T + weights["softmax_bias"])
    return -np.take_along_axis(scores, targets.T[..., np.newaxis], -1)[..., 0].T
