"""The model in TensorFlow's own operations: the cell of its tutorial, unrolled in the graph, or `BlockLSTMV2`.

Both have one weight matrix for the concatenated input and hidden state. TensorFlow derives the gradient.
"""

import tensorflow as tf
from tensorflow.python.ops import rnn_grad  # noqa: F401 -- registers the gradient of BlockLSTMV2

from benchmarks.peers.tensorflow_trainer import TensorFlowTrainer


def unrolled_cell(inputs, hidden, cell, kernel, bias, dtype):
    """`inputs [num_steps, batch, input]` → outputs `[num_steps, batch, units]` and last hidden, cell `[batch, units]`."""
    outputs = []
    for x in tf.unstack(inputs):
        z = matmul(tf.concat([x, hidden], 1), kernel, dtype) + bias
        i, g, f, o = tf.split(z, 4, axis=1)
        cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(g)
        hidden = tf.sigmoid(o) * tf.tanh(cell)
        outputs.append(hidden)
    return tf.stack(outputs), hidden, cell


def block_lstm(inputs, hidden, cell, kernel, bias, dtype):
    """The same function in one operation of TensorFlow's CPU library, float32 only."""
    no_peephole = tf.zeros(hidden.shape[1:])
    _, cells, _, _, _, _, outputs = tf.raw_ops.BlockLSTMV2(
        seq_len_max=tf.constant(inputs.shape[0], tf.int64), x=inputs, cs_prev=cell, h_prev=hidden, w=kernel,
        wci=no_peephole, wcf=no_peephole, wco=no_peephole, b=bias, cell_clip=0.0)  # fmt: skip
    return outputs, outputs[-1], cells[-1]


def matmul(a, b, dtype):
    """Return the product of two float32 matrices, computed in `dtype`, as float32."""
    return tf.cast(tf.matmul(tf.cast(a, dtype), tf.cast(b, dtype)), tf.float32)


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
        gradients, _ = tf.clip_by_global_norm(tape.gradient(cost, variables), self.workload.clip_norm)
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
        logits = matmul(rows, self.softmax_weights, self.product_dtype) + self.softmax_bias
        labels = tf.reshape(tf.transpose(targets), [-1])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tf.reduce_sum(losses) / self.workload.batch_size, tuple(new_state)

    def _dropout(self, features):
        return tf.nn.dropout(features, self.workload.dropout) if self.workload.dropout else features
