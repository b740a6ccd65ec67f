"""The language model of Zaremba et al. 2014: embedding, recurrent layers, softmax, and dropout on all but the recurrence."""

import keras
import tensorflow as tf

from ptb import replicas, softmax
from ptb.cells import CELLS
from ptb.devices import on_host
from ptb.kernels import kernel_of


class Recurrent(keras.layers.Layer):
    """One recurrent layer that takes its state as an argument and returns it, time first.

    `cell` names one of `ptb.cells.CELLS`, `rnn_mode` the function of `ptb.kernels` that takes it through time. The weights of
    "lstm" have the names, shapes and gate order of `keras.layers.LSTM` (`kernel [input, 4 units]`, `recurrent_kernel [units,
    4 units]`, `bias [4 units]`; i, f, g, o), so that `get_weights` of one is `set_weights` of the other. With `two_biases` a
    `recurrent_bias` of the same shape is added to the bias, and both start as the kernel does.
    """

    def __init__(
        self,
        units,
        *,
        initializer,
        recurrent_initializer=None,
        two_biases=False,
        cell="lstm",
        forget_bias=0.0,
        rnn_mode="basic",
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.units = units
        self.cell = CELLS[cell]
        self.cell.check(two_biases, forget_bias)
        self.initializer = initializer
        self.recurrent_initializer = recurrent_initializer or initializer
        self.two_biases = two_biases
        self.forget_bias = forget_bias
        self.kernel_function = kernel_of(rnn_mode, cell)
        self.product_dtype = tf.as_dtype(self.dtype)

    def build(self, input_shape):
        width = self.cell.blocks * self.units
        self.kernel = self.add_weight((input_shape[-1], width), self.initializer, name="kernel")
        self.recurrent_kernel = self.add_weight((self.units, width), self.recurrent_initializer, name="recurrent_kernel")
        self.bias = self.add_weight((width,), self.initializer if self.two_biases else "zeros", name="bias")
        if self.cell.forget_gate is not None:
            blocks = tf.one_hot(self.cell.forget_gate, self.cell.blocks, self.forget_bias, dtype=self.dtype)
            self.bias.assign_add(tf.repeat(blocks, self.units))
        if self.two_biases:
            self.recurrent_bias = self.add_weight((width,), self.initializer, name="recurrent_bias")
        self.others = [self.add_weight((3, self.units), "zeros", name=name) for name in self.cell.others]

    def initial_state(self, batch_size):
        """Returns the state before any text: zeros, `[batch, units]` each."""
        return self.cell.state(*[tf.zeros([batch_size, self.units], self.dtype) for _ in self.cell.state._fields])

    def call(self, inputs, state):
        """`inputs [num_steps, batch, input]` → outputs `[num_steps, batch, units]` and the state after the last step."""
        bias = self.bias.value + self.recurrent_bias.value if self.two_biases else self.bias.value
        weights = [self.kernel.value, self.recurrent_kernel.value, bias, *(variable.value for variable in self.others)]
        return self.kernel_function(inputs, state, weights, self.product_dtype)


class OrthogonalBlocks(keras.initializers.Initializer):
    """Square blocks side by side, one for each gate, each a random orthogonal matrix (Saxe et al. 2013).

    As Theano's LSTM tutorial has its recurrent weights; `keras.initializers.Orthogonal` would make the whole row orthogonal.
    """

    def __init__(self, seed_generator):
        self.block = keras.initializers.Orthogonal(seed=seed_generator)

    def __call__(self, shape, dtype=None):
        units, width = shape
        return tf.concat([self.block((units, units), dtype) for _ in range(width // units)], 1)


class LanguageModel(keras.Model):
    """Gives the distribution of each next word from the words so far: `logits, state = model(inputs, state)`.

    Dropout with probability `1 - keep_prob` stands on the output of the embedding, between the layers and before the
    softmax, never on a recurrent connection, with a new mask at each time step (section 3.2 and figure 2 of the paper); the
    first and the last of these can be left out, as char-rnn does with the first and `torch.nn.LSTM` with both.
    All weights start uniform in ±`init_scale`, the biases of the recurrent layers at zero, as in the tutorial's
    `ptb_word_lm.py`. With `two_biases` there are two per gate, one beside each matrix, uniform too, as in the paper's Lua code
    (`nn.Linear` of the input, `nn.Linear` of h): their sum learns twice as fast as one would. With `orthogonal_recurrence` the
    recurrent weights start as orthogonal matrices. All of it, masks included, follows from seeds:
    `seed` for the weights, `dropout_seed` for the masks of a call. With `one_hot_input` the first layer reads words as
    one-hot vectors: the rows of its kernel are their embedding.

    `cell` is one of `ptb.cells.CELLS` and `rnn_mode` "basic", "fused" or "cudnn", see `ptb.kernels`; ValueError where the cell
    has no such kernel, or no use for `two_biases` or `forget_bias`. `product_dtype` is that of matrix products, "bfloat16" or,
    by default, `dtype`.
    """

    def __init__(
        self,
        vocab_size,
        hidden_size,
        num_layers,
        *,
        cell="lstm",
        one_hot_input=False,
        keep_prob=1.0,
        drop_input=True,
        drop_output=True,
        init_scale=0.1,
        two_biases=False,
        orthogonal_recurrence=False,
        forget_bias=0.0,
        rnn_mode="basic",
        product_dtype=None,
        seed=0,
        dtype="float32",
        name="language_model",  # or Keras would number it, and its variables' paths with it
    ):
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}  # for get_config
        super().__init__(dtype=dtype, name=name)
        self._arguments = arguments
        if self.compute_dtype != self.variable_dtype:
            raise ValueError(f"dtype={dtype!r}: has two types; products in another are product_dtype='bfloat16'")
        self.vocab_size = vocab_size
        self.keep_prob = keep_prob
        self.drop_input, self.drop_output = drop_input, drop_output
        self.can_be_compiled = rnn_mode != "cudnn"  # by XLA, which knows nothing of cuDNN's kernel
        seed_generator = keras.random.SeedGenerator(seed)
        initializer = keras.initializers.RandomUniform(-init_scale, init_scale, seed_generator)
        self.embedding = None
        if not one_hot_input:
            self.embedding = self.add_weight((vocab_size, hidden_size), initializer, name="embedding")
        self.recurrent_layers = []
        for index in range(num_layers):
            layer = Recurrent(
                hidden_size,
                initializer=initializer,
                recurrent_initializer=OrthogonalBlocks(seed_generator) if orthogonal_recurrence else None,
                two_biases=two_biases,
                cell=cell,
                forget_bias=forget_bias,
                rnn_mode=rnn_mode,
                dtype=self.dtype,
                name=f"{cell}_{index}",
            )
            layer.build((None, None, vocab_size if one_hot_input and index == 0 else hidden_size))
            self.recurrent_layers.append(layer)
        self.softmax_weights = self.add_weight((vocab_size, hidden_size), initializer, name="softmax_weights")
        self.softmax_bias = self.add_weight((vocab_size,), initializer, name="softmax_bias")
        self.multiply_in(product_dtype or self.dtype)
        self.built = True

    def multiply_in(self, product_dtype):
        """Makes matrix products in another type from now on; what has been compiled before keeps its own."""
        self.product_dtype = tf.as_dtype(product_dtype)
        self._arguments["product_dtype"] = self.product_dtype.name
        for layer in self.recurrent_layers:
            layer.product_dtype = self.product_dtype

    def get_config(self):
        """Returns the arguments of the constructor, from which Keras makes a saved model anew."""
        return dict(self._arguments)

    def initial_state(self, batch_size):
        """Returns the state before any text: a tuple with one entry per layer."""
        return tuple(layer.initial_state(batch_size) for layer in self.recurrent_layers)

    def call(self, inputs, state, training=False, dropout_seed=None):
        """`inputs` int32 `[batch, num_steps]` → logits `[batch, num_steps, vocab]` and the state after the last step.

        `training` and `dropout_seed` are those of `features`.
        """
        features, state = self.features(inputs, state, training, dropout_seed)
        return self.logits_of(features), state

    def logits_of(self, features):
        """Returns the logits `[batch, num_steps, vocab]` of features `[num_steps, batch, hidden]`."""
        num_steps, batch_size = tf.unstack(tf.shape(features)[:2])
        rows = tf.reshape(tf.transpose(features, [1, 0, 2]), [-1, features.shape[-1]])
        scores = softmax.logits(rows, *self._softmax_variables(), self.product_dtype)
        return tf.reshape(scores, [batch_size, num_steps, self.vocab_size])

    def cross_entropy(self, features, targets):
        """Returns −log p(target) in nats, `[batch, num_steps]`, from what the softmax sees, `[num_steps, batch, hidden]`."""
        return self._losses_of_rows(softmax.cross_entropy, features, targets)

    def sampled_cross_entropy(self, features, targets, num_samples, seed):
        """Returns what to descend on with a large vocabulary, and an estimate of `cross_entropy`: see `ptb.softmax`."""
        return self._losses_of_rows(softmax.sampled_cross_entropy, features, targets, num_samples, seed)

    def _losses_of_rows(self, cross_entropy, features, targets, *arguments):
        rows = tf.reshape(features, [-1, features.shape[-1]])
        with on_host():
            labels = tf.reshape(tf.transpose(targets), [-1])
        losses = cross_entropy(rows, *self._softmax_variables(), labels, self.product_dtype, *arguments)
        return tf.nest.map_structure(lambda values: tf.transpose(tf.reshape(values, tf.shape(features)[:2])), losses)

    def features(self, inputs, state, training=False, dropout_seed=None):
        """Returns what the softmax sees, `[num_steps, batch, hidden]`, and the state after the last step.

        `dropout_seed`, int32 `[2]`, is needed in training when `keep_prob` is below one.
        """
        with on_host():
            words = tf.transpose(inputs)
        if self.embedding is None:
            features = tf.one_hot(words, self.vocab_size, dtype=self.dtype)
        else:
            features = tf.gather(self.embedding.value, words)
        new_state = []
        for index, (layer, layer_state) in enumerate(zip(self.recurrent_layers, state)):
            if training and (index or self.drop_input):
                features = self._dropout(features, dropout_seed, index)
            features, layer_state = layer(features, layer_state)
            new_state.append(layer_state)
        if training and self.drop_output:
            features = self._dropout(features, dropout_seed, len(new_state))
        return features, tuple(new_state)

    def _dropout(self, features, seed, index):
        if self.keep_prob == 1:
            return features
        if seed is None:
            raise ValueError("dropout_seed: is needed in training where keep_prob is below 1, int32 [2]")
        with on_host():
            seed = tf.random.fold_in(seed, index)
        if replicas.number() == 1:
            return tf.nn.experimental.stateless_dropout(features, 1 - self.keep_prob, seed)
        # Each replica draws the masks of the whole batch, so that they do not depend on how many replicas there are.
        num_steps, rows, size = features.shape
        ones = tf.ones([num_steps, replicas.number() * rows, size], features.dtype)
        masks = tf.nn.experimental.stateless_dropout(ones, 1 - self.keep_prob, seed)
        return features * replicas.own_rows(masks, axis=1)

    def _softmax_variables(self):
        return self.softmax_weights.value, self.softmax_bias.value
