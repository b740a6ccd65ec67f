"""How many epochs fit into a time on this machine: timed once, before a run begins."""

import logging
import statistics
import time
from collections.abc import Callable

import numpy as np

from ptb.config import Config, ConfigError, flatten, override
from ptb.data.windows import Windows
from ptb.evaluation.score import make_eval_step
from ptb.model.language_model import LanguageModel
from ptb.runs.changes import find_changes
from ptb.runs.folder import RunFolder
from ptb.runtime import replicas
from ptb.training.averaging import WeightAverages
from ptb.training.optimizers import make_optimizer
from ptb.training.step import Sums, make_train_step

UNTIMED, TIMED = 2, 8  # windows: the first ones wait for the compiler
RESERVE = 40.0  # seconds for the start of the program, the compiler and the test score
SCALING_PASSES = 10  # temperature scaling takes the time of so many validations: four passes in float32, and the compiler
MARGIN = 0.08  # share of the budget, for checkpoints, and because few steps are timed: two runs were 5 and 6.5% slower


logger = logging.getLogger(__name__)


def within_budget(
    config: Config, run: RunFolder, make_model: Callable[[], LanguageModel], train_windows: Windows, valid_windows: Windows
) -> Config:
    """Return the configuration with the epochs that fit into its `budget_minutes`; a run that has begun keeps their number.

    Raises ConfigError if the run began with another budget, or if several workers train it.
    """
    if replicas.has_many_workers():
        raise ConfigError("budget_minutes: workers would count different epochs; set num_epochs instead")
    if run.record:
        _, begun = run.read_config()
        changes = find_changes(flatten(begun), flatten(config))
        if config.budget_minutes != begun.budget_minutes and all(change.may_happen() for change in changes):
            cure = "use --set budget_minutes=0 --set num_epochs=… to go on"
            raise ConfigError(f"budget_minutes: {run.path} began with {begun.num_epochs} epochs, and keeps them; {cure}")
        return override(config, {"num_epochs": begun.num_epochs})
    started = time.monotonic()
    epoch_seconds, scaling_seconds = time_epoch(make_model(), config, train_windows, valid_windows)
    left = 60 * config.budget_minutes - (time.monotonic() - started) - scaling_seconds
    if left < epoch_seconds:
        logger.warning("budget_minutes: is too short for an epoch, which takes %.1f minutes; training one", epoch_seconds / 60)
    return override(config, {"num_epochs": epochs_within(left, epoch_seconds)})


def epochs_within(seconds: float, epoch_seconds: float) -> int:
    """Return how many epochs of `epoch_seconds` fit into `seconds`, at least 1, with RESERVE and MARGIN left."""
    return max(1, int((seconds * (1 - MARGIN) - RESERVE) / epoch_seconds))


def time_epoch(model, config: Config, train_windows: Windows, valid_windows: Windows) -> tuple[float, float]:
    """Return the seconds of an epoch with its validations, and of what follows the last epoch, before test.

    Timed with a few windows of each text, at a learning rate of 0.
    """
    optimizer, averages = make_optimizer(config.optimizer), WeightAverages(config.averaging, model.trainable_variables)
    train_step, eval_step = make_train_step(model, config, optimizer, averages), make_eval_step(model)

    def train(number, inputs, targets, state):
        rate, seed = np.array(0.0, model.dtype), np.array([0, number], np.int32)
        state, sums = train_step(inputs, targets, state, Sums.zero(), rate, seed)
        sums.read()  # waits for the device
        return state

    def validate(_, inputs, targets, state):
        losses, state = eval_step(inputs, targets, state)
        losses.numpy()
        return state

    scores = max(1, len(averages.names))  # each average is validated
    scores *= config.stopping.validations_per_epoch(len(train_windows))
    training = _time_windows(train, train_windows, model.initial_state(config.batch_size))
    validation = _time_windows(validate, valid_windows, model.initial_state(len(valid_windows.streams)))
    return training + scores * validation, SCALING_PASSES * validation * config.temperature_scaling


def _time_windows(step: Callable, all_windows: Windows, state) -> float:
    """Return the seconds for all windows: their number times the median of a few."""
    seconds = []
    for number, (inputs, targets) in enumerate(all_windows[: UNTIMED + TIMED]):
        begun = time.monotonic()
        state = step(number, inputs, targets, state)
        seconds.append(time.monotonic() - begun)
    return len(all_windows) * statistics.median(seconds[UNTIMED:] or seconds)
