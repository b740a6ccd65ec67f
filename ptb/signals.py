"""Stopping on request: the step in hand is finished and a checkpoint written before the process goes."""

import signal
import sys

EXIT_CODES = {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: 128 + signal.SIGINT}


class StopRequest:
    """Inside a `with`, SIGTERM and Ctrl-C become a request for the training loop to read; a second one ends the process."""

    def __init__(self, hint):
        self.requested = False
        self.hint = hint
        self._signal = None
        self._previous = {}

    def __enter__(self):
        self._previous = {number: signal.signal(number, self._request) for number in EXIT_CODES}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def exit_if_requested(self):
        """Exits with 143 after SIGTERM, 130 after Ctrl-C, and says how to go on. To be called when all is saved."""
        if self.requested:
            print(f"Stopped by {signal.Signals(self._signal).name}; {self.hint}", flush=True)
            sys.exit(EXIT_CODES[self._signal])

    def watch(self, windows):
        """Yields the windows, and exits between two of them as above: for a long piece of work that changes nothing."""
        for window in windows:
            self.exit_if_requested()
            yield window

    def _request(self, number, _):
        self.requested, self._signal = True, number
        for other in EXIT_CODES:
            signal.signal(other, signal.SIG_DFL)
