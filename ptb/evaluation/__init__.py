"""Scores of texts under a model, and text sampled from it."""

import ptb.runtime.environment  # noqa: F401 -- before TensorFlow
