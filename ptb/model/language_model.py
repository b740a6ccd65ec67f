"""The language model of Zaremba et al. (2014): embedding, recurrent layers, softmax, with dropout outside the recurrence."""

from typing import NamedTuple

import keras
import tensorflow as tf

from ptb.config import Config, Dropout, Model, from_json, to_json
from ptb.model.cells import CELLS
from ptb.model.dropout import constant_mask, dropout, row_mask
from ptb.model.heads import FIRST_WORDS, MixtureHead, SoftmaxHead
from ptb.model.initializers import Initializers, seed_generator
from ptb.model.kernels import find_kernel, matmul_over_steps, static_shape
from ptb.runtime.devices import choose_kernel, on_host, visible_gpus


class Outputs(NamedTuple):
    """Outputs of the recurrent layers, each `[num_steps, batch, units]`."""

    layers: tuple  # of each layer, before dropout
    raw: tf.Tensor  # of the last layer, or the sum of all, before dropout
    dropped: tf.Tensor  # the same after dropout
    features: tf.Tensor  # what the head reads: the same after the projection, if there is one, and its dropout


class Recurrent(keras.layers.Layer):
    """One recurrent layer, time first, that takes its state as an argument and returns it.

    `cell` is one of `ptb.model.cells.CELLS`; `rnn_mode` names the kernel of `ptb.model.kernels` that runs it. The weights of
    "lstm" have the names, shapes and gate order of `keras.layers.LSTM` (`kernel [input, 4 units]`,
    `recurrent_kernel [units, 4 units]`, `bias [4 units]`; gates i, f, g, o): `set_weights` takes the `get_weights` of either.
    With `two_biases` a `recurrent_bias` of the same shape is added to the bias.
    """

    def __init__(
        self,
        units,
        *,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="glorot_uniform",
        bias_initializer="zeros",
        two_biases=False,
        cell="lstm",
        forget_bias=0.0,
        mogrifier_rounds=0,
        mogrifier_rank=0,
        rnn_mode="stepwise",
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.units = units
        self.cell = CELLS[cell]
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer, self.bias_initializer = recurrent_initializer, bias_initializer
        self.mogrifier_rounds, self.mogrifier_rank = mogrifier_rounds, mogrifier_rank
        self.two_biases = two_biases
        self.forget_bias = forget_bias
        self.run_kernel = find_kernel(rnn_mode, cell)
        self.product_dtype = tf.as_dtype(self.dtype)

    def build(self, input_shape):
        width = self.cell.num_gates * self.units
        self.kernel = self.add_weight((input_shape[-1], width), self.kernel_initializer, name="kernel")
        self.recurrent_kernel = self.add_weight((self.units, width), self.recurrent_initializer, name="recurrent_kernel")
        self.bias = self.add_weight((width,), self.bias_initializer, name="bias")
        if self.cell.forget_gate is not None:
            offsets = tf.one_hot(self.cell.forget_gate, self.cell.num_gates, self.forget_bias, dtype=self.dtype)
            self.bias.assign_add(tf.repeat(offsets, self.units))
        if self.two_biases:
            self.recurrent_bias = self.add_weight((width,), self.bias_initializer, name="recurrent_bias")
        self.extra_weights = []
        seed = seed_generator(getattr(self.kernel_initializer, "seed", None))
        for name, shape, stddev in self.cell.extra_weights(
            input_shape[-1], self.units, self.mogrifier_rounds, self.mogrifier_rank
        ):
            start = keras.initializers.TruncatedNormal(stddev=stddev, seed=seed) if stddev else "zeros"
            self.extra_weights.append(self.add_weight(shape, start, name=name))

    def initial_state(self, batch_size):
        """Return the state before any text: zeros `[batch, units]`."""
        return self.cell.state(*[tf.zeros([batch_size, self.units], self.dtype) for _ in self.cell.state._fields])

    def call(self, inputs, state, hidden_mask=None, weight_mask=None):
        """`inputs [num_steps, batch, input]` → outputs `[num_steps, batch, units]` and the state after the last step.

        `hidden_mask [batch, units]` multiplies h before the product with the recurrent weights, `weight_mask` these weights.
        (Keras gives a meaning of its own to an argument called state_mask.)
        """
        bias = self.bias.value + self.recurrent_bias.value if self.two_biases else self.bias.value
        recurrent_kernel = self.recurrent_kernel.value
        if weight_mask is not None:
            recurrent_kernel = recurrent_kernel * weight_mask
        extra = [variable.value for variable in self.extra_weights]
        weights = [self.kernel.value, recurrent_kernel, bias, *extra]
        return self.run_kernel(inputs, state, weights, self.product_dtype, hidden_mask)


@keras.saving.register_keras_serializable("ptb")
class LanguageModel(keras.Model):
    """Predicts each next word from the words so far: `logits, state = model(inputs, state)`.

    `architecture` and `dropout_rates` are parts of a configuration (ptb.config). As in the paper, the rates input, hidden and
    output are those of dropout before the first layer, between layers and before the softmax, never on a recurrent connection,
    with a new mask at each time step (section 3.2 and figure 2); the other fields of `Dropout` are of later papers. Weights
    start uniform in ±`init_scale` and the biases of the recurrent layers at zero, as in the tutorial's `ptb_word_lm.py`, unless
    `initializers` says otherwise. With `two_biases` there are two biases per gate, both uniform, as in the paper's Lua code (an
    `nn.Linear` of the input and one of h): their sum learns twice as fast as one bias would. With `one_hot_input` the first
    layer reads one-hot vectors: the rows of its kernel are the embedding.

    `rnn_mode` is "auto", "stepwise" or "cudnn" (ptb.model.kernels). `product_dtype` is the type of matrix products,
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
        self.rnn_mode = choose_kernel(rnn_mode, visible_gpus(), architecture.cell, bool(dropout_rates.state))
        self._make_weights()
        self.set_product_dtype(product_dtype or self.dtype)
        self.built = True

    def _make_weights(self):
        architecture, vocab_size = self.architecture, self.vocab_size
        initializers = Initializers(architecture, self.seed)
        self.embedding, input_size = None, vocab_size
        if not architecture.one_hot_input:
            input_size = architecture.input_size
            self.embedding = self.add_weight((vocab_size, input_size), initializers.embedding, name="embedding")
        self.recurrent_layers = []
        for index, units in enumerate(architecture.layers):
            layer = Recurrent(
                units,
                **initializers.layer(units),
                two_biases=architecture.two_biases,
                cell=architecture.cell,
                forget_bias=architecture.forget_bias,
                mogrifier_rounds=architecture.mogrifier_rounds,
                mogrifier_rank=architecture.mogrifier_rank,
                rnn_mode=self.rnn_mode,
                dtype=self.dtype,
                name=f"{architecture.cell}_{index}",
            )
            layer.build((None, None, input_size))
            self.recurrent_layers.append(layer)
            input_size = units
        self.projection = self.projection_bias = self.priors = None
        if architecture.projection != "none":
            shape = input_size, architecture.features_size
            self.projection = self.add_weight(shape, initializers.projection, name="projection")
        if architecture.projection == "affine":
            size = architecture.features_size
            self.projection_bias = self.add_weight((size,), initializers.projection_bias, name="projection_bias")
        if architecture.mixture:
            width = architecture.mixture * architecture.features_size
            self.projection = self.add_weight((input_size, width), initializers.projection, name="projection")
            self.projection_bias = self.add_weight((width,), initializers.projection_bias, name="projection_bias")
            self.priors = self.add_weight((input_size, architecture.mixture), initializers.projection, name="priors")
        self.softmax_weights = self.embedding
        if not architecture.tied:
            shape = vocab_size, architecture.features_size
            self.softmax_weights = self.add_weight(shape, initializers.uniform, name="softmax_weights")
        self.softmax_bias = self.add_weight((vocab_size,), initializers.softmax_bias, name="softmax_bias")
        softmax = self.softmax_weights, self.softmax_bias, self.dtype, None if visible_gpus() else FIRST_WORDS
        mixture = architecture.mixture
        self.head = MixtureHead(*softmax, mixture=mixture) if mixture else SoftmaxHead(*softmax)

    @property
    def can_use_xla(self) -> bool:
        """Whether XLA can compile the layers: it has no operation for cuDNN's kernel."""
        return self.rnn_mode != "cudnn"

    def set_product_dtype(self, product_dtype):
        """Compute matrix products in another type from now on. Functions that are already compiled keep their type."""
        self.product_dtype = tf.as_dtype(product_dtype)
        for part in (*self.recurrent_layers, self.head):
            part.product_dtype = self.product_dtype

    def scale_logits(self, factor):
        """Multiply all logits by a factor: the projection, or the softmax weights if there is none, and the biases.

        Raises ValueError for a mixture, and for tied weights without a projection (`Model.can_scale_logits`).
        """
        if not self.architecture.can_scale_logits:
            raise ValueError("scale_logits: no weights of this model scale its logits alone (Model.can_scale_logits)")
        last = (self.softmax_weights,) if self.projection is None else (self.projection, self.projection_bias)
        for weights in (*last, self.softmax_bias):
            if weights is not None:
                weights.assign(weights * factor)

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
        return self.head.logits(outputs.features), state

    def outputs(self, inputs, state, training=False, dropout_seed=None):
        """Return the `Outputs` for `inputs` int32 `[batch, num_steps]`, and the state after the last step.

        `dropout_seed`, int32 `[2]`, decides the masks. It is needed in training if a dropout rate is above 0.
        """
        rates = self.dropout_rates if training else Dropout()
        places = MaskPlaces(len(self.recurrent_layers))
        features = self._embed(inputs, rates.embedding, dropout_seed, places.embedding)
        layers, new_state = [], []
        for index, (layer, layer_state) in enumerate(zip(self.recurrent_layers, state)):
            features = dropout(features, rates.hidden if index else rates.input, dropout_seed, index, rates.locked)
            state_mask = weight_mask = None
            if rates.state:
                shape = [1, *static_shape(layer_state.hidden)]
                state_mask = row_mask(shape, rates.state, dropout_seed, places.state(index), self.dtype)[0]
            if rates.weights:
                shape = layer.recurrent_kernel.shape
                weight_mask = constant_mask(shape, rates.weights, dropout_seed, places.weights(index), self.dtype)
            features, layer_state = layer(features, layer_state, state_mask, weight_mask)
            layers.append(features)
            new_state.append(layer_state)
        raw = tf.add_n(layers) if self.architecture.sum_layers else features
        dropped = dropout(raw, rates.output, dropout_seed, places.output, rates.locked)
        features = dropout(self._project(dropped), rates.projected, dropout_seed, places.projected, rates.locked)
        if self.priors is not None:
            features = tf.concat([matmul_over_steps(dropped, self.priors.value, self.product_dtype), features], -1)
        return Outputs(tuple(layers), raw, dropped, features), tuple(new_state)

    def _embed(self, inputs, rate, seed, place):
        """Return the embeddings `[num_steps, batch, size]` of words `[batch, num_steps]`; a mask drops word types."""
        with on_host():
            words = tf.transpose(inputs)
        if self.embedding is None:
            return tf.one_hot(words, self.vocab_size, dtype=self.dtype)
        features = tf.gather(self.embedding.value, words)
        if rate == 0:
            return features
        return features * tf.gather(constant_mask([self.vocab_size, 1], rate, seed, place, self.dtype), words)

    def _project(self, features):
        if self.projection is None:
            return features
        projected = matmul_over_steps(features, self.projection.value, self.product_dtype)
        if self.projection_bias is not None:
            projected = tf.nn.bias_add(projected, self.projection_bias.value)
        return projected if self.priors is None else tf.tanh(projected)


class MaskPlaces(NamedTuple):
    """Numbers of the places of a step that draw random numbers of their own: the inputs of layers 0, 1, …, then these."""

    num_layers: int

    @property
    def output(self):
        return self.num_layers

    @property
    def after_burn_in(self):  # all masks of these steps
        return self.num_layers + 1

    @property
    def samples(self):  # of the sampled softmax
        return self.num_layers + 2

    @property
    def embedding(self):
        return self.num_layers + 3

    @property
    def projected(self):
        return self.num_layers + 4

    def state(self, index):
        return self.num_layers + 5 + 2 * index

    def weights(self, index):
        return self.num_layers + 6 + 2 * index


def build_model(config: Config, vocab_size: int, **options) -> LanguageModel:
    """Return a new `LanguageModel` of a configuration; `options` are its rnn_mode, product_dtype, seed and dtype."""
    return LanguageModel(vocab_size, config.model, config.dropout, **options)
