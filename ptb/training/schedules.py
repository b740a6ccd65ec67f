"""Learning-rate schedules: pure functions of the configuration and the epoch."""

from ptb.config import Config


def learning_rate(config: Config, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 1.

    StepDecay(full_rate_epochs=n, factor=f) gives the full rate for n epochs, then f times the rate of the epoch before: the
    tutorial's `lr_decay ** max(i + 1 - max_epoch, 0)` for i = epoch - 1.
    """
    schedule = config.schedule
    return config.optimizer.learning_rate * schedule.factor ** max(epoch - schedule.full_rate_epochs, 0)
