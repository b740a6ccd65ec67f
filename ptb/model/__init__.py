"""The language model: cells, the kernels that run them over a window, dropout, softmax heads, and the Keras model of these."""

import ptb.runtime.environment  # noqa: F401 -- before TensorFlow
