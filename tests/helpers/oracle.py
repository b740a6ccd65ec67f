"""Oracles in NumPy and float64, written from the equations: cells, and the losses and gradients of a whole model."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(inputs, hidden, cell, kernel, recurrent_kernel, bias):
    """`inputs [num_steps, batch, input]` → outputs, last hidden, last cell, and the trace that `lstm_gradient` needs."""
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


def masked_lstm(inputs, hidden, cell, kernel, recurrent_kernel, bias, mask=1):
    """`mask` multiplies h before each step. Return outputs, last hidden, last cell."""
    outputs = []
    for x in inputs:
        (hidden,), _, cell, _ = lstm(x[np.newaxis], hidden * mask, cell, kernel, recurrent_kernel, bias)
        outputs.append(hidden)
    return np.stack(outputs), hidden, cell


def lstm_gradient(trace, kernel, recurrent_kernel, d_outputs, d_hidden, d_cell):
    """Return the gradients of inputs, first hidden, first cell, kernel, recurrent_kernel and bias, in this order."""
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


def capped_lstm(inputs, hidden, cell, kernel, recurrent_kernel, bias, mask=1):
    """The input gate is at most 1 - f; `mask` multiplies h before each step. Return outputs, last hidden, last cell."""
    outputs = []
    for x in inputs:
        hidden, cell = _capped_step(x, hidden * mask, cell, kernel, recurrent_kernel, bias)
        outputs.append(hidden)
    return np.stack(outputs), hidden, cell


def _capped_step(x, hidden, cell, kernel, recurrent_kernel, bias):
    i, f, g, o = np.split(x @ kernel + hidden @ recurrent_kernel + bias, 4, axis=1)
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
    cell = f * cell + np.where(i < 1 - f, i, 1 - f) * g
    return o * np.tanh(cell), cell


def mogrifier_lstm(inputs, hidden, cell, kernel, recurrent_kernel, bias, *weights):
    """`weights` are A, B and b of each round, or A and b if the rank is full. Return outputs, last hidden, last cell."""
    rounds = []
    for weight in weights:
        if not rounds or rounds[-1][-1].ndim == 1:
            rounds.append([])
        rounds[-1].append(weight)
    outputs = []
    for x in inputs:
        gated = {"x": x, "h": hidden}
        for number, (*matrices, b) in enumerate(rounds):
            target, source = ("x", "h") if number % 2 == 0 else ("h", "x")
            product = gated[source]
            for matrix in matrices:
                product = product @ matrix
            gated[target] = 2 * sigmoid(product + b) * gated[target]
        hidden, cell = _capped_step(gated["x"], gated["h"], cell, kernel, recurrent_kernel, bias)
        outputs.append(hidden)
    return np.stack(outputs), hidden, cell


def peephole_lstm(inputs, hidden, cell, kernel, recurrent_kernel, bias, peepholes):
    """`peepholes [3, units]` are those of i, f and o. Return outputs, last hidden, last cell."""
    outputs = []
    for x in inputs:
        i, f, g, o = np.split(x @ kernel + hidden @ recurrent_kernel + bias, 4, axis=1)
        i, f = sigmoid(i + peepholes[0] * cell), sigmoid(f + peepholes[1] * cell)
        cell = f * cell + i * np.tanh(g)
        hidden = sigmoid(o + peepholes[2] * cell) * np.tanh(cell)
        outputs.append(hidden)
    return np.stack(outputs), hidden, cell


def gru(inputs, hidden, kernel, recurrent_kernel, bias, recurrent_bias):
    """The gates are u, r, h; `recurrent_bias [3, units]`. Return outputs and last hidden."""
    outputs = []
    for x in inputs:
        x_u, x_r, x_h = np.split(x @ kernel + bias, 3, axis=1)
        h_u, h_r, h_h = np.split(hidden @ recurrent_kernel + recurrent_bias.reshape(-1), 3, axis=1)
        u, r = sigmoid(x_u + h_u), sigmoid(x_r + h_r)
        hidden = u * hidden + (1 - u) * np.tanh(x_h + r * h_h)
        outputs.append(hidden)
    return np.stack(outputs), hidden


def simple_rnn(activation, inputs, hidden, kernel, recurrent_kernel, bias):
    """Return outputs and last hidden."""
    outputs = []
    for x in inputs:
        hidden = activation(x @ kernel + hidden @ recurrent_kernel + bias)
        outputs.append(hidden)
    return np.stack(outputs), hidden


CELLS = {
    "lstm": lambda *arguments: lstm(*arguments)[:3],
    "capped_lstm": capped_lstm,
    "mogrifier_lstm": mogrifier_lstm,
    "peephole_lstm": peephole_lstm,
    "gru": gru,
    "tanh_rnn": lambda *arguments: simple_rnn(np.tanh, *arguments),
    "sigmoid_rnn": lambda *arguments: simple_rnn(sigmoid, *arguments),
}


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def zipf_probabilities(vocab_size):
    """Return the probability of each id in one draw of the sampled softmax."""
    ids = np.arange(vocab_size)
    return np.log((ids + 2) / (ids + 1)) / np.log(vocab_size + 1)


def weights_of(model):
    """Return a model's weights by name, as NumPy arrays."""
    return {variable.path.removeprefix(f"{model.name}/"): variable.numpy() for variable in model.trainable_variables}


