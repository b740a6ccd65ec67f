"""The parts of our training step as separate functions that call the program's own code. phases.py times them."""

from collections.abc import Callable

import keras
import tensorflow as tf

from benchmarks.workload import Workload
from ptb.config import override
from ptb.model.cells import LSTMState
from ptb.model.dropout import dropout
from ptb.model.heads import cross_entropy
from ptb.model.kernels import find_kernel, matmul
from ptb.model.language_model import build_model
from ptb.runtime.devices import on_host
from ptb.training.optimizers import clip_gradients, sgd_update, sum_repeated_rows


def make_pieces(workload: Workload, kernel: str, product_dtype: str) -> dict[str, Callable]:
    """Return compiled functions without arguments, by name. Those of the LSTM compute one layer."""
    dtype = tf.as_dtype(product_dtype)
    batch, steps, units = workload.batch_size, workload.num_steps, workload.hidden_size
    model = build_model(override(workload.config, {"layers": (units,)}), workload.vocab_size)
    layer = model.recurrent_layers[0]
    words, targets = [tf.constant(tokens) for tokens in workload.windows()[0]]
    inputs, d_outputs = tf.random.normal([2, steps, batch, units])
    dz = tf.random.normal([steps, batch, 4 * units])
    zeros = tf.zeros([batch, units])

    def dropped(features):
        return dropout(features, workload.dropout, tf.constant([0, 0]), 0)

    def embedding():
        with on_host():
            ids = tf.transpose(words)
        with tf.GradientTape() as tape:
            features = dropped(tf.gather(model.embedding.value, ids))
        return features, sum_repeated_rows(tape.gradient(features, model.embedding.value, d_outputs)).values

    def dropout_after_layer():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            features = dropped(inputs)
        return features, tape.gradient(features, inputs, d_outputs)

    def input_products():
        return matmul(tf.reshape(inputs, [-1, units]), layer.kernel.value, dtype) + layer.bias.value

    def layer_forward():
        weights = layer.kernel.value, layer.recurrent_kernel.value, layer.bias.value
        return find_kernel(kernel)(inputs, LSTMState(zeros, zeros), weights, dtype)

    def layer_forward_backward():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs, state = layer_forward()
        return state, tape.gradient(outputs, [inputs, *[variable.value for variable in layer.trainable_variables]], d_outputs)

    def gradient_products():
        rows, d_rows = tf.reshape(inputs, [-1, units]), tf.reshape(dz, [-1, 4 * units])
        d_inputs = matmul(d_rows, layer.kernel.value, dtype, transpose_b=True)
        # The gradients of input weights and recurrent weights. TensorFlow would compute equal products only once, so the second
        # has its rows in another order.
        d_kernels = [matmul(factors, d_rows, dtype, transpose_a=True) for factors in (rows, rows[::-1])]
        return d_inputs, d_kernels, tf.reduce_sum(d_rows, 0)

    def softmax_and_loss():
        with on_host():
            labels = tf.reshape(tf.transpose(targets), [-1])
        rows = tf.reshape(inputs, [-1, units])
        weights = model.softmax_weights.value, model.softmax_bias.value
        with tf.GradientTape() as tape:
            tape.watch(rows)
            losses = cross_entropy(rows, *weights, labels, dtype)
        return losses, tape.gradient(losses, [rows, *weights])

    dense = [keras.Variable(tf.random.normal(variable.shape)) for variable in model.trainable_variables[1:]]
    dense += [keras.Variable(variable.value) for _ in range(workload.num_layers - 1) for variable in layer.trainable_variables]
    gradients = [tf.random.normal(variable.shape) for variable in dense]

    def clip_and_update():
        rows = tf.IndexedSlices(tf.reshape(d_outputs, [-1, units]), tf.reshape(words, [-1]))
        norm = tf.linalg.global_norm([rows, *gradients])
        clipped, factor, _ = clip_gradients(workload.config.optimizer, [rows, *gradients], norm)
        sgd_update([model.embedding, *dense], clipped, 1e-6 * factor)  # tiny, so that repeated calls hardly change the weights
        return norm

    pieces = [embedding, dropout_after_layer, input_products, layer_forward, layer_forward_backward, gradient_products,
              softmax_and_loss, clip_and_update]  # fmt: skip
    return {piece.__name__: tf.function(piece, autograph=False) for piece in pieces}
