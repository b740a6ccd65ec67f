"""What a run shows while it trains: the tutorial's lines, or a live line on a terminal, and curves for TensorBoard."""

import contextlib
import datetime
import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from ptb.config import Config
from ptb.data.corpus import Corpus
from ptb.data.tokens import LEVELS
from ptb.evaluation.score import perplexity
from ptb.runs import tensorboard
from ptb.runs.folder import RunFolder
from ptb.runs.liveline import Facts, LiveLine
from ptb.runs.tensorboard import Curves
from ptb.runtime.signals import print_line
from ptb.training.state import TrainState

REPORTS_PER_EPOCH = 10
TIMED_STEPS = 10  # after which the end of the run is predicted
REFRESH = 1.0  # seconds between two drawings of the live line


class Monitoring(NamedTuple):
    """How a run is saved and observed. Nothing here changes what it learns."""

    checkpoint_seconds: float = 300
    report_every: int = 0  # steps; 0: ten times per epoch
    sample_every: int = 0  # steps; 0: never
    profile: bool = False
    live: bool = False  # draw a live line instead of the lines within an epoch
    published_valid: float | None = None  # perplexity to draw beside the run's own


def describe(config: Config, corpus: Corpus, num_parameters: int, num_windows: int) -> Iterator[str]:
    """Yield the lines that say how large a run is."""
    unit = LEVELS[config.data.level]
    sizes = ", ".join(f"{split} {len(getattr(corpus, split)):,}" for split in ("train", "valid", "test"))
    yield f"Parameters: {num_parameters:,} Vocabulary: {len(corpus.vocabulary):,} {unit}"
    yield f"Text: {sizes} {unit}"
    yield f"Steps: {config.num_epochs} epochs of {num_windows:,}, each of {config.batch_size} × {config.num_steps} {unit}"