def language_model_losses(weights, inputs, targets):
    """Return −log p of each target `[batch, num_steps]` under an LSTM model without dropout, from a state of zeros.

    `weights` is a dictionary by the names of the model's variables. The layers are `lstm_0`, `lstm_1` and so on.
    """
    return _forward(weights, inputs, targets)[0]


def language_model_gradients(weights, inputs, targets, d_losses):
    """Return by name the gradients of the sum of `d_losses * language_model_losses`, with `d_losses [batch, num_steps]`."""
    _, log_p, features, traces = _forward(weights, inputs, targets)
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    one_hot = np.eye(log_p.shape[-1])[targets.T]
    d_scores = d_losses.T[..., np.newaxis] * (np.exp(log_p) - one_hot)
    gradients = {"softmax_weights": np.einsum("tbv,tbh->vh", d_scores, features), "softmax_bias": d_scores.sum((0, 1))}
    d_features = d_scores @ weights["softmax_weights"]
    for layer, trace in reversed([*enumerate(traces)]):
        kernel, recurrent_kernel = [weights[f"lstm_{layer}/{name}"] for name in ("kernel", "recurrent_kernel")]
        zeros = np.zeros((len(inputs), len(recurrent_kernel)))
        d_features, _, _, *d_weights = lstm_gradient(trace, kernel, recurrent_kernel, d_features, zeros, zeros)
        gradients |= {f"lstm_{layer}/{name}": d for name, d in zip(("kernel", "recurrent_kernel", "bias"), d_weights)}
    gradients["embedding"] = np.zeros_like(weights["embedding"])
    np.add.at(gradients["embedding"], inputs.T, d_features)
    return gradients


def log_probabilities(weights, inputs, architecture):
    """Return log p of every word `[batch, num_steps, vocab]` under any architecture, without dropout, from a state of zeros.

    `architecture` is a `ptb.config.Model`.
    """
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    features, layers = weights["embedding"][inputs.T], []
    for index, units in enumerate(architecture.layers):
        prefix = f"{architecture.cell}_{index}/"
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        own["bias"] = own["bias"] + own.pop("recurrent_bias", 0) if architecture.two_biases else own["bias"]
        zeros = [np.zeros((len(inputs), units))] * (1 if architecture.cell in ("gru", "tanh_rnn", "sigmoid_rnn") else 2)
        features = CELLS[architecture.cell](features, *zeros, *own.values())[0]
        layers.append(features)
    if architecture.sum_layers:
        features = sum(layers)
    table = weights["embedding" if architecture.tied else "softmax_weights"]
    bias, projection_bias = weights["softmax_bias"], weights.get("projection_bias", 0)
    if architecture.mixture:
        priors = np.exp(log_softmax(features @ weights["priors"]))
        latents = np.tanh(features @ weights["projection"] + projection_bias)
        p = 0
        for k, latent in enumerate(np.split(latents, architecture.mixture, axis=-1)):
            p = p + priors[..., k, np.newaxis] * np.exp(log_softmax(latent @ table.T + bias))
        return np.log(p).transpose(1, 0, 2)
    if architecture.projection != "none":
        features = features @ weights["projection"] + projection_bias
    return log_softmax(features @ table.T + bias).transpose(1, 0, 2)


def _forward(weights, inputs, targets):
    """Return losses, log probabilities `[num_steps, batch, vocab]`, the features of the last layer and each layer's trace."""
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    features, traces = weights["embedding"][inputs.T], []
    for layer in range(sum(name.endswith("/recurrent_kernel") for name in weights)):
        kernel, recurrent_kernel, bias = [weights[f"lstm_{layer}/{name}"] for name in ("kernel", "recurrent_kernel", "bias")]
        zeros = np.zeros((inputs.shape[0], recurrent_kernel.shape[0]))
        bias = bias + weights.get(f"lstm_{layer}/recurrent_bias", 0)
        features, *_, trace = lstm(features, zeros, zeros, kernel, recurrent_kernel, bias)
        traces.append(trace)
    log_p = log_softmax(features @ weights["softmax_weights"].T + weights["softmax_bias"])
    losses = -np.take_along_axis(log_p, targets.T[..., np.newaxis], -1)[..., 0].T
    return losses, log_p, features, traces
