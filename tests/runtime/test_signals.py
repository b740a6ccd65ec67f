"""Signals to a real process that stops on request, and printing to streams that nobody reads."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

import pytest

from helpers import processes
from ptb.runtime.signals import ended_by_ctrl_c, print_line

PROGRAM = """
import select, time
from ptb.runtime import signals
signals.ECHO = {echo}
def nobody_reads():
    poll = select.poll()
    poll.register(2, 0)  # no events but POLLERR, which the writing end of a pipe has when its reader is gone
    return bool(poll.poll(0))
with signals.StopRequest("resume") as stop:
    signals.print_line("ready")  # print would fail if its reader ended at the same time
    while True:
        time.sleep(0.01)
        if stop.requested() and {obeys}:
            stop.exit()
        if stop.requested():
            signals.print_line("requested")
"""


def start(folder, obeys, echo=1.0, before=None):
    """Start the program in a process, after calling `before` there; return the process when it is ready."""
    (folder / "program.py").write_text(PROGRAM.format(obeys=obeys, echo=echo))
    process = processes.start(folder / "program.py", folder=folder, before=before)
    wait_for("ready", process, folder)
    return process


def wait_for(line, process, folder):
    printed = folder / "stdout"
    processes.wait_for(lambda: printed.exists() and line in printed.read_text().splitlines(), process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_is_a_request_to_stop(number, tmp_path):
    process = start(tmp_path, obeys=True)
    os.kill(process.pid, number)
    process.join(60)
    at_once, at_the_end = (tmp_path / "stderr").read_text().splitlines()
    assert number.name in at_once and "saving" in at_once
    assert number.name in at_the_end and at_the_end.endswith("; resume")
    assert process.exitcode == 128 + number


def test_a_process_of_nohup_survives_its_terminal(tmp_path):
    process = start(tmp_path, obeys=True, before=ignore_sighup)
    os.kill(process.pid, signal.SIGHUP)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM
    assert "SIGHUP" not in (tmp_path / "stderr").read_text()


def ignore_sighup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


# The process to which a terminal belongs. It stays until the terminal is closed: when it ends, what nobody has read is lost.
LEADER = """
import signal, subprocess, sys
subprocess.run(["bash", "-c", sys.argv[1]])
print("ended", flush=True)
signal.pause()
"""


def test_the_message_reaches_the_terminal_also_if_ctrl_c_ends_tee(tmp_path):
    """As in `train.py 2>&1 | tee log` on a terminal, whose Ctrl-C goes to both."""
    (tmp_path / "program.py").write_text(PROGRAM.format(obeys="nobody_reads()", echo=1.0))
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = str(processes.ROOT)
        command = f"set -m; {sys.executable} {tmp_path / 'program.py'} 2>&1 | tee {tmp_path / 'log'}"  # in a group of its own
        os.execv(sys.executable, [sys.executable, "-c", LEADER, command])
    shown = b""

    def read_until(text):
        nonlocal shown
        while text not in shown:
            assert select.select([terminal], [], [], 60)[0], shown
            shown += os.read(terminal, 1000)

    read_until(b"ready")
    attributes = termios.tcgetattr(terminal)
    attributes[3] |= termios.NOFLSH  # otherwise Ctrl-C may discard what is written just after it
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    os.write(terminal, b"\x03")
    read_until(b"Stopped by SIGINT; resume")
    read_until(b"ended")
    os.close(terminal)
    os.waitpid(pid, 0)
    assert b"Traceback" not in shown


def test_ctrl_c_while_importing_ends_the_process_silently(tmp_path):
    program = "import os, signal\nfrom ptb.runtime.signals import ended_by_ctrl_c\nwith ended_by_ctrl_c():\n    "
    command = [sys.executable, "-c", program + "os.kill(os.getpid(), signal.SIGINT)"]
    done = subprocess.run(command, cwd=processes.ROOT, capture_output=True, preexec_fn=handle_sigint)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def handle_sigint():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell ignores it for tests in the background


def test_ctrl_c_is_as_before_after_the_imports_and_in_a_notebook(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ended_by_ctrl_c():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        monkeypatch.setattr(sys, "ps1", "In: ", raising=False)
        with ended_by_ctrl_c(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


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
