"""Where a run is: all that must survive a crash for the run to go on as if nothing had happened."""

import dataclasses

import numpy as np
import tensorflow as tf

from ptb.run import RunError
from ptb.training import Sums


@dataclasses.dataclass
class Progress:
    """The place in the text and what has been added up on the way; together with the weights, a checkpoint."""

    state: tuple  # recurrent state before the next window
    sums: Sums  # over the windows of this epoch so far
    epoch: int = 1
    window: int = 0  # the next one of this epoch
    step: int = 0  # windows trained on since the beginning
    seconds: float = 0.0  # spent on this epoch so far
    history: list = dataclasses.field(default_factory=list)  # a record for each finished epoch
    points: list = dataclasses.field(default_factory=list)  # of the curves

    def begin_epoch(self, state):
        """Goes to the start of the next epoch; training there starts from `state`, zeros."""
        self.epoch, self.window, self.seconds = self.epoch + 1, 0, 0.0
        self.state, self.sums = state, Sums.zero()

    def save(self, run, model):
        """Writes a checkpoint, unless the loss is no longer finite: the last good checkpoint must outlive that."""
        self.check_finite()
        arrays = {f"weights/{variable.path}": variable.numpy() for variable in model.trainable_variables}
        arrays |= {f"carried/{name}": tensor.numpy() for name, tensor in self._carried().items()}
        run.save_checkpoint(self.step, arrays, {name: getattr(self, name) for name in self._recorded()})

    def restore(self, run, model):
        """Goes to where the newest checkpoint was written. Returns whether there was one."""
        checkpoint = run.load_checkpoint()
        if checkpoint is None:
            return False
        arrays, record = checkpoint
        load_weights(arrays, model)
        carried = [tf.constant(arrays[f"carried/{name}"]) for name in self._carried()]
        self.state, self.sums = tf.nest.pack_sequence_as((self.state, self.sums), carried)
        for name in self._recorded():
            setattr(self, name, record[name])
        return True

    def check_finite(self):
        """Raises RunError if the epoch's loss is infinite or not a number."""
        if not np.isfinite(self.sums.loss.numpy()):
            norm = self.sums.grad_norm.numpy() / self.sums.steps.numpy()
            raise RunError(
                f"the loss is no longer finite at step {self.step} of epoch {self.epoch} (mean gradient norm {norm:.3g}); "
                "the last checkpoint is kept: try a lower learning rate or a smaller max_grad_norm"
            )

    def _carried(self):
        tensors = {f"sums/{name}": tensor for name, tensor in self.sums._asdict().items()}
        states = {f"state/{i}": tensor for i, tensor in enumerate(tf.nest.flatten(self.state))}
        return states | tensors

    def _recorded(self):
        return [field.name for field in dataclasses.fields(self) if field.name not in ("state", "sums")]


def load_weights(arrays, model):
    """Sets the weights of `model` to those of a checkpoint."""
    for variable in model.trainable_variables:
        variable.assign(arrays[f"weights/{variable.path}"])
