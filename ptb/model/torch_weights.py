"""Weights of LSTM layers to and from `torch.nn.LSTM`, as NumPy arrays: nothing here needs PyTorch."""

import numpy as np


def to_torch(layers):
    """Return the `state_dict` of a `torch.nn.LSTM` that computes the same.

    `layers` has the `get_weights` of each layer: kernel, recurrent kernel, bias, and the recurrent bias of a layer with
    `two_biases`. PyTorch's matrices are ours transposed, its gates in our order (i, f, g, o), and it always adds two biases, of
    which the second is zero where we have one.
    """
    state_dict = {}
    for index, (kernel, recurrent_kernel, bias, *second) in enumerate(layers):
        state_dict[f"weight_ih_l{index}"] = np.ascontiguousarray(kernel.T)
        state_dict[f"weight_hh_l{index}"] = np.ascontiguousarray(recurrent_kernel.T)
        state_dict[f"bias_ih_l{index}"] = bias
        state_dict[f"bias_hh_l{index}"] = second[0] if second else np.zeros_like(bias)
    return state_dict


def from_torch(state_dict):
    """Return the weights for `set_weights` of each layer: the inverse of `to_torch`, with the two biases added up.

    Without biases (`bias=False`) they are zero. ValueError for what only PyTorch has, layers in both directions or with a
    projection, and for what is not the `state_dict` of an LSTM alone.
    """
    strange = [name for name in state_dict if "reverse" in name or "weight_hr" in name]
    if strange:
        raise ValueError(f"{strange[0]}: bidirectional layers and projections have no counterpart here")
    if "weight_ih_l0" not in state_dict:
        raise ValueError(f"no weight_ih_l0 among {', '.join(state_dict) or 'nothing'}: give the state_dict of the LSTM alone")
    layers = []
    while f"weight_ih_l{len(layers)}" in state_dict:
        index = len(layers)
        if f"weight_hh_l{index}" not in state_dict:
            raise ValueError(f"weight_ih_l{index} without weight_hh_l{index}: give the whole state_dict of the LSTM")
        kernel, recurrent_kernel = (np.asarray(state_dict[f"weight_{kind}_l{index}"]) for kind in ("ih", "hh"))
        width, units = recurrent_kernel.shape
        if width != 4 * units:
            raise ValueError(f"weight_hh_l{index}: has {width} rows for {units} units, not the 4 gates of an LSTM")
        biases = [np.asarray(state_dict[name]) for name in (f"bias_ih_l{index}", f"bias_hh_l{index}") if name in state_dict]
        layers.append([kernel.T, recurrent_kernel.T, sum(biases, np.zeros(width, kernel.dtype))])
    return layers
