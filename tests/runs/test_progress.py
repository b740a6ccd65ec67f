"""Progress: what the live line says at any width, how it is drawn on a terminal, and the times that are predicted."""

import fcntl
import functools
import math
import os
import pty
import re
import struct
import sys
import termios

import pytest
from rich.console import Console

import train
from configs import TEST
from helpers import processes
from helpers.training_runs import begin
from ptb.config import override
from ptb.runs.folder import RunFolder
from ptb.runs.liveline import Facts, duration, layout

FACTS = Facts(3, 39, 0.42, 98.123, 12345.6, "word", 80.4, 4810.0, 97.12)
LONGEST = Facts(39, 39, 0.998, 139.123, 123456.7, "word", 3599.0, 92_345.0, 137.12)  # of any medium


def shown(facts, width):
    console = Console(width=width + 10, color_system=None)
    with console.capture() as capture:
        console.print(layout(facts, width))
    (line,) = capture.get().splitlines()
    return line.rstrip()


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (120, "epoch 3 of 39 BAR 42%  perplexity 98.12  12,346 words/s  left: epoch 1:20, run 1:20:10  best valid 97.12"),
        (77, "epoch 3/39 BAR 42% perplexity 98.1 12,346 wps left 1:20/1:20:10 best 97.1"),
        (60, "epoch 3/39 BAR 42% perplexity 98.1 left 1:20:10"),
        (20, "epoch 3/39 42%"),
        (8, "epoch 3/"),
    ],
)
def test_the_line_says_what_there_is_room_for(width, line):
    drawn = shown(FACTS, width)
    assert len(drawn) <= width
    assert re.sub("[━╸╺]+ *", "BAR ", drawn)  # the rest of the bar has colours only


def test_80_columns_have_room_for_everything_but_the_bar():
    line = "epoch 39/39 100% perplexity 139.1 123,457 wps left 59:59/25:39:05 best 137.1"
    assert shown(LONGEST, 77) == line


def test_it_says_that_it_validates():
    for width in (60, 77, 120):
        line = shown(FACTS._replace(note="validating", best_valid=None), width)
        assert "validating" in line and "1:20" not in line


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (90_061, "25:01:01")])
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("changes", [{}, {"averaging": "two_tailed"}, {"validate_every": 10}])
def test_the_time_left_is_that_of_steps_and_validations_without_the_first_step(
    changes, random_corpus, tmp_path, clock, monkeypatch, capsys
):
    """By a clock that moves 500 seconds in the first step, 2 in any other and 60 in a score of valid; three epochs.

    A validation scores valid once, and twice with two averages, which are the same in the first epoch.
    """
    make_train_step, score, left = train.make_train_step, train.score, []

    def make_slow_step(*arguments):
        step, durations = make_train_step(*arguments), iter([500])

        def slow_step(*arguments):
            clock[0] += next(durations, 2)
            return step(*arguments)

        return slow_step

    def slow_score(*arguments):
        clock[0] += 60
        return score(*arguments)

    class RecordedLine:
        def draw(self, facts):
            if not facts.note:
                left.append((facts.epoch_seconds, facts.run_seconds))

        def stop(self):
            pass

    monkeypatch.setattr("ptb.runs.progress.LiveLine", RecordedLine)
    monkeypatch.setattr(train, "make_train_step", make_slow_step)
    monkeypatch.setattr(train, "score", slow_score)
    config = override(TEST, {"num_epochs": 3} | changes)
    begin(config, random_corpus, tmp_path, live=True)
    count = len(train.make_windows(random_corpus, config)[0])
    assert len(left) == 3 * count > 30
    assert left[1] == (2 * (count - 2), 2 * (count - 2) + 2 * 2 * count)  # before the first validation
    every, steps = changes.get("validate_every"), range(count + 3, 2 * count)  # those before the last of the second epoch
    second = 60 * (1 + (sum(step % every == 0 for step in steps) if every else 0))
    third = 60 * (1 + (count / every - math.gcd(count, every) / every if every else 0))  # the mean of all epochs
    assert left[count + 1] == pytest.approx((2 * (count - 2) + second, 2 * (count - 2) + second + 2 * count + third))
    seconds = [epoch["seconds"] for epoch in RunFolder(tmp_path).history]  # of steps alone
    assert seconds == pytest.approx([500 + 2 * (count - 1), 2 * count, 2 * count])
    last = 120 if "averaging" in changes else 60
    assert left[-1] == (last, last)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Expected end")]
    assert ("0:01:" in line) == ("validate_every" not in changes)  # which validates before the end is predicted


def test_a_run_without_an_end_in_sight_is_trained(random_corpus, tmp_path, capsys):
    """It ends with the first validation that is no better."""
    config = override(TEST, {"num_epochs": 10**15, "patience": 1, "learning_rate": 1e-9})
    begin(config, random_corpus, tmp_path)
    assert "Expected end: after the year 9999" in capsys.readouterr().out


def write_to(terminal):
    """Make a terminal the standard output and the standard error of this process."""
    os.environ["TERM"] = "xterm-256color"
    sys.stdout, sys.stderr = open(terminal, "w"), open(terminal, "w")  # noqa: SIM115 -- open until the process ends


@pytest.mark.parametrize("progress", ["auto", "plain"])
def test_a_terminal_gets_a_live_line_unless_it_is_told_otherwise(tiny_corpus, tmp_path, progress):
    """In a pseudo-terminal of 80 columns."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    arguments = ["--model=test", f"--data_path={tiny_corpus}", f"--save_path={tmp_path / 'run'}", f"--progress={progress}"]
    before = functools.partial(write_to, os.ttyname(there))
    process = processes.start("train.py", *arguments, folder=tmp_path, before=before)
    process.join(120)
    written = os.read(here, 1_000_000)
    os.close(here), os.close(there)
    assert process.exitcode == 0, written
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written.decode())
    for line in ("Model: test", "Epoch: 1 Learning rate: 1.000", "Epoch: 1 Valid Perplexity:", "Test Perplexity:"):
        assert line in text
    is_live = progress == "auto"
    assert ("epoch 1/1" in text) is is_live
    assert ("speed:" in text) is not is_live
    assert b"\x1b[?25l" not in written or b"\x1b[?25h" in written  # a hidden cursor is shown again
