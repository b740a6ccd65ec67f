"""This project's own step, called as train.py calls it."""

import numpy as np
import tensorflow as tf

from benchmarks.peers.tensorflow_trainer import TensorFlowTrainer
from ptb import devices
from ptb.model import LanguageModel
from ptb.training import Clip, Objective, Sums, make_train_step


class Trainer(TensorFlowTrainer):
    def __init__(self, workload, precision, rnn_mode, softmax_samples=0, xla=False):
        super().__init__(workload, precision)
        tf.config.optimizer.set_jit(xla)  # of all that XLA knows; the rest, cuDNN's kernel, stays as it is
        kernel = devices.choose_kernel(rnn_mode, self.gpus)
        model = LanguageModel(workload.vocab_size, workload.hidden_size, workload.num_layers, keep_prob=workload.keep_prob,
                              init_scale=workload.init_scale, rnn_mode=kernel,
                              product_dtype=self.product_dtype)  # fmt: skip
        self.train_step = make_train_step(
            model, Clip(workload.max_grad_norm), objective=Objective(softmax_samples=softmax_samples)
        )
        self.state, self.sums, self.steps = model.initial_state(workload.batch_size), Sums.zero(), 0
        self.learning_rate = np.float32(workload.learning_rate)
        self.description["kernel"] = kernel

    def train(self, steps):
        for _ in range(steps):
            self.step()
        return float(self.sums.loss) / (self.steps * self.workload.batch_size)

    def step(self):
        """Takes a step and waits for nothing. Returns the sums so far."""
        inputs, targets = next(self.windows)
        seed = np.array([0, self.steps], np.int32)
        self.state, self.sums = self.train_step(inputs, targets, self.state, self.sums, self.learning_rate, seed)
        self.steps += 1
        return self.sums
