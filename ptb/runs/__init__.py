"""Run folders: what a training run writes, how it survives a crash, and how a run is opened for use."""

import ptb.runtime.environment  # noqa: F401 -- before TensorFlow
