"""What each contestant is given to do, and how much arithmetic that is. NumPy only: PyTorch's worker reads it too."""

import dataclasses

import numpy as np

import reader

MODELS = ("test", "small", "medium", "large")  # of configs.py: with an LSTM, the exact softmax and SGD, as peers have them
FORWARD_AND_BACKWARD = 3  # backpropagation makes two products for each one: for the gradient of the weights and of the inputs


@dataclasses.dataclass(frozen=True)
class Workload:
    """A shape of the model, and how it is trained: the fields of `configs.Config` that all contestants share."""

    batch_size: int
    num_steps: int
    hidden_size: int
    num_layers: int
    vocab_size: int
    keep_prob: float
    init_scale: float
    learning_rate: float
    max_grad_norm: float

    @classmethod
    def of(cls, config, vocab_size):
        names = [field.name for field in dataclasses.fields(cls) if field.name != "vocab_size"]
        return cls(vocab_size=vocab_size, **{name: getattr(config, name) for name in names})

    @property
    def words_per_step(self):
        return self.batch_size * self.num_steps

    @property
    def lstm_flops(self):
        """Floating-point operations of the LSTM's matrix products in one forward pass over one window."""
        return 2 * self.words_per_step * self.num_layers * 8 * self.hidden_size**2

    @property
    def softmax_flops(self):
        return 2 * self.words_per_step * self.hidden_size * self.vocab_size

    @property
    def flops_per_step(self):
        """Floating-point operations of one training step, all of them in matrix products: 6 × multiply-adds × words."""
        return FORWARD_AND_BACKWARD * (self.lstm_flops + self.softmax_flops)

    def recurrent_bytes_per_step(self, bytes_per_weight):
        """Bytes of recurrent weights that one training step reads if each time step, forward and backward, reads them once."""
        return 2 * self.num_steps * self.num_layers * 4 * self.hidden_size**2 * bytes_per_weight

    def windows(self, count=16):
        """Returns `count` consecutive pairs of inputs and targets, int32 `[batch, num_steps]`, of random words."""
        tokens = np.random.default_rng(0).integers(self.vocab_size, size=self.batch_size * (count * self.num_steps + 1))
        return reader.windows(tokens.astype(np.int32), self.batch_size, self.num_steps)
