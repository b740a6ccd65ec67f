"""Weights of LSTM layers to and from `torch.nn.LSTM`, as NumPy arrays: nothing here needs PyTorch."""

import numpy as np


def to_torch(layers):
    """Returns the `state_dict` of a `torch.nn.LSTM` that computes the same.

    `layers` has the `get_weights` of each layer: kernel, recurrent kernel, bias. PyTorch's matrices are ours transposed, its
    gates in our order (i, f, g, o), and it adds two biases, of which the second is zero here.
    """
    state_dict = {}
    for index, (kernel, recurrent_kernel, bias) in enumerate(layers):
        state_dict[f"weight_ih_l{index}"] = np.ascontiguousarray(kernel.T)
        state_dict[f"weight_hh_l{index}"] = np.ascontiguousarray(recurrent_kernel.T)
        state_dict[f"bias_ih_l{index}"] = bias
        state_dict[f"bias_hh_l{index}"] = np.zeros_like(bias)
    return state_dict


def from_torch(state_dict):
    """Returns the weights for `set_weights` of each layer; the inverse of `to_torch`.

    ValueError for what only PyTorch has: layers in both directions, or with a projection.
    """
    strange = [name for name in state_dict if "reverse" in name or "weight_hr" in name]
    if strange:
        raise ValueError(f"{strange[0]}: bidirectional layers and projections have no counterpart here")
    layers = []
    while f"weight_ih_l{len(layers)}" in state_dict:
        names = [f"{name}_l{len(layers)}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        kernel, recurrent_kernel, *biases = [np.asarray(state_dict[name]) for name in names]
        layers.append([kernel.T, recurrent_kernel.T, sum(biases)])
    return layers
