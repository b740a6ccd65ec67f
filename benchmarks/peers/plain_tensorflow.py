"""The model made of TensorFlow's own operations: with the cell of its tutorial, unrolled in the graph, or with `BlockLSTMV2`.

Both have one weight matrix for the concatenated input and hidden state, and the gradient that TensorFlow derives.
"""

import tensorflow as tf
from tensorflow.python.ops import rnn_grad  # noqa: F401, registers the gradient of BlockLSTMV2

from benchmarks.peers.tensorflow_trainer import TensorFlowTrainer


def unrolled_cell(inputs, hidden, cell, kernel, bias, dtype):
    """`inputs [num_steps, batch, input]` → outputs `[num_steps, batch, units]` and the last state, twice `[batch, units]`."""
    outputs = []
    for x in tf.unstack(inputs):
        z = product(tf.concat([x, hidden], 1), kernel, dtype) + bias
        i, g, f, o = tf.split(z, 4, axis=1)
        cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(g)
        hidden = tf.sigmoid(o) * tf.tanh(cell)
        outputs.append(hidden)
    return tf.stack(outputs), hidden, cell


def block_lstm(inputs, hidden, cell, kernel, bias, dtype):
    """The same in one operation of TensorFlow's CPU library, in float32."""
    no_peephole = tf.zeros(hidden.shape[1:])
    _, cells, _, _, _, _, outputs = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.constant(inputs.shape[0], tf.int64), x=inputs, cs_prev=cell, h_prev=hidden, w=kernel,
        wci=no_peephole, wcf=no_peephole, wco=no_peephole, b=bias, cell_clip=0.0)  # fmt: skip
    return outputs, outputs[-1], cells[-1]


def product(a, b, dtype, **transposes):
    """Returns the product of two float32 matrices, rounded to `dtype` before it."""
    return tf.cast(tf.matmul(tf.cast(a, dtype), tf.cast(b, dtype), **transposes), tf.float32)


LAYERS = {"unrolled_cell": unrolled_cell, "block_lstm": block_lstm}


class Trainer(TensorFlowTrainer):
    def __init__(self, workload, precision, layer):
        super().__init__(workload, precision)
        self.layer = LAYERS[layer]
        units, vocab_size = workload.hidden_size, workload.vocab_size
        self.embedding = self._variable(vocab_size, units)
        self.layers = [(self._variable(2 * units, 4 * units), self._variable(4 * units)) for _ in range(workload.num_layers)]
        self.softmax_weights, self.softmax_bias = self._variable(units, vocab_size), self._variable(vocab_size)
        zeros = tf.zeros([workload.batch_size, units])
        self.state = tuple((zeros, zeros) for _ in range(workload.num_layers))
        self.train_step = tf.function(self._train_step, autograph=False)

    def train(self, steps):
        for _ in range(steps):
            self.state, cost = self.train_step(*next(self.windows), self.state)
        return float(cost)

    def _variable(self, *shape):
        return tf.Variable(tf.random.uniform(shape, -self.workload.init_scale, self.workload.init_scale))

    def _train_step(self, inputs, targets, state):
        variables = [self.embedding, *tf.nest.flatten(self.layers), self.softmax_weights, self.softmax_bias]
        with tf.GradientTape() as tape:
            cost, state = self._cost(inputs, targets, state)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(cost, variables), self.workload.max_grad_norm)
        for variable, gradient in zip(variables, gradients):
            if isinstance(gradient, tf.IndexedSlices):
                variable.scatter_sub(tf.IndexedSlices(self.workload.learning_rate * gradient.values, gradient.indices))
            else:
                variable.assign_sub(self.workload.learning_rate * gradient)
        return state, cost

    def _cost(self, inputs, targets, state):
        features, new_state = self._dropout(tf.gather(self.embedding, tf.transpose(inputs))), []
        for (hidden, cell), (kernel, bias) in zip(state, self.layers):
            outputs, hidden, cell = self.layer(features, hidden, cell, kernel, bias, self.product_dtype)
            features = self._dropout(outputs)
            new_state.append((hidden, cell))
        rows = tf.reshape(features, [-1, self.workload.hidden_size])
        logits = product(rows, self.softmax_weights, self.product_dtype) + self.softmax_bias
        labels = tf.reshape(tf.transpose(targets), [-1])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tf.reduce_sum(losses) / self.workload.batch_size, tuple(new_state)

    def _dropout(self, features):
        return tf.nn.dropout(features, 1 - self.workload.keep_prob) if self.workload.keep_prob < 1 else features
