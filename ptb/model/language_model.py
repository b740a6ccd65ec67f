"""The language model of Zaremba et al. (2014): embedding, recurrent layers, softmax, with dropout outside the recurrence."""

from typing import NamedTuple

import keras
import tensorflow as tf

from ptb.config import Config, Dropout, Model, from_json, to_json
from ptb.model.cells import CELLS
from ptb.model.dropout import dropout
from ptb.model.heads import SoftmaxHead
from ptb.model.kernels import find_kernel
from ptb.runtime.devices import choose_kernel, on_host, visible_gpus


class Outputs(NamedTuple):
    """Outputs of the recurrent layers, each `[num_steps, batch, units]`."""

    layers: tuple  # of each layer, before dropout
    dropped: tf.Tensor  # of the last layer, after dropout: the features that the head reads

    @property
    def raw(self):
        """Outputs of the last layer, before dropout."""
        return self.layers[-1]


@keras.saving.register_keras_serializable("ptb")
class Recurrent(keras.layers.Layer):
    """One recurrent layer, time first, that takes its state as an argument and returns it.

    `cell` is one of `ptb.model.cells.CELLS`; `rnn_mode` names the kernel of `ptb.model.kernels` that runs it. The weights of
    "lstm" have the names, shapes and gate order of `keras.layers.LSTM` (`kernel [input, 4 units]`,
    `recurrent_kernel [units, 4 units]`, `bias [4 units]`; gates i, f, g, o): `set_weights` takes the `get_weights` of either.
    With `two_biases` a `recurrent_bias` of the same shape is added to the bias, and both start as the kernel does.
    """

    def __init__(
        self,
        units,
        *,
        initializer="glorot_uniform",
        recurrent_initializer=None,
        two_biases=False,
        cell="lstm",
        forget_bias=0.0,
        rnn_mode="stepwise",
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.units = units
        self.cell_name, self.cell = cell, CELLS[cell]
        self.initializer = keras.initializers.get(initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer or self.initializer)
        self.two_biases = two_biases
        self.forget_bias = forget_bias
        self.rnn_mode, self.run_kernel = rnn_mode, find_kernel(rnn_mode, cell)
        self.product_dtype = tf.as_dtype(self.dtype)

    def build(self, input_shape):
        width = self.cell.num_gates * self.units
        self.kernel = self.add_weight((input_shape[-1], width), self.initializer, name="kernel")
        self.recurrent_kernel = self.add_weight((self.units, width), self.recurrent_initializer, name="recurrent_kernel")
        self.bias = self.add_weight((width,), self.initializer if self.two_biases else "zeros", name="bias")
        if self.cell.forget_gate is not None:
            offsets = tf.one_hot(self.cell.forget_gate, self.cell.num_gates, self.forget_bias, dtype=self.dtype)
            self.bias.assign_add(tf.repeat(offsets, self.units))
        if self.two_biases:
            self.recurrent_bias = self.add_weight((width,), self.initializer, name="recurrent_bias")
        self.extra_weights = [self.add_weight((3, self.units), "zeros", name=name) for name in self.cell.extra_weights]

    def get_config(self):
        """Return the arguments of the constructor, from which Keras rebuilds the layer."""
        return super().get_config() | {
            "units": self.units,
            "initializer": keras.initializers.serialize(self.initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
            "two_biases": self.two_biases,
            "cell": self.cell_name,
            "forget_bias": self.forget_bias,
            "rnn_mode": self.rnn_mode,
        }

    def initial_state(self, batch_size):
        """Return the state before any text: zeros `[batch, units]`."""
        return self.cell.state(*[tf.zeros([batch_size, self.units], self.dtype) for _ in self.cell.state._fields])

    def call(self, inputs, state):
        """`inputs [num_steps, batch, input]` → outputs `[num_steps, batch, units]` and the state after the last step."""
        bias = self.bias.value + self.recurrent_bias.value if self.two_biases else self.bias.value
        extra = [variable.value for variable in self.extra_weights]
        weights = [self.kernel.value, self.recurrent_kernel.value, bias, *extra]
        return self.run_kernel(inputs, state, weights, self.product_dtype)


@keras.saving.register_keras_serializable("ptb")
class OrthogonalBlocks(keras.initializers.Initializer):
    """One random orthogonal matrix per gate, side by side (Saxe et al. 2013), as in Theano's LSTM tutorial.

    `keras.initializers.Orthogonal` would make the whole `[units, gates * units]` matrix orthogonal.
    """

    def __init__(self, seed=None):
        self.seed = seed
        self.block = keras.initializers.Orthogonal(seed=seed)

    def __call__(self, shape, dtype=None):
        units, width = shape
        return tf.concat([self.block((units, units), dtype) for _ in range(width // units)], 1)

    def get_config(self):
        return {"seed": keras.saving.serialize_keras_object(self.seed)}


@keras.saving.register_keras_serializable("ptb")
class LanguageModel(keras.Model):
    """Predicts each next word from the words so far: `logits, state = model(inputs, state)`.

    `architecture` and `dropout_rates` are parts of a configuration (ptb.config). Dropout stands before the first layer, between
    layers and before the softmax, never on a recurrent connection, with a new mask at each time step (section 3.2 and figure 2
    of the paper). Weights start uniform in ±`init_scale` and the biases of the recurrent layers at zero, as in the tutorial's
    `ptb_word_lm.py`. With `two_biases` there are two biases per gate, both uniform, as in the paper's Lua code (an `nn.Linear`
    of the input and one of h): their sum learns twice as fast as one bias would. With `one_hot_input` the first layer reads
    one-hot vectors: the rows of its kernel are the embedding.

    `rnn_mode` is "auto", "stepwise", "fused" or "cudnn" (ptb.model.kernels). `product_dtype` is the type of matrix products,
    "bfloat16" or by default `dtype`. `seed` decides the initial weights.
    """

    def __init__(
        self,
        vocab_size: int,
        architecture: Model,
        dropout_rates: Dropout = Dropout(),
        *,
        rnn_mode: str = "auto",
        product_dtype: str | None = None,
        seed: int = 0,
        dtype: str = "float32",
        name: str = "language_model",  # otherwise Keras would number it, and the paths of its variables
    ):
        super().__init__(dtype=dtype, name=name)
        if self.compute_dtype != self.variable_dtype:
            raise ValueError(f"dtype={dtype!r}: is two types; for products in another type use product_dtype='bfloat16'")
        self.vocab_size, self.seed = vocab_size, seed
        self.architecture, self.dropout_rates = architecture, dropout_rates
        self.rnn_mode = choose_kernel(rnn_mode, visible_gpus(), architecture.cell)
        self._make_weights()
        self.set_product_dtype(product_dtype or self.dtype)
        self.built = True

    def _make_weights(self):
        architecture, vocab_size = self.architecture, self.vocab_size
        seed_generator = keras.random.SeedGenerator(self.seed)
        scale = architecture.init_scale
        initializer = keras.initializers.RandomUniform(-scale, scale, seed_generator)
        self.embedding, input_size = None, vocab_size
        if not architecture.one_hot_input:
            input_size = architecture.layers[0]
            self.embedding = self.add_weight((vocab_size, input_size), initializer, name="embedding")
        self.recurrent_layers = []
        for index, units in enumerate(architecture.layers):
            layer = Recurrent(
                units,
                initializer=initializer,
                recurrent_initializer=OrthogonalBlocks(seed_generator) if architecture.orthogonal_recurrence else None,
                two_biases=architecture.two_biases,
                cell=architecture.cell,
                forget_bias=architecture.forget_bias,
                rnn_mode=self.rnn_mode,
                dtype=self.dtype,
                name=f"{architecture.cell}_{index}",
            )
            layer.build((None, None, input_size))
            self.recurrent_layers.append(layer)
            input_size = units
        self.softmax_weights = self.add_weight((vocab_size, input_size), initializer, name="softmax_weights")
        self.softmax_bias = self.add_weight((vocab_size,), initializer, name="softmax_bias")
        self.head = SoftmaxHead(self.softmax_weights, self.softmax_bias, self.dtype)

    @property
    def can_use_xla(self) -> bool:
        """Whether XLA can compile the layers: it has no operation for cuDNN's kernel."""
        return self.rnn_mode != "cudnn"

    def set_product_dtype(self, product_dtype):
        """Compute matrix products in another type from now on. Functions that are already compiled keep their type."""
        self.product_dtype = tf.as_dtype(product_dtype)
        for part in (*self.recurrent_layers, self.head):
            part.product_dtype = self.product_dtype

    def get_config(self):
        """Return the arguments of the constructor, from which Keras rebuilds a saved model with a kernel for its device."""
        return {
            "vocab_size": self.vocab_size,
            "architecture": to_json(self.architecture),
            "dropout_rates": to_json(self.dropout_rates),
            "product_dtype": self.product_dtype.name,
            "seed": self.seed,
            "dtype": self.variable_dtype,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        """Return the model of a `get_config`, with weights of its own."""
        architecture = from_json(config["architecture"], Model)
        dropout_rates = from_json(config["dropout_rates"], Dropout)
        return cls(**config | {"architecture": architecture, "dropout_rates": dropout_rates})

    def initial_state(self, batch_size):
        """Return the state before any text: a tuple with one entry per layer."""
        return tuple(layer.initial_state(batch_size) for layer in self.recurrent_layers)

    def call(self, inputs, state, training=False, dropout_seed=None):
        """`inputs` int32 `[batch, num_steps]` → logits `[batch, num_steps, vocab]` and the state after the last step.

        `training` and `dropout_seed` are those of `outputs`.
        """
        outputs, state = self.outputs(inputs, state, training, dropout_seed)
        return self.head.logits(outputs.dropped), state

    def outputs(self, inputs, state, training=False, dropout_seed=None):
        """Return the `Outputs` of the layers for `inputs` int32 `[batch, num_steps]`, and the state after the last step.

        `dropout_seed`, int32 `[2]`, decides the masks. It is needed in training if a dropout rate is above 0.
        """
        rates = self.dropout_rates if training else Dropout()
        with on_host():
            words = tf.transpose(inputs)
        if self.embedding is None:
            features = tf.one_hot(words, self.vocab_size, dtype=self.dtype)
        else:
            features = tf.gather(self.embedding.value, words)
        layers, new_state = [], []
        for index, (layer, layer_state) in enumerate(zip(self.recurrent_layers, state)):
            features = dropout(features, rates.hidden if index else rates.input, dropout_seed, index)
            features, layer_state = layer(features, layer_state)
            layers.append(features)
            new_state.append(layer_state)
        dropped = dropout(features, rates.output, dropout_seed, len(layers))
        return Outputs(tuple(layers), dropped), tuple(new_state)


def build_model(config: Config, vocab_size: int, **options) -> LanguageModel:
    """Return a new `LanguageModel` of a configuration; `options` are its rnn_mode, product_dtype, seed and dtype."""
    return LanguageModel(vocab_size, config.model, config.dropout, **options)
