"""The training step: losses and penalties, gradients, clip, optimiser, schedule; and the state that a checkpoint holds."""

import ptb.runtime.environment  # noqa: F401 -- before TensorFlow