class Progress:
    """Print and plot what training reaches. Use it in a `with` statement, which ends the live line and the curves.

    `start` begins to plot, once the state of a run is restored, and again after a rewind. Reading the sums of an epoch waits
    for the device. So only a report and the live line do it, the latter once a second.
    """

    def __init__(self, run: RunFolder, config: Config, hyperparameters: dict, monitoring: Monitoring = Monitoring()):
        self._run, self._config, self._hyperparameters, self.monitoring = run, config, hyperparameters, monitoring
        self.curves: Curves | None = None
        self._live = LiveLine() if monitoring.live else None
        self._next_drawing = 0.0
        self._num_windows = 0  # of this epoch
        self._report_windows: set[int] = set()
        self._mark: tuple[int, float] | None = None  # window and seconds after the first step of this epoch here
        self._pace = 0.0  # seconds per window of an earlier epoch
        self._validation_seconds = 0.0  # of the last one
        self._scored_seconds = 0.0  # of the scores so far of the one that is under way: one for each average
        self._predicted = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind, *_) -> None:
        if self._live:
            self._live.stop()
        if self.curves:
            self.curves.close(success=kind is None)

    def start(self, state: TrainState, num_windows: int) -> None:
        """Plot the points of a new or restored state, and those to come."""
        if self.curves:
            self.curves.close()
        tensorboard.upgrade_points(state.points, num_windows)
        self.curves = Curves(self._run, state.points, self._hyperparameters, self.monitoring.published_valid)

    def begin_epoch(self, state: TrainState, num_windows: int, learning_rate: float) -> None:
        self._num_windows, self._report_windows = num_windows, tutorial_report_windows(num_windows)
        self._mark = None
        print_line(f"Epoch: {state.epoch} Learning rate: {learning_rate:{'.3f' if learning_rate >= 0.01 else '.2g'}}")

    def step(self, state: TrainState) -> None:
        """Report, draw or predict the end of the run after a step, if it is time for that."""
        if self._mark is None:
            self._mark = state.window, state.read_clock()
        if not self._predicted and state.window - self._mark[0] >= TIMED_STEPS:
            self._predicted = True
            print_line(self._expected_end(state))
        every = self.monitoring.report_every
        if is_due(every, state.step) if every else state.window in self._report_windows:
            self._report(state)
        if self._live and time.monotonic() >= self._next_drawing:
            self._draw(state)
            self._next_drawing = time.monotonic() + REFRESH

    @contextlib.contextmanager
    def validation(self, state: TrainState) -> Iterator[None]:
        """Say on the live line that a validation is under way, and time it. With averages it has several such parts."""
        begun = time.monotonic()
        if self._live:
            self._draw(state, "validating")
        yield
        state.start_clock()  # otherwise the line of the next part would count this one as training
        self._scored_seconds += time.monotonic() - begun

    def validated(self, state: TrainState, reached: float) -> None:
        self._validation_seconds, self._scored_seconds = self._scored_seconds, 0.0
        self.curves.add(tensorboard.VALID, state.step, reached)

    def end_epoch(self, state: TrainState, record: dict) -> None:
        """Print and plot the record of a finished epoch."""
        for series in ("train", "valid"):
            print_line(f"Epoch: {record['epoch']} {series.capitalize()} Perplexity: {record[f'{series}_perplexity']:.3f}")
        self.curves.add(tensorboard.TRAIN, state.step, record["train_perplexity"])
        self.curves.add(tensorboard.CLIPPED, state.step, record["clipped_fraction"])
        self.curves.flush()
        self._pace = record["seconds"] / self._num_windows

    def end_run(self, state: TrainState, result: dict) -> None:
        """Plot the test score and end the curves."""
        self.curves.add(tensorboard.TEST, state.step, result["test_perplexity"])
        self.curves.close(success=True)

    def _report(self, state):
        """Print and plot the epoch so far, in the tutorial's words; it counts windows from 0."""
        sums = state.check()
        running, speed = perplexity(sums.loss, sums.tokens), sums.tokens / state.read_clock()
        if not self._live:
            print_line(f"{(state.window - 1) / self._num_windows:.3f} perplexity: {running:.3f} speed: {speed:.0f} wps")
        self.curves.add(tensorboard.RUNNING, state.step, running)
        self.curves.add(tensorboard.LEARNING_RATE, state.step, state.learning_rate)
        self.curves.add(tensorboard.GRADIENT_NORM, state.step, sums.grad_norm / sums.steps)
        self.curves.add(tensorboard.SPEED, state.step, speed)
        self.curves.flush()

    def _draw(self, state, note=""):
        sums, seconds = state.sums.read(), state.read_clock()
        if not sums.steps:
            return
        of_epoch, of_run = self._seconds_left(state)
        facts = Facts(
            epoch=state.epoch,
            num_epochs=self._config.num_epochs,
            share=min(state.window / self._num_windows, 1.0),
            perplexity=perplexity(sums.loss, sums.tokens),
            speed=sums.tokens / seconds,
            unit=self._config.data.level,
            epoch_seconds=of_epoch,
            run_seconds=of_run,
            best_valid=min(state.validations, default=None),
            note=note,
        )
        self._live.draw(facts)

    def _seconds_left(self, state) -> tuple[float, float]:
        """Return the seconds until the end of the epoch and of the run: steps at the pace of this epoch, and validations.

        The first step in a process is not counted: it waits for the compiler.
        """
        pace = self._pace
        if self._mark and state.window > self._mark[0]:
            pace = (state.read_clock() - self._mark[1]) / (state.window - self._mark[0])
        every, steps_left = self._config.stopping.validate_every, self._num_windows - state.window
        validations = self._config.stopping.validations_per_epoch(self._num_windows)
        left = 1 + ((state.step + steps_left - 1) // every - state.step // every if every else 0)
        epoch = steps_left * pace + left * self._validation_seconds
        whole = self._num_windows * pace + validations * self._validation_seconds
        return epoch, epoch + (self._config.num_epochs - state.epoch) * whole

    def _expected_end(self, state) -> str:
        """Return the line that says when training will end."""
        try:
            left = datetime.timedelta(seconds=round(self._seconds_left(state)[1]))
            end = datetime.datetime.now() + left
        except OverflowError:  # num_epochs is huge, and something else is to end the run
            return "Expected end: after the year 9999"
        return f"Expected end: {end:%a %d %b %H:%M}, in {left}" + (" at most" if self._config.stopping.patience else "")


def can_draw() -> bool:
    """Return whether standard output is a terminal on which a line can be drawn again and again."""
    return bool(sys.stdout and sys.stdout.isatty()) and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def tutorial_report_windows(count: int) -> set[int]:
    """Return after which windows of an epoch of `count` to report: ten of them, spaced as in the tutorial."""
    period = max(count // REPORTS_PER_EPOCH, 1)
    return {k * period + min(REPORTS_PER_EPOCH + 1, period) for k in range(min(REPORTS_PER_EPOCH, count))}


def is_due(period: int, step: int) -> bool:
    """Return whether something that happens every `period` steps happens after `step` steps; never if `period` is 0."""
    return period > 0 and step > 0 and step % period == 0
