"""Kernels: a recurrent layer over a window of time steps, as pure functions of inputs, state and weights.

`stepwise` runs any cell, `fused` the LSTM on a CPU, `cudnn` the LSTM on a GPU. All compute the same function of the same
weights. For the LSTM, in Keras's layout (gates i, f, g, o side by side), it is

    z_t = x_t W + h_{t-1} R + b          W [input, 4 units], R [units, 4 units], b [4 units]
    i, f, g, o = σ(z_i), σ(z_f), tanh(z_g), σ(z_o)
    c_t = f ∘ c_{t-1} + i ∘ g
    h_t = o ∘ tanh(c_t)                  (Zaremba et al. 2014, section 3.1)

A kernel takes `inputs [num_steps, batch, input]`, time first because the recurrence reads in that order, a state of
`[batch, units]` tensors, the weights, and `product_dtype`, the type of matrix products and their factors (bfloat16 or the type
of the weights; cuDNN ignores it). Everything else keeps the type of the weights. It returns the outputs
`[num_steps, batch, units]` and the last state.

`state_mask [batch, units]`, if given, multiplies h on its way to the next step (recurrent dropout): h_{t-1} above becomes
m ∘ h_{t-1}, the initial one too, but not the output. The mask is the same at all steps. A dropped recurrent weight is simply a
zero in R.
"""

import functools

import tensorflow as tf

from ptb.model.cells import CELLS, LSTMState
from ptb.runtime.devices import has_avx512, on_host, visible_gpus

FEW_ROWS, LARGE = 64, 512  # rows and least dimension for which `matmul_transposed` was measured to be faster


def matmul(a, b, dtype, **transposes):
    """Return the matrix product of `a` and `b`, computed in `dtype`, in the type of `a`. See ptb/runtime/devices.py."""
    return tf.cast(tf.matmul(tf.cast(a, dtype), tf.cast(b, dtype), **transposes), a.dtype)


def matmul_transposed(a, b, dtype):
    """Return `a bᵀ` for a matrix `a` of few rows, the batch, computed in `dtype`, in the type of `a`.

    In float32 with AVX-512, oneDNN computes (b aᵀ)ᵀ in down to half the time if b is large: benchmarks/README.md.
    """
    few_rows = a.shape[0] is not None and a.shape[0] <= FEW_ROWS
    if few_rows and min(b.shape) >= LARGE and dtype == tf.float32 and has_avx512() and not visible_gpus():
        return tf.cast(tf.transpose(matmul(b, a, dtype, transpose_b=True)), a.dtype)
    return matmul(a, b, dtype, transpose_b=True)


def stepwise(cell, inputs, state, weights, product_dtype, state_mask=None):
    """Run any `cell` (ptb.model.cells) one time step after another. TensorFlow derives the gradient."""
    kernel, recurrent_kernel, bias, *extra = weights
    recurrent_matmul = _multiply_steps(recurrent_kernel, inputs, product_dtype)
    if cell.multiplies_extra:
        extra = [_multiply_steps(weight, inputs, product_dtype) if weight.shape.rank == 2 else weight for weight in extra]
    if cell.reads_raw_input:
        multiply = _multiply_steps(kernel, inputs, product_dtype)
        extra = [lambda x: multiply(x) + bias, *extra]
    else:
        inputs = _matmul_over_steps(inputs, kernel, product_dtype) + bias

    def step(state, x):
        if state_mask is not None:
            state = state._replace(hidden=state.hidden * state_mask)
        return cell.step(x, state, recurrent_matmul, *extra)

    states = _scan(step, inputs, state)
    return states.hidden, tf.nest.map_structure(lambda steps: steps[-1], states)


def _multiply_steps(matrix, sequence, dtype):
    """Return a function x_t -> x_t W, to be called once in each time step of a sequence, whose gradient is fast.

    TensorFlow would compute dW = Σ x_tᵀ dy_t as one product per step, and add these up. Here it is one product, Xᵀ dY: each
    product has a link, zeros that it does not read, and dy_t is the gradient of its link. The gradient of all links is dW.
    """
    num_steps, batch_size, _ = static_shape(sequence)
    factor, read = tf.stop_gradient(tf.cast(matrix, dtype)), []
    if sequence.shape[0] is None:  # then `_scan` traces one step for all
        return functools.partial(matmul, b=matrix, dtype=dtype)

    @tf.custom_gradient
    def make_links(matrix):
        links = tf.zeros([num_steps, batch_size, matrix.shape[1]], matrix.dtype)
        return links, lambda dy: matmul(_rows(tf.stack(read)), _rows(dy), dtype, transpose_a=True)

    @tf.custom_gradient
    def multiply(x, link):
        read.append(x)
        return matmul(x, factor, dtype), lambda dy: (matmul_transposed(dy, factor, dtype), dy)

    links = iter(tf.unstack(make_links(matrix)))
    return lambda x: multiply(x, next(links))


