"""Signals to a real process that stops on request."""

import signal
import subprocess
import sys

import pytest
from conftest import ROOT

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


def start(heeds):
    command = [sys.executable, "-c", PROGRAM.format(heeds=heeds)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("number", "exit_code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")])
def test_the_first_signal_is_heeded_when_it_suits(number, exit_code, name):
    process = start(heeds=True)
    process.send_signal(number)
    assert process.communicate(timeout=60)[0] == f"Stopped by {name}; resume\n"
    assert process.returncode == exit_code


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_the_second_ends_the_process_at_once(first, second):
    process = start(heeds=False)
    process.send_signal(first)
    assert process.stdout.readline() == "requested\n"
    process.send_signal(second)
    process.communicate(timeout=60)
    assert process.returncode == -second
