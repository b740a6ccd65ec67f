"""Signals to a real process that stops on request, and printing to streams that nobody reads."""

import os
import pty
import signal
import time

import pytest

from helpers import processes
from ptb.runtime.signals import print_line

PROGRAM = """
import time
from ptb.runtime import signals
signals.ECHO = {echo}
with signals.StopRequest("resume") as stop:
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
        if stop.requested() and {obeys}:
            stop.exit()
        if stop.requested():
            print("requested", flush=True)
"""


def start(folder, obeys, echo=1.0):
    """Start the program in a process; return the process when it is ready."""
    (folder / "program.py").write_text(PROGRAM.format(obeys=obeys, echo=echo))
    process = processes.start(folder / "program.py", folder=folder)
    wait_for("ready", process, folder)
    return process


def wait_for(line, process, folder):
    printed = folder / "stdout"
    processes.wait_for(lambda: printed.exists() and line in printed.read_text().splitlines(), process)


@pytest.mark.parametrize(("number", "exit_code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")])
def test_the_first_signal_is_a_request_to_stop(number, exit_code, name, tmp_path):
    process = start(tmp_path, obeys=True)
    os.kill(process.pid, number)
    process.join(60)
    message = (tmp_path / "stderr").read_text()
    assert name in message
    assert message.endswith("; resume\n")
    assert process.exitcode == exit_code


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_ends_the_process_at_once(first, second, tmp_path):
    process = start(tmp_path, obeys=False, echo=0.1)
    os.kill(process.pid, first)
    wait_for("requested", process, tmp_path)
    time.sleep(0.2)
    os.kill(process.pid, second)
    process.join(60)
    assert process.exitcode == -second


def test_an_echo_of_the_first_signal_does_not(tmp_path):
    """A terminal or `kill` may signal a whole process group, in which one process, such as make, passes the signal on."""
    process = start(tmp_path, obeys=False, echo=60)
    os.kill(process.pid, signal.SIGINT)
    wait_for("requested", process, tmp_path)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.5)
    assert process.is_alive()


def test_printing_to_a_closed_terminal_or_pipe_is_no_error():
    for read, write in (pty.openpty(), os.pipe()):
        os.close(read)
        with os.fdopen(write, "w") as stream:
            print_line("one", stream)
            print_line("two", stream)
    with pytest.raises(OSError), open("/dev/full", "w", buffering=1) as stream:
        print_line("one", stream)
