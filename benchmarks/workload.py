"""The task of every contestant, and the arithmetic that it needs. Imports only NumPy: PyTorch's worker reads this too."""

import dataclasses

import numpy as np

from ptb.config import SGD, Config, Dropout, Model
from ptb.data.windows import windows

MODELS = ("test", "small", "medium", "large")  # of configs.py: an LSTM with the exact softmax and SGD, which all peers have
FORWARD_AND_BACKWARD = 3  # backpropagation needs two more products for each one: the gradients of weights and of inputs


@dataclasses.dataclass(frozen=True)
class Workload:
    """The shape of the model and its training: the values of a `Config` that all contestants share."""

    batch_size: int
    num_steps: int
    hidden_size: int
    num_layers: int
    vocab_size: int
    dropout: float  # rate, the same before, between and after the layers
    init_scale: float
    learning_rate: float
    clip_norm: float

    @classmethod
    def of(cls, config: Config, vocab_size: int) -> "Workload":
        """Return the workload of a configuration. Raises ValueError if its layers or its dropout rates differ."""
        model, optimizer, rates = config.model, config.optimizer, config.dropout
        (hidden_size,) = set(model.layers)
        (dropout,) = {rates.input, rates.hidden, rates.output}
        return cls(
            batch_size=config.batch_size,
            num_steps=config.num_steps,
            hidden_size=hidden_size,
            num_layers=len(model.layers),
            vocab_size=vocab_size,
            dropout=dropout,
            init_scale=model.init_scale,
            learning_rate=optimizer.learning_rate,
            clip_norm=optimizer.clip_norm,
        )

    @property
    def config(self) -> Config:
        """The configuration of this workload, for this program's own code."""
        return Config(
            model=Model(layers=(self.hidden_size,) * self.num_layers, init_scale=self.init_scale),
            dropout=Dropout.everywhere(self.dropout),
            optimizer=SGD(learning_rate=self.learning_rate, clip_norm=self.clip_norm),
            batch_size=self.batch_size,
            num_steps=self.num_steps,
        )

    @property
    def words_per_step(self) -> int:
        return self.batch_size * self.num_steps

    @property
    def lstm_flops(self) -> int:
        """Floating-point operations of the LSTM's matrix products in one forward pass over one window."""
        return 2 * self.words_per_step * self.num_layers * 8 * self.hidden_size**2

    @property
    def softmax_flops(self) -> int:
        """Floating-point operations of the softmax's matrix product in one forward pass over one window."""
        return 2 * self.words_per_step * self.hidden_size * self.vocab_size

    @property
    def flops_per_step(self) -> int:
        """Floating-point operations of the matrix products of one training step: 6 × multiply-adds × words."""
        return FORWARD_AND_BACKWARD * (self.lstm_flops + self.softmax_flops)

    def recurrent_bytes_per_step(self, bytes_per_weight: int) -> int:
        """Bytes of recurrent weights that a training step reads if each time step reads them once forward and once backward."""
        return 2 * self.num_steps * self.num_layers * 4 * self.hidden_size**2 * bytes_per_weight

    def windows(self, count: int = 16):
        """Return `random_windows` of this workload."""
        return random_windows(self.vocab_size, self.batch_size, self.num_steps, count)


def random_windows(vocab_size: int, batch_size: int, num_steps: int, count: int):
    """Return `count` consecutive pairs of inputs and targets, int32 `[batch, num_steps]`, of random words."""
    tokens = np.random.default_rng(0).integers(vocab_size, size=batch_size * (count * num_steps + 1))
    return windows(tokens.astype(np.int32), batch_size, num_steps)
