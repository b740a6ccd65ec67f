"""This program's own step, called as train.py calls it."""

import numpy as np
import tensorflow as tf

from benchmarks.peers.tensorflow_trainer import TensorFlowTrainer
from ptb.config import override
from ptb.model.language_model import build_model
from ptb.runtime import devices
from ptb.training.optimizers import make_optimizer
from ptb.training.step import Sums, make_train_step


class Trainer(TensorFlowTrainer):
    """With `xla`, XLA compiles everything that it can; cuDNN's kernel is not changed."""

    def __init__(self, workload, precision, rnn_mode, softmax_samples=0, xla=False):
        super().__init__(workload, precision)
        tf.config.optimizer.set_jit(xla)
        kernel = devices.choose_kernel(rnn_mode, self.gpus)
        config = override(workload.config, {"softmax_samples": softmax_samples})
        model = build_model(config, workload.vocab_size, rnn_mode=kernel, product_dtype=self.product_dtype)
        self.train_step = make_train_step(model, config, make_optimizer(config.optimizer))
        self.state, self.sums, self.steps = model.initial_state(workload.batch_size), Sums.zero(), 0
        self.learning_rate = np.float32(workload.learning_rate)
        self.description["kernel"] = kernel

    def train(self, steps):
        for _ in range(steps):
            self.step()
        return float(self.sums.loss) / (self.steps * self.workload.batch_size)

    def step(self):
        """Start a step without waiting for it. Return the sums so far."""
        inputs, targets = next(self.windows)
        seed = np.array([0, self.steps], np.int32)
        self.state, self.sums = self.train_step(inputs, targets, self.state, self.sums, self.learning_rate, seed)
        self.steps += 1
        return self.sums
