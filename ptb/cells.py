"""Recurrent cells: what one time step makes of a projected input and the state before it.

A cell's `step(z, state, recur, *others)` returns the next state, whose `hidden [batch, units]` is the output.
`z [batch, blocks * units]` is the projected input x W + b, `recur(h)` the product h R with the recurrent weights, both as many
blocks of `units` columns side by side as the cell has gates; `others` are what weights a cell has besides. The layer around it
is `ptb.model.Recurrent`.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class HiddenState(NamedTuple):
    """What a layer without memory cells carries from one time step to the next, `[batch, units]`."""

    hidden: tf.Tensor


class LSTMState(NamedTuple):
    """What an LSTM layer carries from one time step to the next, each `[batch, units]`."""

    hidden: tf.Tensor
    cell: tf.Tensor


def tanh_rnn(z, state, recur):
    """h = tanh(z + U h), the simple recurrent cell (Elman 1990)."""
    return HiddenState(tf.tanh(z + recur(state.hidden)))


def sigmoid_rnn(z, state, recur):
    """h = σ(z + U h), the same as Mikolov et al. (2010) have it, and Element-Research's `rnn`."""
    return HiddenState(tf.sigmoid(z + recur(state.hidden)))


def gru(z, state, recur, recurrent_bias):
    """The gated recurrent unit, with the reset gate after the recurrent product as in cuDNN, Keras and PyTorch:

    u, r = σ(z_u + (h R)_u + b_u), σ(z_r + (h R)_r + b_r)
    h = u ∘ h + (1 - u) ∘ tanh(z_h + r ∘ ((h R)_h + b_h))          (Cho et al. 2014 have r ∘ h inside the product)
    """
    z_u, z_r, z_h = tf.split(z, 3, -1)
    recurrent_u, recurrent_r, recurrent_h = tf.split(recur(state.hidden) + tf.reshape(recurrent_bias, [-1]), 3, -1)
    update, reset = tf.sigmoid(z_u + recurrent_u), tf.sigmoid(z_r + recurrent_r)
    return HiddenState(update * state.hidden + (1 - update) * tf.tanh(z_h + reset * recurrent_h))


def lstm(z, state, recur):
    """i, f, g, o = σ, σ, tanh, σ of z + h R; c = f ∘ c + i ∘ g; h = o ∘ tanh(c) (Zaremba et al. 2014, section 3.1)."""
    i, f, g, o = tf.split(z + recur(state.hidden), 4, -1)
    cell = tf.sigmoid(f) * state.cell + tf.sigmoid(i) * tf.tanh(g)
    return LSTMState(tf.sigmoid(o) * tf.tanh(cell), cell)


def peephole_lstm(z, state, recur, peepholes):
    """The same with gates that see the memory cell, element by element: i and f the old one, o the new (Graves 2013, eq. 7-11).

    `peepholes [3, units]`: of i, of f, of o.
    """
    peephole_i, peephole_f, peephole_o = tf.unstack(peepholes)
    i, f, g, o = tf.split(z + recur(state.hidden), 4, -1)
    kept = tf.sigmoid(f + peephole_f * state.cell) * state.cell
    cell = kept + tf.sigmoid(i + peephole_i * state.cell) * tf.tanh(g)
    return LSTMState(tf.sigmoid(o + peephole_o * cell) * tf.tanh(cell), cell)


class Cell(NamedTuple):
    """A step, and what a layer has to know of it."""

    step: Callable
    state: type  # a NamedTuple of `[batch, units]` tensors
    blocks: int  # of `units` columns, in the kernel, the recurrent kernel and the bias
    others: tuple = ()  # names of further weights, `[3, units]` each, zero at the start
    forget_gate: int | None = None  # the block whose bias starts at forget_bias

    def check(self, two_biases, forget_bias):
        """Raises ValueError where the cell has no use for an option that it is given."""
        if two_biases and "recurrent_bias" in self.others:
            raise ValueError(f"two_biases: {self.step.__name__} has two per gate anyway; leave it at False")
        if forget_bias and self.forget_gate is None:
            raise ValueError(f"forget_bias: {self.step.__name__} has no forget gate; leave it at 0")


CELLS = {
    "lstm": Cell(lstm, LSTMState, 4, forget_gate=1),
    "peephole_lstm": Cell(peephole_lstm, LSTMState, 4, others=("peepholes",), forget_gate=1),
    "gru": Cell(gru, HiddenState, 3, others=("recurrent_bias",)),
    "tanh_rnn": Cell(tanh_rnn, HiddenState, 1),
    "sigmoid_rnn": Cell(sigmoid_rnn, HiddenState, 1),
}
