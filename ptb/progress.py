"""Where a run is: all that must survive a crash for the run to go on as if nothing had happened."""

import dataclasses
import math
import time

import numpy as np
import tensorflow as tf

from ptb.evaluation import perplexity
from ptb.run import RunError
from ptb.training import Sums

# Guessing among a million words has a perplexity of 1e6; a single step of an untrained `large` had 1e10.
WORST_PERPLEXITY_OF_A_STEP = 1e20
WORST_PERPLEXITY_OF_AN_EPOCH = 1e9
REWIND_FACTOR = 0.5  # of the learning rates, each time that a run goes back
MOST_REWINDS = 10
BEST = "best/"  # before the names of the best weights
NOT_RECORDED = ("variables", "state", "sums", "explosion", "best_weights")


class Diverged(RunError):
    """The training went astray: its numbers are not finite, or its loss has exploded; `what` says where and by how much."""

    def __init__(self, what):
        self.what = what
        super().__init__(
            f"{what}; the checkpoints are kept: add --on_nonfinite=rewind, in one process, to go back to the beginning of the "
            "epoch when this happens, or begin anew with a lower learning_rate or max_grad_norm (configs.py) and another "
            "--save_path"
        )


@dataclasses.dataclass
class Progress:
    """The place in the text and what has been added up on the way; together with the weights, a checkpoint."""

    variables: dict  # what is learnt: weights, and what the optimiser keeps, by name
    state: tuple  # recurrent state before the next window
    sums: Sums  # over the windows of this epoch so far
    explosion: float = 0.0  # a loss this many times the first is too much; 0: none is
    best_weights: dict = dataclasses.field(default_factory=dict)  # by name, where the best are to be kept
    epoch: int = 1
    window: int = 0  # the next one of this epoch
    step: int = 0  # windows trained on since the beginning
    seconds: float = 0.0  # spent on this epoch so far
    learning_rate: float = 0.0  # of this epoch
    rate_factor: float = 1.0  # what rewinds have left of the configuration's learning rates
    first_loss: float = 0.0  # of the first step, nats a token
    precisions: list = dataclasses.field(default_factory=list)  # of the products so far: a run may change machines
    validated: int = 0  # the step of the last validation
    valid_perplexity: float = 0.0  # which it has found
    best_perplexity: float = 0.0  # of all validations
    best_step: int = 0
    best_epoch: int = 0
    validations_since_best: int = 0
    history: list = dataclasses.field(default_factory=list)  # a record for each finished epoch
    points: list = dataclasses.field(default_factory=list)  # of the curves

    def __post_init__(self):
        self._saved = time.monotonic()
        self.start_clock()

    def start_clock(self):
        """Makes the seconds of training count from here on, and not what went before: a validation."""
        self._clock = time.monotonic()

    def read_clock(self):
        """Adds what has passed since the clock was started or read to the seconds of this epoch, and returns them."""
        now = time.monotonic()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        return self.seconds

    def seconds_since_save(self):
        return time.monotonic() - self._saved

    def advance(self):
        """Goes to the next window, when a step has been taken and the state and the sums are those after it."""
        self.window, self.step = self.window + 1, self.step + 1
        if self.step == 1:
            self.first_loss = float(self.sums.largest_loss)

    def begin_epoch(self, state):
        """Goes to the start of the next epoch; training there starts from `state`, zeros."""
        self.epoch, self.window, self.seconds = self.epoch + 1, 0, 0.0
        self.state, self.sums = state, Sums.zero()

    def note_validation(self, perplexity, keep_best):
        """Remembers what a validation has found and, with `keep_best`, the weights of now if they are the best so far."""
        self.validated, self.valid_perplexity = self.step, perplexity
        if not keep_best:
            return
        if not perplexity < (self.best_perplexity or math.inf):  # NaN is not better than anything
            self.validations_since_best += 1
            return
        self.best_perplexity, self.best_step, self.best_epoch = perplexity, self.step, self.epoch
        self.validations_since_best = 0
        weights = {name: variable for name, variable in self.variables.items() if name.startswith("weights/")}
        self.best_weights = {name: variable.numpy() for name, variable in weights.items()}

    def out_of_patience(self, patience):
        """Returns whether so many validations have passed since the best one; never where `patience` is 0."""
        return 0 < patience <= self.validations_since_best

    def take_best(self):
        """Goes to the best weights, where they have been kept."""
        for name, weights in self.best_weights.items():
            self.variables[name].assign(weights)

    def save(self, run):
        """Writes a checkpoint, or raises Diverged: what is not finite is never saved.

        A step can spoil the weights in a way that only the next one's loss would show. At the end of an epoch the validation
        shows it, so that the checkpoint from which an epoch begins is a good one.
        """
        self.check()
        self.read_clock()
        arrays = {name: variable.numpy() for name, variable in self.variables.items()}
        arrays |= {f"carried/{name}": tensor.numpy() for name, tensor in self._carried().items()}
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise self._diverged(f"{name} is no longer finite")
        arrays |= {f"{BEST}{name}": array for name, array in self.best_weights.items()}
        run.save_checkpoint(self.step, arrays, self._record(), epoch_step=self.step - self.window)
        self._saved = time.monotonic()

    def restore(self, run):
        """Goes to where the newest checkpoint was written. Returns whether there was one.

        RunError for a checkpoint that is not of this model or of another version of this program.
        """
        checkpoint = run.load_checkpoint()
        if checkpoint is None:
            return False
        record = self._record() | checkpoint.record  # what an older version did not record keeps its first value
        if [(name, type(value)) for name, value in record.items()] != [(k, type(v)) for k, v in self._record().items()]:
            raise RunError(f"{checkpoint.path}: was written by another version of this program; go on with that one")
        load_variables(checkpoint, self.variables)
        carried = [array_like(tensor, checkpoint, f"carried/{name}") for name, tensor in self._carried().items()]
        self.state, self.sums = tf.nest.pack_sequence_as((self.state, self.sums), list(map(tf.constant, carried)))
        self.best_weights = best_weights(checkpoint)
        for name, value in record.items():
            setattr(self, name, value)
        return True

    def check(self):
        """Returns the sums of this epoch, read; Diverged if they are not finite, or the loss of a step was too large.

        Sums keep what is not finite and the largest loss, so that whether a run has diverged does not depend on when this is
        called. Reading them waits for the device: a check belongs where they are read in any case.
        """
        sums = self.sums.read()
        norm = sums.grad_norm / max(sums.steps, 1)
        if not (math.isfinite(sums.loss) and math.isfinite(norm)):
            raise self._diverged(f"loss {sums.loss:.3g}, mean gradient norm {norm:.3g}")
        limit = min(math.log(WORST_PERPLEXITY_OF_A_STEP), self.explosion * self.first_loss or math.inf)
        if sums.largest_loss > limit:
            loss = f"loss {sums.largest_loss:.3g} a token in one step (limit {limit:.3g})"
            raise self._diverged(f"{loss}, mean gradient norm {norm:.3g}")
        return sums

    def check_epoch(self):
        """Raises Diverged if the loss was too large all through this epoch, which has come to its end."""
        sums = self.sums.read()
        self._check_perplexity(perplexity(sums.loss, sums.tokens), "in this epoch")

    def check_validation(self):
        """Raises Diverged if the loss of the last validation was too large, as after a step that spoilt the weights."""
        self._check_perplexity(self.valid_perplexity, "of the validation text")

    def _check_perplexity(self, reached, where):
        if not reached <= WORST_PERPLEXITY_OF_AN_EPOCH:  # NaN neither
            raise self._diverged(f"perplexity {reached:.3g} {where} (limit {WORST_PERPLEXITY_OF_AN_EPOCH:.3g})")

    def _diverged(self, numbers):
        place = f"at step {self.step} of epoch {self.epoch}, learning rate {self.learning_rate:g}"
        return Diverged(f"the training has diverged {place}: {numbers}")

    def _carried(self):
        tensors = {f"sums/{name}": tensor for name, tensor in self.sums._asdict().items()}
        states = {f"state/{i}": tensor for i, tensor in enumerate(tf.nest.flatten(self.state))}
        return states | tensors

    def _record(self):
        """Returns all that is not a tensor."""
        fields = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in fields if name not in NOT_RECORDED}


