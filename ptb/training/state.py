"""The state of a training run: all that must survive a crash for the run to continue as if nothing had happened."""

import dataclasses
import math
import time

import numpy as np
import tensorflow as tf

from ptb.evaluation.score import perplexity
from ptb.training.step import Sums

# Guessing among a million words has perplexity 1e6. One step of an untrained `large` had 1e10.
MAX_STEP_PERPLEXITY = 1e20
MAX_EPOCH_PERPLEXITY = 1e9
BEST = "best/"  # prefix of the names of the best weights
NOT_RECORDED = ("variables", "recurrent", "sums", "max_loss_ratio", "best_weights")


class Diverged(Exception):
    """Training diverged: a number is not finite or the loss is too large. `what` says where and by how much."""

    def __init__(self, what: str):
        self.what = what
        super().__init__(
            f"{what}; the checkpoints are kept: add --on_nonfinite=rewind (one process only) to return to the start of the "
            "epoch when this happens, or train again with a lower --set learning_rate or clip_norm and another --save_path"
        )


class StateMismatch(ValueError):
    """A checkpoint of another model, or of another version of this program. The message says what differs."""


@dataclasses.dataclass
class TrainState:
    """Weights, optimiser, recurrent state, sums, place in the text and history: the content of a checkpoint."""

    variables: dict  # of model and optimiser, by name
    recurrent: tuple  # recurrent state before the next window
    sums: Sums  # over the windows of this epoch so far
    max_loss_ratio: float = 0.0  # diverged if a step's loss is this many times the first step's; 0: no limit
    best_weights: dict = dataclasses.field(default_factory=dict)  # arrays by name, if the checkpoint of best_step has others
    epoch: int = 1
    window: int = 0  # index of the next window of this epoch
    step: int = 0  # windows trained on since the beginning
    seconds: float = 0.0  # spent on this epoch so far
    learning_rate: float = 0.0  # of the last step
    rate_factor: float = 1.0  # product of the reductions by rewinds
    first_loss: float = 0.0  # of the first step, nats per token
    precisions: list = dataclasses.field(default_factory=list)  # of matrix products so far: a run may change machines
    validated: int = 0  # step of the last validation
    valid_perplexity: float = 0.0  # of the last validation
    best_perplexity: float = 0.0  # of all validations
    best_step: int = 0
    best_epoch: int = 0
    validations_since_best: int = 0
    validations: list = dataclasses.field(default_factory=list)  # perplexities of all validations
    history: list = dataclasses.field(default_factory=list)  # one record per finished epoch
    points: list = dataclasses.field(default_factory=list)  # of the curves

    def __post_init__(self):
        self.mark_saved()
        self.start_clock()

    def start_clock(self):
        """Count the seconds of training from now on, without what went before, such as a validation."""
        self._clock = time.monotonic()

    def read_clock(self) -> float:
        """Add the time since the clock was started or read to the seconds of this epoch, and return them."""
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        return self.seconds

    def mark_saved(self):
        self._saved = time.monotonic()

    def seconds_since_save(self) -> float:
        return time.monotonic() - self._saved

    def advance(self):
        """Move to the next window, after a step whose recurrent state and sums have been taken over."""
        self.window, self.step = self.window + 1, self.step + 1
        if self.step == 1:
            self.first_loss = float(self.sums.largest_loss)

    def begin_epoch(self, recurrent):
        """Move to the start of the next epoch, which starts from the recurrent state `recurrent`."""
        self.epoch, self.window, self.seconds = self.epoch + 1, 0, 0.0
        self.recurrent, self.sums = recurrent, Sums.zero()

    def record_validation(self, perplexity: float, weights=None):
        """Record the result of a validation, and whether it is the best so far.

        The checkpoint of this step has the weights of training. If averages were validated instead, `weights()` returns them by
        name; otherwise {}.
        """
        self.validated, self.valid_perplexity = self.step, perplexity
        self.validations.append(perplexity)
        if not perplexity < (self.best_perplexity or math.inf):  # false for NaN too
            self.validations_since_best += 1
            return
        self.best_perplexity, self.best_step, self.best_epoch = perplexity, self.step, self.epoch
        self.validations_since_best = 0
        self.best_weights = weights() if weights else {}

    def out_of_patience(self, patience: int) -> bool:
        """Return whether `patience` validations have passed without a new best; never if `patience` is 0."""
        return 0 < patience <= self.validations_since_best

    def to_arrays(self) -> dict:
        """Return all arrays of a checkpoint by name. Raises Diverged if one is not finite.

        A step can spoil the weights in a way that only the loss of the next one shows. At the end of an epoch the validation
        shows it, so the checkpoint at the start of an epoch is always good.
        """
        self.check()
        self.read_clock()
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        arrays |= {f"carried/{name}": tensor.numpy() for name, tensor in self._carried().items()}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise self._diverged(f"{name} is no longer finite")
        return arrays | {f"{BEST}{name}": array for name, array in self.best_weights.items()}

    def to_record(self) -> dict:
        """Return everything that is not an array, as JSON can hold it."""
        fields = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in fields if name not in NOT_RECORDED}

    def restore(self, arrays: dict, record: dict):
        """Restore what `to_arrays` and `to_record` gave. Raises StateMismatch if they are of another model or version."""
        record = self.to_record() | record  # fields that an older version did not have keep their initial value
        if {name: type(value) for name, value in record.items()} != {k: type(v) for k, v in self.to_record().items()}:
            raise StateMismatch("was written by another version of this program")
        assign_variables(arrays, self.variables)
        carried = [array_like(tensor, arrays, f"carried/{name}") for name, tensor in self._carried().items()]
        packed = tf.nest.pack_sequence_as((self.recurrent, self.sums), list(map(tf.constant, carried)))
        self.recurrent, self.sums = packed
        self.best_weights = best_weights(arrays)
        for name, value in record.items():
            setattr(self, name, value)

    def epoch_record(self) -> dict:
        """Return the line of `history.jsonl` for the epoch that ends now, once it has been validated."""
        sums = self.sums.read()
        return {
            "epoch": self.epoch,
            "learning_rate": self.learning_rate,
            "train_perplexity": perplexity(sums.loss, sums.tokens),
            "valid_perplexity": self.valid_perplexity,
            "words_per_second": sums.tokens / self.seconds,
            "seconds": self.seconds,
            "mean_gradient_norm": sums.grad_norm / sums.steps,
            "clipped_fraction": sums.clipped_steps / sums.steps,
        }

    def check(self) -> Sums:
        """Return the sums of this epoch, read. Raises Diverged if they are not finite or a step's loss was too large.

        Sums stay non-finite once they are, and keep the largest loss. Whether a run has diverged therefore does not depend on
        when this is called. Reading sums waits for the device, so call this when they are read anyway.
        """
        sums = self.sums.read()
        norm = sums.grad_norm / max(sums.steps, 1)
        if not (math.isfinite(sums.loss) and math.isfinite(norm)):
            raise self._diverged(f"loss {sums.loss:.3g}, mean gradient norm {norm:.3g}")
        limit = min(math.log(MAX_STEP_PERPLEXITY), self.max_loss_ratio * self.first_loss or math.inf)
        if sums.largest_loss > limit:
            loss = f"loss {sums.largest_loss:.3g} per token in one step (limit {limit:.3g})"
            raise self._diverged(f"{loss}, mean gradient norm {norm:.3g}")
        return sums

    def check_epoch(self):
        """Raise Diverged if the training perplexity of the epoch that ends was too large."""
        sums = self.sums.read()
        self._check_perplexity(perplexity(sums.loss, sums.tokens), "in this epoch")

    def check_validation(self):
        """Raise Diverged if the perplexity of the last validation was too large, as after a step that spoilt the weights."""
        self._check_perplexity(self.valid_perplexity, "of the validation text")

    def _check_perplexity(self, reached, place):
        if not reached <= MAX_EPOCH_PERPLEXITY:  # true for NaN too
            raise self._diverged(f"perplexity {reached:.3g} {place} (limit {MAX_EPOCH_PERPLEXITY:.3g})")

    def _diverged(self, numbers):
        place = f"at step {self.step} of epoch {self.epoch}, learning rate {self.learning_rate:g}"
        return Diverged(f"training diverged {place}: {numbers}")

    def _carried(self):
        tensors = {f"sums/{name}": tensor for name, tensor in self.sums._asdict().items()}
        states = {f"state/{i}": tensor for i, tensor in enumerate(tf.nest.flatten(self.recurrent))}
        return states | tensors


