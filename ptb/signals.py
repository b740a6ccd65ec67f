"""Stopping on request: the step in hand is finished and a checkpoint written before the process goes.

`say` prints for such a process: a terminal or a pipe that has gone is not to end it before.
"""

import errno
import os
import signal
import sys
import time

EXIT_CODES = {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: 128 + signal.SIGINT}
ECHO = 1.0  # seconds within which another signal is the same request: a group of processes may get it from several sides
PERIOD = 10  # questions from one that workers answer together to the next


class StopRequest:
    """Inside a `with`, SIGTERM and Ctrl-C become a request for the training loop to read; one a second later ends the process.

    Workers that train together stop together: every tenth time that the loop asks, `agree(whether this one is to stop)` says
    whether any is. All have to ask equally often.
    """

    def __init__(self, hint="", agree=None):
        self.hint = hint
        self.agree = agree
        self._agreed = False
        self._asked = 0
        self._signal = self._since = None
        self._previous = {}

    def requested(self):
        """Returns whether to stop now."""
        if self.agree and not self._agreed:
            self._asked += 1
            self._agreed = self._asked % PERIOD == 0 and self.agree(self._signal is not None)
        return self._agreed if self.agree else self._signal is not None

    def __enter__(self):
        self._previous = {number: signal.signal(number, self._request) for number in EXIT_CODES}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def exit(self):
        """Exits with 143 after SIGTERM, 130 after Ctrl-C, and says how to go on. To be called when all is saved."""
        number = self._signal or signal.SIGTERM  # which another worker got
        say(f"Stopped by {signal.Signals(number).name}; {self.hint}", sys.stderr)
        sys.exit(EXIT_CODES[number])

    def watch(self, windows):
        """Yields the windows, and exits between two of them as above: for a long piece of work that changes nothing."""
        for window in windows:
            if self.requested():
                self.exit()
            yield window

    def _request(self, number, _):
        now = time.monotonic()
        if self._signal is None:
            self._signal, self._since = number, now
        elif now - self._since > ECHO:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def say(line, stream=None):
    """Prints a line, or nothing from now on where nobody reads any more.

    As when Ctrl-C has ended what is behind the pipe of `| tee` too, or the terminal of a training in the background has gone.
    """
    stream = stream or sys.stdout
    try:
        print(line, file=stream, flush=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        silence(stream)


def silence(stream):
    """Has what is still to be written to a stream, its buffer's content too, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
