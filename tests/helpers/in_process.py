"""Run commands in the test's own process, which costs no seconds for a new one."""

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys

from helpers.processes import ROOT

SIGNALS = (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM)


def call(script, *arguments, cwd=ROOT, stdin="", encoding="utf-8"):
    """Run `python script arguments...` to its end. Return a CompletedProcess with text.

    `stdin` is text or bytes, or None if standard input is closed; `encoding` is that of the terminal.
    """
    command = [script, *map(str, arguments)]
    source = None if stdin is None else _stream(stdin if isinstance(stdin, bytes) else stdin.encode(), encoding)
    out, err = _stream(b"", encoding), _stream(b"", encoding)
    with _restored(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv, sys.stdin = command, source
        os.chdir(cwd)
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
            code = 0
        except SystemExit as exit:
            code = exit.code or 0
    return subprocess.CompletedProcess(command, code, *(stream.buffer.getvalue().decode(encoding) for stream in (out, err)))


def succeed(script, *arguments, **options):
    """Run a command that must end with exit code 0."""
    done = call(script, *arguments, **options)
    assert done.returncode == 0, done.stderr
    return done


def _stream(content, encoding):
    return io.TextIOWrapper(io.BytesIO(content), encoding, newline="", write_through=True)


@contextlib.contextmanager
def _restored():
    """Restore arguments, standard input and folder. What signals do, a command must restore itself."""
    before = sys.argv, sys.stdin, os.getcwd()
    handlers = [signal.getsignal(number) for number in SIGNALS]
    try:
        yield
    finally:
        sys.argv, sys.stdin, folder = before
        os.chdir(folder)
        left = [signal.getsignal(number) for number in SIGNALS]
        for number, handler in zip(SIGNALS, handlers):
            signal.signal(number, handler)
    assert left == handlers
