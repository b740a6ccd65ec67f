"""Stop on request, between two training steps and after a checkpoint; and print to streams that may disappear."""

import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, TextIO

STOPPING = ("SIGTERM", "SIGINT", "SIGHUP")  # `kill`, Ctrl-C, and a terminal that is closed; Windows has no SIGHUP
EXIT_CODES = {number: 128 + number for name in STOPPING if (number := getattr(signal, name, None))}
ECHO = 1.0  # seconds; a second signal within them is the same request, because a process group may receive it twice
PERIOD = 10  # workers agree on whether to stop at every tenth call of `requested`


class StopRequest:
    """Turn SIGTERM, SIGHUP and Ctrl-C into a request that the training loop reads; use it in a `with` statement.

    A second signal more than a second later ends the process at once. Workers that train together must stop together: at
    every tenth call of `requested`, `agree(this worker is to stop)` returns whether any worker is to stop. All workers must
    call `requested` equally often.
    """

    def __init__(self, hint: str = "", agree: Callable[[bool], bool] | None = None):
        self.hint = hint
        self.agree = agree
        self._agreed = False
        self._asked = 0
        self._signal = self._since = None
        self._previous = {}

    def requested(self) -> bool:
        """Return whether to stop now."""
        if self.agree and not self._agreed:
            self._asked += 1
            self._agreed = self._asked % PERIOD == 0 and self.agree(self._signal is not None)
        return self._agreed if self.agree else self._signal is not None

    def __enter__(self) -> "StopRequest":
        self._previous = handle_stops(self._request)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def exit(self) -> NoReturn:
        """Exit with 128 + the number of the signal, such as 130 after Ctrl-C, and print the hint. Save everything first."""
        number = self._signal or signal.SIGTERM  # None if another worker received the signal
        print_to_user(f"Stopped by {signal.Signals(number).name}; {self.hint}")
        sys.exit(EXIT_CODES[number])

    def watch(self, windows: Iterable) -> Iterator:
        """Yield the windows, and exit between two of them on request: for long work that has nothing to save."""
        for window in windows:
            if self.requested():
                self.exit()
            yield window

    def _request(self, number: int, _) -> None:
        now = time.monotonic()
        if self._signal is None:
            self._signal, self._since = number, now
            print_to_user(f"{signal.Signals(number).name}: saving; a second one ends the process at once")
        elif now - self._since > ECHO:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def handle_stops(handler: Callable) -> dict:
    """Install a handler for `EXIT_CODES`. Return the previous ones by signal.

    A SIGHUP that is ignored stays so: `nohup` starts a process like this, so that it survives its terminal.
    """
    numbers = [n for n in EXIT_CODES if n != getattr(signal, "SIGHUP", None) or signal.getsignal(n) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in numbers}


@contextlib.contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process at once and silently, as during imports. Changes nothing if Python is interactive.

    TensorFlow's native code may turn a KeyboardInterrupt during its import into other errors, or a crash.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler and not hasattr(sys, "ps1")
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def print_to_user(line: str) -> None:
    """Print a line on standard error, or on the terminal if Ctrl-C has ended the reader of standard error, such as `tee`.

    Works in a handler of signals, which may interrupt a print: it uses no buffer of Python's.
    """
    content = f"{line}\n".encode(errors="backslashreplace")
    try:
        os.write(2, content)
    except OSError:
        with contextlib.suppress(OSError), open("/dev/tty", "wb", buffering=0) as terminal:
            terminal.write(content)


def print_line(line: str, stream: TextIO | None = None) -> None:
    """Print a line; once the stream's reader is gone, discard this line and all later ones.

    The reader goes when Ctrl-C also ends `tee` at the other end of a pipe, or when the terminal of a background run closes.
    Training should continue in both cases.
    """
    stream = stream or sys.stdout
    with surviving_closed_streams(stream):
        print(line, file=stream, flush=True)


@contextlib.contextmanager
def surviving_closed_streams(stream: TextIO) -> Iterator[None]:
    """Discard what is written to a stream, now and later, once its reader is gone."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        silence(stream)


def silence(stream: TextIO) -> None:
    """Discard everything written to a stream from now on, and the contents of its buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
