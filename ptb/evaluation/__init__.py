"""Scores of texts under a model, and text sampled from it."""

import ptb.model.language_model  # noqa: F401 -- before TensorFlow; registers the model with Keras
