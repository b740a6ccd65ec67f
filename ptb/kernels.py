"""Recurrent layers over a window of time steps: `stepwise` for any cell, `fused` for the LSTM on a CPU, `cudnn` on a GPU.

All three compute the same function of the same weights, those of the LSTM in Keras's layout (gates i, f, g, o side by side):

    z_t = x_t W + h_{t-1} R + b          W: [input, 4 units], R: [units, 4 units], b: [4 units]
    i, f, g, o = σ(z_i), σ(z_f), tanh(z_g), σ(z_o)
    c_t = f ∘ c_{t-1} + i ∘ g
    h_t = o ∘ tanh(c_t)                  (Zaremba et al. 2014, section 3.1)

Each takes `inputs [num_steps, batch, input]`, a state of `[batch, units]` and the weights, time first because that is the
order in which the recurrence reads, and returns the outputs `[num_steps, batch, units]` and the last state. `product_dtype` is
the type of matrix products and their factors (bfloat16 or that of the weights), cuDNN's excepted; all else keeps that of the
weights.
"""

import functools

import tensorflow as tf

from ptb.cells import CELLS, LSTMState
from ptb.devices import on_host


def product(a, b, dtype, **transposes):
    """Returns the matrix product of `a` and `b` in the type of `a`, made in `dtype` as its factors are: see ptb/devices.py."""
    return tf.cast(tf.matmul(tf.cast(a, dtype), tf.cast(b, dtype), **transposes), a.dtype)


def stepwise(step, inputs, state, weights, product_dtype):
    """Takes a cell's `step` (ptb.cells) time step after time step; TensorFlow derives the gradient."""
    kernel, recurrent_kernel, bias, *others = weights
    recur = functools.partial(product, b=recurrent_kernel, dtype=product_dtype)
    projected = _over_steps(inputs, kernel, product_dtype) + bias
    states = _scan(lambda state, z: step(z, state, recur, *others), projected, state)
    return states.hidden, tf.nest.map_structure(lambda steps: steps[-1], states)


def fused(inputs, state, weights, product_dtype):
    """The LSTM with only `h R` and the elementwise operations left inside the loop, and a gradient written by hand.

    The inputs of all time steps are multiplied by W at once, before the loop. In the backward loop only dh and dc depend on
    the step after; every factor that they are multiplied by is computed for all steps at once beforehand:

        dc_t = dc_{t+1} ∘ f_{t+1} + dh_t ∘ o (1 - tanh² c_t)
        dz_i, dz_f, dz_g = dc_t ∘ [g i (1 - i),  c_{t-1} f (1 - f),  i (1 - g²)]
        dz_o = dh_t ∘ tanh(c_t) o (1 - o)
        dh_{t-1} = dy_{t-1} + dz_t Rᵀ

    after which dW, dR, db and dx are one large product or sum each, where automatic differentiation makes one for each step.
    """

    @tf.custom_gradient
    def run(inputs, hidden, cell, kernel, recurrent_kernel, bias):
        factor = tf.cast(recurrent_kernel, product_dtype)
        projected = _over_steps(inputs, kernel, product_dtype) + bias
        outputs, cells, *gates = _fused_forward(projected, hidden, cell, factor, product_dtype)

        def gradient(d_outputs, d_hidden, d_cell):
            factors = _gradient_factors(*gates, cells, tf.concat([cell[tf.newaxis], cells[:-1]], 0))
            d_hidden, d_cell, dz = _fused_backward(d_outputs, d_hidden, d_cell, factors, factor, product_dtype)
            previous_outputs = tf.concat([hidden[tf.newaxis], outputs[:-1]], 0)
            return (
                _over_steps(dz, kernel, product_dtype, transpose_b=True),
                d_hidden,
                d_cell,
                product(_rows(inputs), _rows(dz), product_dtype, transpose_a=True),
                product(_rows(previous_outputs), _rows(dz), product_dtype, transpose_a=True),
                tf.reduce_sum(_rows(dz), 0),
            )

        return (outputs, outputs[-1], cells[-1]), gradient

    outputs, hidden, cell = run(inputs, state.hidden, state.cell, *weights)
    return outputs, LSTMState(hidden, cell)


def _fused_forward(projected, hidden, cell, recurrent_kernel, product_dtype):
    """Returns h, c, i and f side by side, g and o of all time steps, each `[num_steps, batch, units (i and f: 2 units)]`."""
    units = recurrent_kernel.shape[0]

    def step(carry, x):
        hidden, cell, *_ = carry
        z_if, z_g, z_o = tf.split(x + product(hidden, recurrent_kernel, product_dtype), [2 * units, units, units], -1)
        i_f, g, o = tf.sigmoid(z_if), tf.tanh(z_g), tf.sigmoid(z_o)
        i, f = tf.split(i_f, 2, -1)
        cell = f * cell + i * g
        return o * tf.tanh(cell), cell, i_f, g, o

    return _scan(step, projected, (hidden, cell, tf.concat([cell, cell], -1), cell, cell))


