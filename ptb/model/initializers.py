"""Initial weights: uniform as in Zaremba et al., those of PyTorch's modules, or those of lamb."""

import keras
import tensorflow as tf

from ptb.config import Model

TRUNCATED = 0.87962566  # standard deviation of a standard normal distribution that is truncated at ± 2


class OrthogonalBlocks(keras.initializers.Initializer):
    """One random orthogonal matrix per gate, side by side (Saxe et al. 2013), as in Theano's LSTM tutorial.

    `keras.initializers.Orthogonal` would make the whole `[units, gates * units]` matrix orthogonal.
    """

    def __init__(self, seed=None):
        self.block = keras.initializers.Orthogonal(seed=seed_generator(seed))

    def __call__(self, shape, dtype=None):
        units, width = shape
        return tf.concat([self.block((units, units), dtype) for _ in range(width // units)], 1)


class Initializers:
    """The initialisers of one model, whose draws follow each other from one seed.

    "uniform": all weights in ± init_scale, biases of the layers zero (with two_biases uniform), as in the tutorial.
    "torch": embedding and softmax weights in ± init_scale, softmax bias zero, layers and both of their biases in ± 1/√units,
    projection, its bias and the priors of a mixture in ± 1/√fan-in, as torch.nn.LSTM, torch.nn.Linear and pytorch/examples'
    word_language_model have them. (The second bias of the GRU starts at zero, here and below.)
    "lamb": truncated normal with variance 1 / fan-in for each matrix of a layer, 1 / units for its biases and 1 / size for the
    embedding, an orthogonal projection, softmax bias zero. (Before the truncation lamb's variances are 1.3 times these:
    utils.py, variance_scaling_initializer.)
    """

    def __init__(self, architecture: Model, seed: int):
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.architecture = architecture
        self.kind = architecture.initializers
        self.uniform = self._uniform(architecture.init_scale)

    @property
    def embedding(self):
        return self._normal(self.architecture.input_size**-0.5) if self.kind == "lamb" else self.uniform

    @property
    def projection(self):
        if self.kind == "torch":
            return self._uniform(self.architecture.layers[-1] ** -0.5)
        return keras.initializers.Orthogonal(seed=self.seed_generator) if self.kind == "lamb" else self.uniform

    @property
    def projection_bias(self):
        return "zeros" if self.kind == "lamb" else self.projection

    @property
    def softmax_bias(self):
        return self.uniform if self.kind == "uniform" else "zeros"

    def layer(self, units: int) -> dict:
        """Return the initialisers of a recurrent layer, by its argument."""
        if self.kind == "uniform":
            kernel, bias = self.uniform, self.uniform if self.architecture.two_biases else "zeros"
        elif self.kind == "torch":
            kernel = bias = self._uniform(units**-0.5)
        else:
            kernel = keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal", self.seed_generator)
            bias = self._normal(units**-0.5)
        recurrent = OrthogonalBlocks(self.seed_generator) if self.architecture.orthogonal_recurrence else kernel
        return {"kernel_initializer": kernel, "recurrent_initializer": recurrent, "bias_initializer": bias}

    def _uniform(self, scale):
        return keras.initializers.RandomUniform(-scale, scale, self.seed_generator)

    def _normal(self, stddev):
        return keras.initializers.TruncatedNormal(stddev=stddev / TRUNCATED, seed=self.seed_generator)


def seed_generator(seed) -> keras.random.SeedGenerator:
    """Return a seed as a generator. An initialiser with a number as its seed would draw the same values at each call."""
    return seed if isinstance(seed, keras.random.SeedGenerator) else keras.random.SeedGenerator(seed)