def fused(inputs, state, weights, product_dtype, state_mask=None, capped=False):
    """Run the LSTM with a gradient written by hand; only `h R` and elementwise operations remain inside the time loop.

    The inputs of all time steps are multiplied by W in one product before the loop. In the backward loop only dh and dc depend
    on the following step. All factors that they are multiplied by are computed for all steps at once, before the loop:

        dc_t = dc_{t+1} ∘ f_{t+1} + dh_t ∘ o (1 - tanh² c_t)
        dz_i, dz_f, dz_g = dc_t ∘ [g i (1 - i),  c_{t-1} f (1 - f),  i (1 - g²)]
        dz_o = dh_t ∘ tanh(c_t) o (1 - o)
        dh_{t-1} = dy_{t-1} + m ∘ (dz_t Rᵀ)          m: the state mask

    After the loop dW, dR, db and dx are one large product or sum each. Automatic differentiation computes one per step.

    `capped` is for the cell capped_lstm, whose input gate is min(1 - f, i): where the cap 1 - f is the smaller one, the
    gradient of the input gate goes to f, negated, instead of to i.
    """

    def masked(hidden):
        return hidden if state_mask is None else hidden * state_mask

    @tf.custom_gradient
    def run(inputs, hidden, cell, kernel, recurrent_kernel, bias):
        factor = tf.cast(recurrent_kernel, product_dtype)
        projected = _matmul_over_steps(inputs, kernel, product_dtype) + bias
        outputs, cells, *gates = _fused_forward(projected, hidden, cell, factor, product_dtype, masked, capped)

        def gradient(d_outputs, d_hidden, d_cell):
            previous_cells = tf.concat([cell[tf.newaxis], cells[:-1]], 0)
            factors = _gradient_factors(*gates, cells, previous_cells, capped)
            d_hidden, d_cell, dz = _fused_backward(d_outputs, d_hidden, d_cell, factors, factor, product_dtype, masked)
            previous_outputs = masked(tf.concat([hidden[tf.newaxis], outputs[:-1]], 0))
            return (
                _matmul_over_steps(dz, kernel, product_dtype, transpose_b=True),
                d_hidden,
                d_cell,
                matmul(_rows(inputs), _rows(dz), product_dtype, transpose_a=True),
                matmul(_rows(previous_outputs), _rows(dz), product_dtype, transpose_a=True),
                tf.reduce_sum(_rows(dz), 0),
            )

        return (outputs, outputs[-1], cells[-1]), gradient

    outputs, hidden, cell = run(inputs, state.hidden, state.cell, *weights)
    return outputs, LSTMState(hidden, cell)


def _fused_forward(projected, hidden, cell, recurrent_kernel, product_dtype, masked, capped):
    """Return h, c, [i f], g, o of all time steps, each `[num_steps, batch, units]`; i and f side by side, `2 * units`."""
    units = recurrent_kernel.shape[0]

    def step(carry, x):
        hidden, cell, *_ = carry
        z = x + matmul(masked(hidden), recurrent_kernel, product_dtype)
        z_if, z_g, z_o = tf.split(z, [2 * units, units, units], -1)
        i_f, g, o = tf.sigmoid(z_if), tf.tanh(z_g), tf.sigmoid(z_o)
        i, f = tf.split(i_f, 2, -1)
        cell = f * cell + (tf.minimum(1 - f, i) if capped else i) * g
        return o * tf.tanh(cell), cell, i_f, g, o

    return _scan(step, projected, (hidden, cell, tf.concat([cell, cell], -1), cell, cell))


def _gradient_factors(i_f, g, o, cells, previous_cells, capped):
    """Return the factors from dh to dc, from dh to dz_o, from dc to [dz_i dz_f dz_g], and from dc_t to dc_{t-1}."""
    i, f = tf.split(i_f, 2, -1)
    tanh_cells = tf.tanh(cells)
    to_cell = o * (1 - tf.square(tanh_cells))
    to_output_gate = tanh_cells * o * (1 - o)
    to_input_gate, to_forget_gate = g, previous_cells
    if capped:
        is_capped = tf.cast(1 - f < i, g.dtype)
        to_input_gate, to_forget_gate = (1 - is_capped) * g, previous_cells - is_capped * g
        entering = tf.minimum(1 - f, i)
    else:
        entering = i
    to_other_gates = tf.concat([to_input_gate * i * (1 - i), to_forget_gate * f * (1 - f), entering * (1 - tf.square(g))], -1)
    return to_cell, to_output_gate, to_other_gates, f