def _gradient_factors(i_f, g, o, cells, previous_cells):
    """Returns what dh is multiplied by on its way to dc and to dz_o, and dc on its way to dz_i, dz_f, dz_g and dc_{t-1}."""
    i, f = tf.split(i_f, 2, -1)
    tanh_cells = tf.tanh(cells)
    to_cell = o * (1 - tf.square(tanh_cells))
    to_output_gate = tanh_cells * o * (1 - o)
    to_other_gates = tf.concat([g * i * (1 - i), previous_cells * f * (1 - f), i * (1 - tf.square(g))], -1)
    return to_cell, to_output_gate, to_other_gates, f


def _fused_backward(d_outputs, d_hidden, d_cell, factors, recurrent_kernel, product_dtype):
    """Returns dh and dc before the window, each `[batch, units]`, and dz `[num_steps, batch, 4 units]`."""

    def step(carry, elements):
        d_hidden, d_cell, _ = carry
        d_output, to_cell, to_output_gate, to_other_gates, forget = elements
        d_hidden += d_output
        d_cell += d_hidden * to_cell
        dz = tf.concat([tf.tile(d_cell, [1, 3]) * to_other_gates, d_hidden * to_output_gate], -1)
        return product(dz, recurrent_kernel, product_dtype, transpose_b=True), d_cell * forget, dz

    initial = (d_hidden, d_cell, tf.tile(d_cell, [1, 4]))
    d_hidden, d_cell, dz = _scan(step, (d_outputs, *factors), initial, reverse=True)
    return d_hidden[0], d_cell[0], dz


def cudnn(inputs, state, weights, product_dtype):
    """The LSTM by NVIDIA's cuDNN, GPU only.

    cuDNN keeps the weights of a layer in one vector: the transposed gates of W, then those of R, then two biases, of which
    the second is zero here. Its gate order, i f g o, is Keras's. Of its three operations TensorFlow's third is the one for
    cuDNN 9, which wants the length of each row. TensorFlow computes bfloat16 in float32 there: `product_dtype` is not used.
    """
    kernel, recurrent_kernel, bias = weights
    flat = [tf.reshape(tf.transpose(matrix), [-1]) for matrix in (kernel, recurrent_kernel)]
    num_steps, batch_size, _ = _shape(inputs)
    with on_host():
        lengths = tf.fill([batch_size], num_steps)
    outputs, hidden, cell, _, _ = tf.raw_ops.CudnnRNNV3(
        input=inputs,
        input_h=state.hidden[tf.newaxis],
        input_c=state.cell[tf.newaxis],
        params=tf.concat([*flat, bias, tf.zeros_like(bias)], 0),
        sequence_lengths=lengths,
        rnn_mode="lstm",
        is_training=True,
    )
    return outputs, LSTMState(hidden[0], cell[0])


def kernel_of(rnn_mode, cell="lstm"):
    """Returns the function `(inputs, state, weights, product_dtype) -> (outputs, state)` that `rnn_mode` names."""
    if rnn_mode == "basic":
        return functools.partial(stepwise, CELLS[cell].step)
    if cell != "lstm":
        raise ValueError(f"rnn_mode {rnn_mode} is for the LSTM alone; {cell} has only basic")
    return {"fused": fused, "cudnn": cudnn}[rnn_mode]


def _rows(sequence):
    """Returns a `[num_steps, batch, size]` sequence as the rows of one matrix."""
    return tf.reshape(sequence, [-1, sequence.shape[-1]])


def _over_steps(sequence, matrix, product_dtype, **transposes):
    """Returns the product of every time step with `matrix`, in one call: TensorFlow's batched product is slower."""
    result = product(_rows(sequence), matrix, product_dtype, **transposes)
    return tf.reshape(result, [*_shape(sequence)[:2], result.shape[-1]])


def _shape(tensor):
    """Returns the static dimensions where they are known, so that what is built from them stays static."""
    return [dynamic if static is None else static for static, dynamic in zip(tensor.shape, tf.unstack(tf.shape(tensor)))]


def _scan(step, sequences, initial, reverse=False):
    """`tf.scan`, unrolled where the number of time steps is known when the graph is built, which is faster."""
    num_steps = tf.nest.flatten(sequences)[0].shape[0]
    if num_steps is None:
        return tf.scan(step, sequences, initial, reverse=reverse)
    carry, carries = initial, [None] * num_steps
    for t in reversed(range(num_steps)) if reverse else range(num_steps):
        carry = carries[t] = step(carry, tf.nest.map_structure(lambda sequence, t=t: sequence[t], sequences))
    return tf.nest.map_structure(lambda *steps: tf.stack(steps), *carries)