def rewind(run):
    """Drops the checkpoints since the beginning of the epoch and lowers the learning rates of that one, to go on from there.

    Those in between may have been written after a step that went astray, and depend on the clock. Returns the step to
    which this goes back, and what is left of the configuration's rates: `REWIND_FACTOR` for each rewind. RunError after
    `MOST_REWINDS`: lower rates are not the cure.
    """
    newest = run.load_checkpoint().record
    epoch_step = newest["step"] - newest["window"]
    checkpoint = run.load_checkpoint(up_to=epoch_step)
    if checkpoint is None:
        raise RunError(f"{run.path}: has no checkpoint of step {epoch_step}, where the epoch began, to go back to; begin anew")
    arrays, record, path = checkpoint
    step, factor = record["step"], record["rate_factor"] * REWIND_FACTOR
    if factor < REWIND_FACTOR**MOST_REWINDS:
        raise RunError(f"{path}: diverged after {MOST_REWINDS} rewinds too; begin anew with a lower learning_rate")
    run.drop_checkpoints_after(step)  # first: a crash before the rates are lowered has the run diverge and come here again
    run.save_checkpoint(step, arrays, record | {"rate_factor": factor}, epoch_step=step)
    return step, factor


def learnt_variables(model, optimizer=None):
    """Returns all that training changes, by the names of a checkpoint."""
    variables = {f"weights/{variable.path}": variable for variable in model.trainable_variables}
    return variables | {f"optimizer/{variable.path}": variable for variable in (optimizer.variables if optimizer else ())}


def load_variables(checkpoint, variables):
    """Sets variables, by name, to what a checkpoint holds; RunError if that is not of such a model."""
    kinds = {name.split("/")[0] for name in variables}
    unknown = {name for name in checkpoint.arrays if name.split("/")[0] in kinds} - variables.keys()
    if unknown:
        raise RunError(f"{checkpoint.path}: holds {min(unknown)}, unknown to this model; use the program that wrote it")
    for name, variable in variables.items():
        variable.assign(array_like(variable, checkpoint, name))


def best_weights(checkpoint):
    """Returns the best weights by name, empty where the run did not keep them."""
    return {name.removeprefix(BEST): array for name, array in checkpoint.arrays.items() if name.startswith(BEST)}


def array_like(tensor, checkpoint, name):
    """Returns an array of the checkpoint; RunError if it has not the shape and the type of `tensor`."""
    array = checkpoint.arrays.get(name)
    wanted = f"{tuple(tensor.shape)} {tf.as_dtype(tensor.dtype).name}"
    found = "nothing" if array is None else f"{array.shape} {array.dtype.name}"
    if found != wanted:
        raise RunError(f"{checkpoint.path}: holds {found} where {name} is to be {wanted}; use the program that wrote it")
    return array
