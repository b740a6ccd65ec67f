"""Kernels: a recurrent layer over a window of time steps, as pure functions of inputs, state and weights.

`stepwise` runs any cell on any device, `cudnn` the LSTM on a GPU. Both compute the same function of the same weights. For the
LSTM, in Keras's layout (gates i, f, g, o side by side), it is

    z_t = x_t W + h_{t-1} R + b          W [input, 4 units], R [units, 4 units], b [4 units]
    i, f, g, o = σ(z_i), σ(z_f), tanh(z_g), σ(z_o)
    c_t = f ∘ c_{t-1} + i ∘ g
    h_t = o ∘ tanh(c_t)                  (Zaremba et al. 2014, section 3.1)

A kernel takes `inputs [num_steps, batch, input]`, time first because the recurrence reads in that order, a state of
`[batch, units]` tensors, the weights, and `product_dtype`, the type of matrix products and their factors (bfloat16 or the type
of the weights; cuDNN ignores it). Everything else keeps the type of the weights. It returns the outputs
`[num_steps, batch, units]` and the last state.

`state_mask [batch, units]`, if given, multiplies h before the product with R (recurrent dropout): h_{t-1} R above becomes
(m ∘ h_{t-1}) R, also for the initial state; the output is not masked. The mask is the same at all steps. In a cell that reads
its raw input, everything reads m ∘ h_{t-1}, as in lamb. A dropped recurrent weight is simply a zero in R.
"""

import functools
import itertools

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
    """Run any `cell` (ptb.model.cells) one time step after another. TensorFlow derives the gradient.

    Only h R and elementwise operations remain inside the time loop, forward and backward: the inputs of all time steps are
    multiplied by W in one product before it, and dW, dR and dx are one product each after it.
    """
    kernel, recurrent_kernel, bias, *extra = weights
    recurrent_matmul = _multiply_steps(recurrent_kernel, inputs, product_dtype)
    if cell.reads_raw_input:
        multiply = _multiply_steps(kernel, inputs, product_dtype)
        matrices = (_multiply_steps(weight, inputs, product_dtype) if weight.shape.rank == 2 else weight for weight in extra)
        extra = [lambda x: multiply(x) + bias, *matrices]
    else:
        inputs = matmul_over_steps(inputs, kernel, product_dtype) + bias

    def masked(hidden):
        return hidden if state_mask is None else hidden * state_mask

    def step(state, x):
        if cell.reads_raw_input:
            return cell.step(x, state._replace(hidden=masked(state.hidden)), recurrent_matmul, *extra)
        return cell.step(x, state, lambda hidden: recurrent_matmul(masked(hidden)), *extra)

    if inputs.shape[0] is None:
        states = tf.scan(step, inputs, state)
        return states.hidden, tf.nest.map_structure(lambda steps: steps[-1], states)
    states = list(itertools.accumulate(tf.unstack(inputs), step, initial=state))[1:]  # unrolled, which is faster
    return tf.stack([state.hidden for state in states]), states[-1]


def _multiply_steps(matrix, sequence, dtype):
    """Return a function x_t -> x_t W, to be called once in each time step of a sequence, whose gradient is fast.

    TensorFlow would compute dW = Σ x_tᵀ dy_t as one product per step, and add these up. Here it is one product, Xᵀ dY: each
    product has a link, zeros that it does not read, and dy_t is the gradient of its link. The gradient of all links is dW.
    """
    num_steps, batch_size, _ = static_shape(sequence)
    factor, read = tf.stop_gradient(tf.cast(matrix, dtype)), []
    if sequence.shape[0] is None:  # then tf.scan traces one step for all
        return functools.partial(matmul, b=tf.cast(matrix, dtype), dtype=dtype)

    @tf.custom_gradient
    def make_links(matrix):
        links = [tf.zeros([batch_size, matrix.shape[1]], matrix.dtype)] * num_steps
        return links, lambda *dy: matmul(_rows(tf.stack(read)), _rows(tf.stack(dy)), dtype, transpose_a=True)

    @tf.custom_gradient
    def multiply(x, link):
        read.append(x)
        return matmul(x, factor, dtype), lambda dy: (matmul_transposed(dy, factor, dtype), dy)

    links = iter(make_links(matrix))
    return lambda x: multiply(x, next(links))


def cudnn(inputs, state, weights, product_dtype, state_mask=None):
    """Run the LSTM by NVIDIA's cuDNN, on a GPU only.

    cuDNN keeps the weights of a layer in one vector: the transposed gates of W, those of R, then two biases, of which the
    second is zero here. Its gate order, i f g o, is that of Keras. CudnnRNNV3 is TensorFlow's operation for cuDNN 9; it needs
    the length of each row. TensorFlow computes bfloat16 in float32 there, so `product_dtype` has no effect. It has no place for
    a `state_mask`.
    """
    if state_mask is not None:
        raise ValueError("rnn_mode cudnn: cannot drop the recurrent state; use stepwise")
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
    if rnn_mode == "stepwise":
        return functools.partial(stepwise, CELLS[cell])
    if cell != "lstm":
        raise ValueError(f"rnn_mode {rnn_mode}: is not for the cell {cell}; use stepwise")
    return cudnn


def _rows(sequence):
    """Return a sequence `[num_steps, batch, size]` as a matrix `[num_steps * batch, size]`."""
    return tf.reshape(sequence, [-1, sequence.shape[-1]])


def matmul_over_steps(sequence, matrix, dtype):
    """Return the product of every time step with `matrix`, as one matrix product: TensorFlow's batched product is slower."""
    result = matmul(_rows(sequence), matrix, dtype)
    return tf.reshape(result, [*static_shape(sequence)[:2], result.shape[-1]])


def static_shape(tensor):
    """Return the static dimensions that are known and dynamic ones otherwise, so that results keep static shapes."""
    return [dynamic if static is None else static for static, dynamic in zip(tensor.shape, tf.unstack(tf.shape(tensor)))]
