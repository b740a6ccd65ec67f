"""Recurrent cells: the computation of one time step.

The step of a cell is `step(z, state, recurrent_matmul, *extra) -> state`:
    z                  [batch, num_gates * units]  the projected input x W + b
    state              tensors [batch, units]; `state.hidden` of the result is the output
    recurrent_matmul   h [batch, units] -> h R [batch, num_gates * units]
    extra              the extra weights that the cell declares

A cell with `reads_raw_input` gets x [batch, input] instead of z, and `project`, x -> x W + b, before `extra`, in which each
matrix A is a function x -> x A. A step must call each of these functions once. Gates stand side by side in z, W, R and b, as
blocks of `units` columns.
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


def capped_lstm(z, state, recurrent_matmul):
    """The LSTM with the input gate capped at 1 - f: c' = f ∘ c + min(1 - f, i) ∘ g (lamb, tiled_lstm.py; Melis et al. 2020)."""
    i, f, g, o = tf.split(z + recurrent_matmul(state.hidden), 4, -1)
    f = tf.sigmoid(f)
    cell = f * state.cell + tf.minimum(1 - f, tf.sigmoid(i)) * tf.tanh(g)
    return LSTMState(tf.sigmoid(o) * tf.tanh(cell), cell)


def mogrifier_lstm(x, state, recurrent_matmul, project, *rounds):
    """The capped LSTM after x and h have gated each other in turns (Melis, Kočiský & Blunsom 2020, "Mogrifier LSTM").

    Rounds 0, 2, 4: x := 2 σ(h A B + b) ∘ x; rounds 1, 3: h := 2 σ(x A B + b) ∘ h. `rounds` has the products with A and B and
    the bias of each round in turn; with full rank there is A alone.
    """
    hidden, even, gating = state.hidden, True, state.hidden
    for weight in rounds:
        if callable(weight):
            gating = weight(gating)
            continue
        gate = 2 * tf.sigmoid(gating + weight)
        x, hidden = (gate * x, hidden) if even else (x, gate * hidden)
        even = not even
        gating = hidden if even else x
    return capped_lstm(project(x), LSTMState(hidden, state.cell), recurrent_matmul)


def peephole_lstm(z, state, recurrent_matmul, peepholes):
    """The LSTM whose gates i and f see the old memory cell, and o the new one, elementwise (Graves 2013, equations 7 to 11).

    `peepholes [3, units]` are those of i, f and o.
    """
    peephole_i, peephole_f, peephole_o = tf.unstack(peepholes)
    i, f, g, o = tf.split(z + recurrent_matmul(state.hidden), 4, -1)
    kept = tf.sigmoid(f + peephole_f * state.cell) * state.cell
    cell = kept + tf.sigmoid(i + peephole_i * state.cell) * tf.tanh(g)
    return LSTMState(tf.sigmoid(o + peephole_o * cell) * tf.tanh(cell), cell)


class ExtraWeight(NamedTuple):
    """A weight that only one kind of cell has."""

    name: str
    shape: tuple[int, ...]
    stddev: float = 0.0  # of the truncated normal distribution that it starts with; 0: zeros


def no_extra_weights(input_size, units, rounds, rank):
    return []


def peephole_weights(input_size, units, rounds, rank):
    return [ExtraWeight("peepholes", (3, units))]


def gru_weights(input_size, units, rounds, rank):
    return [ExtraWeight("recurrent_bias", (3, units))]


def mogrifier_weights(input_size, units, rounds, rank):
    """Return the extra weights of the mogrifier_lstm: of each round A, B and b.

    A and B start as in lamb (utils.py): with one standard deviation, for which the variance of A B would be 1 / fan-in if the
    normal distributions were not truncated. A matrix of full rank starts with that variance, truncated too.
    """
    weights = []
    for number in range(rounds):
        size, gated_size = (units, input_size) if number % 2 == 0 else (input_size, units)
        shapes = {"a": (size, rank), "b": (rank, gated_size)} if rank else {"a": (size, gated_size)}
        stddev = (size * rank) ** -0.25 if rank else size**-0.5
        weights += [ExtraWeight(f"mogrifier_{number}_{name}", shape, stddev) for name, shape in shapes.items()]
        weights.append(ExtraWeight(f"mogrifier_{number}_bias", (gated_size,)))
    return weights


class Cell(NamedTuple):
    """The step of a cell and what a layer must know about it."""

    step: Callable
    state: type  # LSTMState or HiddenState
    num_gates: int
    extra_weights: Callable = no_extra_weights  # (input_size, units, rounds, rank) -> list of ExtraWeight
    forget_gate: int | None = None  # index of the gate whose bias starts at forget_bias
    reads_raw_input: bool = False


CELLS = {
    "lstm": Cell(lstm, LSTMState, 4, forget_gate=1),
    "capped_lstm": Cell(capped_lstm, LSTMState, 4, forget_gate=1),
    "mogrifier_lstm": Cell(mogrifier_lstm, LSTMState, 4, mogrifier_weights, forget_gate=1, reads_raw_input=True),
    "peephole_lstm": Cell(peephole_lstm, LSTMState, 4, extra_weights=peephole_weights, forget_gate=1),
    "gru": Cell(gru, HiddenState, 3, extra_weights=gru_weights),
    "tanh_rnn": Cell(tanh_rnn, HiddenState, 1),
    "sigmoid_rnn": Cell(sigmoid_rnn, HiddenState, 1),
}
