"""Signals to a real process that stops on request."""

import os
import signal
import time

import pytest

import processes
from ptb.signals import ECHO

PROGRAM = """
import time
from ptb.signals import StopRequest
with StopRequest("resume") as stop:
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
        if stop.requested and {heeds}:
            stop.exit()
        if stop.requested:
            print("requested", flush=True)
"""


def start(folder, heeds):
    """Starts the program in a process, and returns that when it is ready."""
    (folder / "program.py").write_text(PROGRAM.format(heeds=heeds))
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
    assert (tmp_path / "stdout").read_text() == f"ready\nStopped by {name}; resume\n"
    assert process.exitcode == exit_code


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_one_ends_the_process_at_once_but_not_the_echo_of_the_first(first, second, tmp_path):
    """As when a terminal or `kill` reaches a group of processes of which one, such as make, passes on what it gets."""
    process = start(tmp_path, heeds=False)
    os.kill(process.pid, first)
    wait_for("requested", process, tmp_path)
    os.kill(process.pid, second)
    time.sleep(ECHO + 0.1)
    assert process.is_alive()
    os.kill(process.pid, second)
    process.join(60)
    assert process.exitcode == -second
