"""The live line at the bottom of a terminal, drawn by rich, which Keras requires."""

import sys
from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ptb.runtime.signals import surviving_closed_streams

MIN_BAR, MAX_WIDTH = 4, 120  # columns
MARGIN = 3  # columns left free: the terminal writes ^C there, and a full line would wrap


class Facts(NamedTuple):
    """What the live line says."""

    epoch: int
    num_epochs: int
    share: float  # of the epoch
    perplexity: float  # of the epoch so far
    speed: float  # tokens per second
    unit: str  # of tokens: "word" or "char"
    epoch_seconds: float  # left
    run_seconds: float  # left
    best_valid: float | None  # None before the first validation
    note: str = ""  # what is done instead of training


class LiveLine:
    """Draws `Facts` on the last line of the terminal; what is printed meanwhile goes above it.

    No thread draws: the line changes only in `draw`, which adapts it to the width that the terminal then has.
    """

    def __init__(self):
        self._console = Console(file=sys.stdout, force_terminal=True)
        self._live: Live | None = None

    def draw(self, facts: Facts) -> None:
        """Draw the line, for the first time or again. Does nothing once the terminal has been closed."""
        with surviving_closed_streams(sys.stdout):
            if self._live is None:
                options = {"console": self._console, "auto_refresh": False, "transient": True}
                self._live = Live(redirect_stderr=sys.stderr is not None and sys.stderr.isatty(), **options)
                self._live.start()
                self._console.show_cursor(True)  # rich hides it, and a killed process would leave it so
            self._live.update(layout(facts, min(self._console.width - MARGIN, MAX_WIDTH)), refresh=True)

    def stop(self) -> None:
        """Remove the line."""
        if self._live:
            with surviving_closed_streams(sys.stdout):
                self._live.stop()
            self._live = None


def layout(facts: Facts, width: int) -> Table | Text:
    """Return the line in at most `width` columns: the longest form that fits, with a bar if there is room."""
    for before, after, needs_bar in forms(facts):
        room = width - len(before) - len(after) - 2  # for the bar, between two spaces
        if room >= MIN_BAR:
            row = Table.grid(padding=(0, 1))
            row.add_row(before, ProgressBar(total=1.0, completed=facts.share, width=room), after)
            return row
        if room >= -1 and not needs_bar:
            break
    return Text(f"{before} {after}"[:width], no_wrap=True)


def forms(facts: Facts) -> Iterator[tuple[str, str, bool]]:
    """Yield what stands before and after the bar, and whether there must be a bar; shorter and shorter."""
    before, share, best = f"epoch {facts.epoch}/{facts.num_epochs}", f"{facts.share:.0%}", facts.best_valid
    speed, epoch_left, run_left = f"{facts.speed:,.0f}", duration(facts.epoch_seconds), duration(facts.run_seconds)

    left = facts.note or f"left: epoch {epoch_left}, run {run_left}"
    parts = share, f"perplexity {facts.perplexity:.2f}", f"{speed} {facts.unit}s/s", left, best and f"best valid {best:.2f}"
    yield f"epoch {facts.epoch} of {facts.num_epochs}", _joined("  ", *parts), True

    running, left = f"perplexity {facts.perplexity:.1f}", facts.note or f"left {epoch_left}/{run_left}"
    yield before, _joined(" ", share, running, f"{speed} {facts.unit[0]}ps", left, best and f"best {best:.1f}"), False
    yield before, _joined(" ", share, running, facts.note or f"left {run_left}"), False
    yield before, share, False


def _joined(separator, *parts):
    return separator.join(filter(None, parts))


def duration(seconds: float) -> str:
    """Return a time as 1:02:03, or 2:03 if it is less than an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
