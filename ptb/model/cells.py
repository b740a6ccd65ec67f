"""Recurrent cells: the computation of one time step.

The step of a cell is `step(z, state, recurrent_matmul, *extra) -> state`:
    z                  [batch, num_gates * units]  the projected input x W + b
    state              tensors [batch, units]; `state.hidden` of the result is the output
    recurrent_matmul   h [batch, units] -> h R [batch, num_gates * units]
    extra              the extra weights that the cell declares

Gates stand side by side in z, W, R and b, as blocks of `units` columns.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class HiddenState(NamedTuple):
    """State of a layer without memory cells, `[batch, units]`."""

    hidden: tf.Tensor


class LSTMState(NamedTuple):
    """State of an LSTM layer, each `[batch, units]`."""

    hidden: tf.Tensor
    cell: tf.Tensor


def tanh_rnn(z, state, recurrent_matmul):
    """h' = tanh(z + h R), the simple recurrent cell (Elman 1990)."""
    return HiddenState(tf.tanh(z + recurrent_matmul(state.hidden)))


def sigmoid_rnn(z, state, recurrent_matmul):
    """h' = σ(z + h R), the simple recurrent cell of Mikolov et al. (2010) and of Element-Research's `rnn`."""
    return HiddenState(tf.sigmoid(z + recurrent_matmul(state.hidden)))


def gru(z, state, recurrent_matmul, recurrent_bias):
    """The gated recurrent unit, with the reset gate after the recurrent product as in cuDNN, Keras and PyTorch.

    u, r = σ(z_u + (h R)_u + b_u), σ(z_r + (h R)_r + b_r)
    h' = u ∘ h + (1 - u) ∘ tanh(z_h + r ∘ ((h R)_h + b_h))          (Cho et al. 2014 have r ∘ h inside the product)
    """
    z_u, z_r, z_h = tf.split(z, 3, -1)
    recurrent_u, recurrent_r, recurrent_h = tf.split(recurrent_matmul(state.hidden) + tf.reshape(recurrent_bias, [-1]), 3, -1)
    update, reset = tf.sigmoid(z_u + recurrent_u), tf.sigmoid(z_r + recurrent_r)
    return HiddenState(update * state.hidden + (1 - update) * tf.tanh(z_h + reset * recurrent_h))


def lstm(z, state, recurrent_matmul):
    """i, f, g, o = σ, σ, tanh, σ of z + h R; c' = f ∘ c + i ∘ g; h' = o ∘ tanh(c') (Zaremba et al. 2014, section 3.1)."""
    i, f, g, o = tf.split(z + recurrent_matmul(state.hidden), 4, -1)
    cell = tf.sigmoid(f) * state.cell + tf.sigmoid(i) * tf.tanh(g)
    return LSTMState(tf.sigmoid(o) * tf.tanh(cell), cell)


def peephole_lstm(z, state, recurrent_matmul, peepholes):
    """The LSTM whose gates i and f see the old memory cell, and o the new one, elementwise (Graves 2013, equations 7 to 11).

    `peepholes [3, units]` are those of i, f and o.
    """
    peephole_i, peephole_f, peephole_o = tf.unstack(peepholes)
    i, f, g, o = tf.split(z + recurrent_matmul(state.hidden), 4, -1)
    kept = tf.sigmoid(f + peephole_f * state.cell) * state.cell
    cell = kept + tf.sigmoid(i + peephole_i * state.cell) * tf.tanh(g)
    return LSTMState(tf.sigmoid(o + peephole_o * cell) * tf.tanh(cell), cell)


class Cell(NamedTuple):
    """The step of a cell and what a layer must know about it."""

    step: Callable
    state: type  # LSTMState or HiddenState
    num_gates: int
    extra_weights: tuple[str, ...] = ()  # names of extra weights, each [3, units], initially zero
    forget_gate: int | None = None  # index of the gate whose bias starts at forget_bias


CELLS = {
    "lstm": Cell(lstm, LSTMState, 4, forget_gate=1),
    "peephole_lstm": Cell(peephole_lstm, LSTMState, 4, extra_weights=("peepholes",), forget_gate=1),
    "gru": Cell(gru, HiddenState, 3, extra_weights=("recurrent_bias",)),
    "tanh_rnn": Cell(tanh_rnn, HiddenState, 1),
    "sigmoid_rnn": Cell(sigmoid_rnn, HiddenState, 1),
}