def trained_variables(model, optimizer=None, averages=None) -> dict:
    """Return all variables that training changes, by their name in a checkpoint."""
    variables = {f"weights/{variable.path}": variable for variable in model.trainable_variables}
    variables |= {f"optimizer/{variable.path}": variable for variable in (optimizer.variables if optimizer else ())}
    return variables | (averages.variables() if averages else {})


def assign_variables(arrays: dict, variables: dict):
    """Assign the arrays of a checkpoint to variables of the same names. Raises StateMismatch if they do not fit."""
    groups = {name.split("/")[0] for name in variables}
    unknown = {name for name in arrays if name.split("/")[0] in groups} - variables.keys()
    if unknown:
        raise StateMismatch(f"holds {min(unknown)}, which this model does not have")
    for name, variable in variables.items():
        variable.assign(array_like(variable, arrays, name))


def model_weights(arrays: dict) -> dict:
    """Return the weights of the model in a checkpoint by name."""
    return {name: array for name, array in arrays.items() if name.startswith("weights/")}


def best_weights(arrays: dict) -> dict:
    """Return the best weights of a checkpoint by name; empty if they are those of the checkpoint of its `best_step`."""
    return {name.removeprefix(BEST): array for name, array in arrays.items() if name.startswith(BEST)}


def array_like(tensor, arrays: dict, name: str) -> np.ndarray:
    """Return an array of a checkpoint. Raises StateMismatch unless it has the shape and the type of `tensor`."""
    array = arrays.get(name)
    wanted = f"{tuple(tensor.shape)} {tf.as_dtype(tensor.dtype).name}"
    found = "nothing" if array is None else f"{array.shape} {array.dtype.name}"
    if found != wanted:
        raise StateMismatch(f"holds {found} for {name}, which should be {wanted}")
    return array
