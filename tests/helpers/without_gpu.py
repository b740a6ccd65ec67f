"""Hides the GPUs. The process that tests fork imports this first, because CUDA does not survive a fork once it has started."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
