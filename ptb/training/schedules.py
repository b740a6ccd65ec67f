"""Learning rates: pure functions of the configuration, the place in the training, and the validations so far."""

import math
from collections.abc import Sequence

from ptb.config import SGD, Config, Cosine, OneCycle, Plateau, StepDecay
from ptb.training.state import TrainState


def step_rate(config: Config, state: TrainState, num_windows: int) -> float:
    """Return the learning rate of the next step; at the end of an epoch that of the last one, also for a resumed run."""
    window = min(state.window, num_windows - 1)
    share = (state.epoch - 1 + window / num_windows) / config.num_epochs
    return state.rate_factor * learning_rate(config, state.epoch, share, state.validations)


def length_factor(config: Config, inputs) -> float:
    """Return the factor of the learning rate for a window of random length: its share of num_steps (AWD-LSTM, main.py).

    It gives each token the same weight. With SGD a loss that is summed over time does so already.
    """
    weighted = isinstance(config.optimizer, SGD) and config.loss.reduction == "sum"
    return inputs.shape[1] / config.num_steps if config.data.random_lengths and not weighted else 1.0


def learning_rate(config: Config, epoch: int, share: float = 0.0, validations: Sequence[float] = ()) -> float:
    """Return the learning rate of a step.

    `epoch` is counted from 1; `share` is the share of all steps that are done, from 0 to 1; `validations` are the perplexities
    of all validations so far.
    """
    schedule = config.schedule
    match schedule:
        case StepDecay():  # the tutorial's `lr_decay ** max(i + 1 - max_epoch, 0)` for i = epoch - 1
            factor = schedule.factor ** max(epoch - schedule.full_rate_epochs, 0)
        case Plateau():
            factor = schedule.factor ** count_plateaus(validations, schedule.patience_to_decay)
        case Cosine():
            factor = _cosine(schedule, share)
        case OneCycle():
            factor = _one_cycle(schedule, share)
    return config.optimizer.learning_rate * factor


def count_plateaus(validations: Sequence[float], patience: int) -> int:
    """Return how often `patience` validations in a row brought no new best; each time the count starts again."""
    best, waited, plateaus = math.inf, 0, 0
    for perplexity in validations:
        if perplexity < best:
            best, waited = perplexity, 0
            continue
        waited += 1
        if waited == patience:
            plateaus, waited = plateaus + 1, 0
    return plateaus


def _cosine(schedule, share):
    if share < schedule.warmup:
        return share / schedule.warmup
    done = (share - schedule.warmup) / (1 - schedule.warmup)
    return schedule.final_factor + (1 - schedule.final_factor) * (1 + math.cos(math.pi * done)) / 2


def _one_cycle(schedule, share):
    start, rise = 1 / schedule.start_divisor, schedule.rise
    if share < rise:
        return start + (1 - start) * share / rise
    if share < 2 * rise:
        return 1 - (1 - start) * (share - rise) / rise
    return start + (schedule.final_factor - start) * (share - 2 * rise) / (1 - 2 * rise)
