"""The language model of Zaremba et al. 2014: embedding, LSTM layers, softmax, and dropout on everything but the recurrence."""

import keras
import tensorflow as tf

from ptb import softmax
from ptb.kernels import KERNELS, LSTMState


class LSTM(keras.layers.Layer):
    """One LSTM layer that takes its state as an argument and returns it, time first.

    Its weights have the names, shapes and gate order of `keras.layers.LSTM` (`kernel [input, 4 units]`, `recurrent_kernel
    [units, 4 units]`, `bias [4 units]`; i, f, g, o), so that `get_weights` of one is `set_weights` of the other.
    `rnn_mode` names one of `ptb.kernels.KERNELS`.
    """

    def __init__(self, units, *, initializer, forget_bias=0.0, rnn_mode="fused", product_dtype=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.units = units
        self.initializer = initializer
        self.forget_bias = forget_bias
        self.kernel_function = KERNELS[rnn_mode]
        self.product_dtype = product_dtype or self.dtype

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], 4 * self.units), self.initializer, name="kernel")
        self.recurrent_kernel = self.add_weight((self.units, 4 * self.units), self.initializer, name="recurrent_kernel")
        self.bias = self.add_weight((4 * self.units,), "zeros", name="bias")
        i_g_o, f = [0.0] * self.units, [self.forget_bias] * self.units
        self.bias.assign(i_g_o + f + 2 * i_g_o)

    def initial_state(self, batch_size):
        """Returns the state before any text: zeros, `[batch, units]` each."""
        return LSTMState(*[tf.zeros([batch_size, self.units], self.dtype) for _ in LSTMState._fields])

    def call(self, inputs, state):
        """`inputs [num_steps, batch, input]` → outputs `[num_steps, batch, units]` and the state after the last step."""
        weights = [variable.value for variable in (self.kernel, self.recurrent_kernel, self.bias)]
        return self.kernel_function(inputs, state, *weights, tf.as_dtype(self.product_dtype))


class LanguageModel(keras.Model):
    """Gives the distribution of each next word from the words so far: `logits, state = model(inputs, state)`.

    Dropout with probability `1 - keep_prob` stands on the output of the embedding, between the layers and before the
    softmax, never on a recurrent connection, with a new mask at each time step (section 3.1 and figure 2 of the paper).
    All weights start uniform in ±`init_scale`, the LSTM biases at zero, as in the tutorial's `ptb_word_lm.py`. All of it, masks
    included, follows from seeds: `seed` for the weights, `dropout_seed` for the masks of a call.
    """

    def __init__(
        self,
        vocab_size,
        hidden_size,
        num_layers,
        *,
        keep_prob=1.0,
        init_scale=0.1,
        forget_bias=0.0,
        rnn_mode="fused",
        product_dtype=None,
        seed=0,
        **kwargs,
    ):
        super().__init__(name="language_model", **kwargs)  # or Keras would number it, and its variables' paths with it
        self.vocab_size = vocab_size
        self.keep_prob = keep_prob
        initializer = keras.initializers.RandomUniform(-init_scale, init_scale, keras.random.SeedGenerator(seed))
        self.embedding = self.add_weight((vocab_size, hidden_size), initializer, name="embedding")
        self.recurrent_layers = []
        for index in range(num_layers):
            layer = LSTM(
                hidden_size,
                initializer=initializer,
                forget_bias=forget_bias,
                rnn_mode=rnn_mode,
                product_dtype=product_dtype,
                dtype=self.dtype,
                name=f"lstm_{index}",
            )
            layer.build((None, None, hidden_size))
            self.recurrent_layers.append(layer)
        self.softmax_weights = self.add_weight((vocab_size, hidden_size), initializer, name="softmax_weights")
        self.softmax_bias = self.add_weight((vocab_size,), initializer, name="softmax_bias")
        self.product_dtype = tf.as_dtype(product_dtype or self.dtype)
        self.built = True

    def initial_state(self, batch_size):
        """Returns the state before any text: a tuple with one entry per layer."""
        return tuple(layer.initial_state(batch_size) for layer in self.recurrent_layers)

    def call(self, inputs, state, training=False, dropout_seed=None):
        """`inputs` int32 `[batch, num_steps]` → logits `[batch, num_steps, vocab]` and the state after the last step."""
        features, state = self.features(inputs, state, training, dropout_seed)
        num_steps, batch_size = tf.unstack(tf.shape(features)[:2])
        features = tf.reshape(tf.transpose(features, [1, 0, 2]), [-1, features.shape[-1]])
        scores = softmax.logits(features, *self._softmax_variables(), self.product_dtype)
        return tf.reshape(scores, [batch_size, num_steps, self.vocab_size]), state

    def losses_of(self, inputs, targets, state, training=False, dropout_seed=None):
        """Returns −log p(target) in nats, `[batch, num_steps]`, and the state; cheaper than `call`, which keeps logits."""
        features, state = self.features(inputs, state, training, dropout_seed)
        rows = tf.reshape(features, [-1, features.shape[-1]])
        labels = tf.reshape(tf.transpose(targets), [-1])
        losses = softmax.cross_entropy(rows, *self._softmax_variables(), labels, self.product_dtype)
        return tf.transpose(tf.reshape(losses, tf.shape(features)[:2])), state

    def features(self, inputs, state, training=False, dropout_seed=None):
        """Returns what the softmax sees, `[num_steps, batch, hidden]`, and the state after the last step.

        `dropout_seed`, int32 `[2]`, is needed in training when `keep_prob` is below one.
        """
        features = tf.gather(self.embedding.value, tf.transpose(inputs))
        dropped = training and self.keep_prob < 1
        new_state = []
        for index, (layer, layer_state) in enumerate(zip(self.recurrent_layers, state)):
            features = self._dropout(features, dropout_seed, index) if dropped else features
            features, layer_state = layer(features, layer_state)
            new_state.append(layer_state)
        features = self._dropout(features, dropout_seed, len(new_state)) if dropped else features
        return features, tuple(new_state)

    def _dropout(self, features, seed, index):
        seed = tf.random.fold_in(seed, index)
        return tf.nn.experimental.stateless_dropout(features, 1 - self.keep_prob, seed)

    def _softmax_variables(self):
        return self.softmax_weights.value, self.softmax_bias.value
