"""Signals to a real process that stops on request."""

import os
import pty
import signal
import time

import pytest

import processes
from ptb.signals import say

PROGRAM = """
import time
from ptb import signals
signals.ECHO = {echo}
with signals.StopRequest("resume") as stop:
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
        if stop.requested() and {heeds}:
            stop.exit()
        if stop.requested():
            print("requested", flush=True)
"""


def start(folder, heeds, echo=1.0):
    """Starts the program in a process, and returns that when it is ready."""
    (folder / "program.py").write_text(PROGRAM.format(heeds=heeds, echo=echo))
    process = processes.start(folder / "program.py", folder=folder)
    wait_for("ready", process, folder)
    return process


def wait_for(line, process, folder):
    printed = folder / "stdout"
    processes.wait_for(lambda: printed.exists() and line in printed.read_text().splitlines(), process)


@pytest.mark.parametrize(("number", "exit_code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")])
def test_the_first_signal_is_heeded_when_it_suits(number, exit_code, name, tmp_path):
    process = start(tmp_path, heeds=True)
    os.kill(process.pid, number)
    process.join(60)
    assert (tmp_path / "stderr").read_text() == f"Stopped by {name}; resume\n"
    assert process.exitcode == exit_code


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_one_ends_the_process_at_once(first, second, tmp_path):
    process = start(tmp_path, heeds=False, echo=0.1)
    os.kill(process.pid, first)
    wait_for("requested", process, tmp_path)
    time.sleep(0.2)
    os.kill(process.pid, second)
    process.join(60)
    assert process.exitcode == -second


def test_an_echo_of_the_first_does_not(tmp_path):
    """As when a terminal or `kill` reaches a group of processes of which one, such as make, passes on what it gets."""
    process = start(tmp_path, heeds=False, echo=60)
    os.kill(process.pid, signal.SIGINT)
    wait_for("requested", process, tmp_path)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.5)
    assert process.is_alive()


def test_a_terminal_that_has_gone_and_a_pipe_that_nobody_reads_are_printed_to_in_vain():
    for read, write in (pty.openpty(), os.pipe()):
        os.close(read)
        with os.fdopen(write, "w") as stream:
            say("one", stream)
            say("two", stream)
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "w", buffering=1) as stream:
        say("one", stream)
