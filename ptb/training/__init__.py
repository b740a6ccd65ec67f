"""The training step: losses and penalties, gradients, clip, optimiser, schedule; and the state that a checkpoint holds."""

import ptb.model.language_model  # noqa: F401 -- before TensorFlow; registers the model with Keras