def _fused_backward(d_outputs, d_hidden, d_cell, factors, recurrent_kernel, product_dtype, masked):
    """Return dh and dc before the window, each `[batch, units]`, and dz `[num_steps, batch, 4 * units]`."""

    def step(carry, elements):
        d_hidden, d_cell, _ = carry
        d_output, to_cell, to_output_gate, to_other_gates, forget = elements
        d_hidden += d_output
        d_cell += d_hidden * to_cell
        dz = tf.concat([tf.tile(d_cell, [1, 3]) * to_other_gates, d_hidden * to_output_gate], -1)
        return masked(matmul_transposed(dz, recurrent_kernel, product_dtype)), d_cell * forget, dz

    initial = (d_hidden, d_cell, tf.tile(d_cell, [1, 4]))
    d_hidden, d_cell, dz = _scan(step, (d_outputs, *factors), initial, reverse=True)
    return d_hidden[0], d_cell[0], dz


def cudnn(inputs, state, weights, product_dtype, state_mask=None):
    """Run the LSTM by NVIDIA's cuDNN, on a GPU only.

    cuDNN keeps the weights of a layer in one vector: the transposed gates of W, those of R, then two biases, of which the
    second is zero here. Its gate order, i f g o, is that of Keras. CudnnRNNV3 is TensorFlow's operation for cuDNN 9; it needs
    the length of each row. TensorFlow computes bfloat16 in float32 there, so `product_dtype` has no effect. It has no place for
    a `state_mask`.
    """
    if state_mask is not None:
        raise ValueError("rnn_mode cudnn: cannot drop the recurrent state; use fused")
    kernel, recurrent_kernel, bias = weights
    flat = [tf.reshape(tf.transpose(matrix), [-1]) for matrix in (kernel, recurrent_kernel)]
    num_steps, batch_size, _ = static_shape(inputs)
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


def find_kernel(rnn_mode, cell="lstm"):
    """Return the kernel `(inputs, state, weights, product_dtype, state_mask) -> (outputs, state)` of an rnn_mode and a cell.

    Raises ValueError if the cell has no such kernel.
    """
    kernels = {
        "stepwise": functools.partial(stepwise, CELLS[cell]),
        "fused": {"lstm": fused, "capped_lstm": functools.partial(fused, capped=True)}.get(cell),
        "cudnn": {"lstm": cudnn}.get(cell),
    }
    if kernels[rnn_mode] is None:
        raise ValueError(f"rnn_mode {rnn_mode}: is not for the cell {cell}; use stepwise")
    return kernels[rnn_mode]


def _rows(sequence):
    """Return a sequence `[num_steps, batch, size]` as a matrix `[num_steps * batch, size]`."""
    return tf.reshape(sequence, [-1, sequence.shape[-1]])


def _matmul_over_steps(sequence, matrix, product_dtype, **transposes):
    """Return the product of every time step with `matrix`, as one matrix product: TensorFlow's batched product is slower."""
    result = matmul(_rows(sequence), matrix, product_dtype, **transposes)
    return tf.reshape(result, [*static_shape(sequence)[:2], result.shape[-1]])


def static_shape(tensor):
    """Return the static dimensions that are known and dynamic ones otherwise, so that results keep static shapes."""
    return [dynamic if static is None else static for static, dynamic in zip(tensor.shape, tf.unstack(tf.shape(tensor)))]


def _scan(step, sequences, initial, reverse=False):
    """Does the same as `tf.scan`; unrolls the loop, which is faster, if the number of time steps is static."""
    num_steps = tf.nest.flatten(sequences)[0].shape[0]
    if num_steps is None:
        return tf.scan(step, sequences, initial, reverse=reverse)
    # The gradient of unstack is one operation; that of sequence[t] would be one of the size of the sequence for each t.
    elements = list(zip(*[tf.unstack(sequence) for sequence in tf.nest.flatten(sequences)]))
    carry, carries = initial, [None] * num_steps
    for t in reversed(range(num_steps)) if reverse else range(num_steps):
        carry = carries[t] = step(carry, tf.nest.pack_sequence_as(sequences, elements[t]))
    return tf.nest.map_structure(lambda *steps: tf.stack(steps), *carries)
