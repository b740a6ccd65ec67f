"""The model to export, and the text on which exported files are compared with it."""

import pathlib

import numpy as np
import tensorflow as tf

from ptb.data.tokens import EOS
from ptb.evaluation.sampling import distribution
from ptb.model.language_model import build_model
from ptb.runs.load import TrainedModel
from ptb.runs.storage import RunError

BATCH_SIZE, NUM_STEPS = 3, 20  # of the text to compare on


class ExportError(RunError):
    """A model that cannot be exported. The message is one line: the file or flag, what is wrong, what to do."""


class Source:
    """A trained model for exporters.

    `model` is a copy with operations that every machine has. `ids [batch, steps]` is a text that the model wrote itself, each
    row after an `<eos>`; `log_probabilities [batch, steps, vocab]` are those of the word after each of them, and `state` is the
    last state. `text_ids [N]` is the text whose hidden states are asked for, or None.
    """

    def __init__(self, lm: TrainedModel, text: str | None = None, encoding: str | None = None):
        self.lm = lm
        self.text_ids = None if text is None else lm.read_tokens(text, encoding)
        self.model = build_model(lm.config, len(lm.vocabulary), rnn_mode="stepwise")
        self.model.set_weights(lm.model.get_weights())
        self.ids, self.log_probabilities, self.state = self._compute()

    def initial_state(self, batch_size: int) -> list[np.ndarray]:
        """Return the tensors of a state of zeros, in the order of `state_names`."""
        return [tensor.numpy() for tensor in tf.nest.flatten(self.model.initial_state(batch_size))]

    def state_names(self) -> list[str]:
        """Return the names of the tensors of a state, such as `state_0_hidden` for layer 0."""
        states = enumerate(self.model.initial_state(1))
        return [f"state_{layer}_{field}" for layer, state in states for field in state._fields]

    def difference(self, log_probabilities, state) -> float:
        """Return the largest difference from the model's log probabilities and last state; NaN if a number is not finite."""
        pairs = zip([log_probabilities, *state], [self.log_probabilities, *self.state], strict=True)
        return max(largest_difference(found, expected) for found, expected in pairs)

    def _compute(self):
        """Return `ids`, `log_probabilities` and `state`."""
        rng, state = np.random.default_rng(0), self.model.initial_state(BATCH_SIZE)
        token = np.full([BATCH_SIZE, 1], self.lm.vocabulary.ids[EOS], np.int32)
        ids, log_probabilities = [], []
        for _ in range(NUM_STEPS):
            logits, state = self.model(token, state)
            ids.append(token)
            log_probabilities.append(tf.nn.log_softmax(self.lm.require_finite(logits.numpy())))
            drawn = [rng.choice(len(p), p=p) for p in map(distribution, logits[:, 0].numpy())]
            token = np.array(drawn, np.int32)[:, np.newaxis]
        state = [tensor.numpy() for tensor in tf.nest.flatten(state)]
        return np.concatenate(ids, 1), np.concatenate(log_probabilities, 1), state


def largest_difference(found, expected) -> float:
    """Return the largest difference of two arrays; infinity if they have other shapes, NaN if a number is not finite."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.max(np.abs(found - expected), initial=0))


def require(condition: bool, path: pathlib.Path, reason: str) -> None:
    """Raise ExportError unless the condition holds."""
    if not condition:
        raise ExportError(f"{path.name}: {reason}")
