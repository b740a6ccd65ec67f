"""The parts of our training step as functions of their own, made of the program's own code: see phases.py."""

import tensorflow as tf

from ptb import softmax
from ptb.cells import LSTMState
from ptb.devices import on_host
from ptb.kernels import kernel_of, product
from ptb.model import LanguageModel
from ptb.training import descend, sum_repeats


def make_pieces(workload, kernel, product_dtype):
    """Returns `{name: function of no arguments}`; those of the LSTM do one layer."""
    dtype = tf.as_dtype(product_dtype)
    batch, steps, units = workload.batch_size, workload.num_steps, workload.hidden_size
    model = LanguageModel(workload.vocab_size, units, 1, keep_prob=workload.keep_prob, init_scale=workload.init_scale)
    layer = model.recurrent_layers[0]
    words, targets = [tf.constant(tokens) for tokens in workload.windows()[0]]
    inputs, d_outputs = tf.random.normal([2, steps, batch, units])
    dz = tf.random.normal([steps, batch, 4 * units])
    zeros = tf.zeros([batch, units])

    def embedding():
        with on_host():
            ids = tf.transpose(words)
        with tf.GradientTape() as tape:
            features = dropout(tf.gather(model.embedding.value, ids))
        return features, sum_repeats(tape.gradient(features, model.embedding.value, d_outputs)).values

    def dropout(features):
        if workload.keep_prob == 1:
            return features
        return tf.nn.experimental.stateless_dropout(features, 1 - workload.keep_prob, [0, 0])

    def dropout_after_layer():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            features = dropout(inputs)
        return features, tape.gradient(features, inputs, d_outputs)

    def input_products():
        return product(tf.reshape(inputs, [-1, units]), layer.kernel.value, dtype) + layer.bias.value

    def layer_forward():
        weights = layer.kernel.value, layer.recurrent_kernel.value, layer.bias.value
        return kernel_of(kernel)(inputs, LSTMState(zeros, zeros), weights, dtype)

    def layer_forward_backward():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs, state = layer_forward()
        return state, tape.gradient(outputs, [inputs, *[variable.value for variable in layer.trainable_variables]], d_outputs)

    def gradient_products():
        rows, d_rows = tf.reshape(inputs, [-1, units]), tf.reshape(dz, [-1, 4 * units])
        d_inputs = product(d_rows, layer.kernel.value, dtype, transpose_b=True)
        # of the input weights and of the recurrent weights; from other rows, or the two would be computed once
        d_kernels = [product(factors, d_rows, dtype, transpose_a=True) for factors in (rows, rows[::-1])]
        return d_inputs, d_kernels, tf.reduce_sum(d_rows, 0)

    def softmax_and_loss():
        with on_host():
            labels = tf.reshape(tf.transpose(targets), [-1])
        rows = tf.reshape(inputs, [-1, units])
        weights = model.softmax_weights.value, model.softmax_bias.value
        with tf.GradientTape() as tape:
            tape.watch(rows)
            losses = softmax.cross_entropy(rows, *weights, labels, dtype)
        return losses, tape.gradient(losses, [rows, *weights])

    dense = [tf.Variable(tf.random.normal(variable.shape)) for variable in model.trainable_variables[1:]]
    dense += [tf.Variable(variable) for _ in range(workload.num_layers - 1) for variable in layer.trainable_variables]
    gradients = [tf.random.normal(variable.shape) for variable in dense]

    def clip_and_update():
        rows = tf.IndexedSlices(tf.reshape(d_outputs, [-1, units]), tf.reshape(words, [-1]))
        norm = tf.linalg.global_norm([rows, *gradients])
        descend([model.embedding.value, *dense], [rows, *gradients], 1e-6 / tf.maximum(norm, 1.0), 1.0)
        return norm

    pieces = [embedding, dropout_after_layer, input_products, layer_forward, layer_forward_backward, gradient_products,
              softmax_and_loss, clip_and_update]  # fmt: skip
    return {piece.__name__: tf.function(piece, autograph=False) for piece in pieces}
