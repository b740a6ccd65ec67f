"""The Makefile with programs in place of Python that only note what they were called with."""

import os
import shutil
import subprocess

import pytest

from processes import ROOT

NOTE = """#!/bin/sh
echo begin "$#" "$@" >>"$NOTES"
sleep 0.05
echo end >>"$NOTES"
case "$*" in *"$FAILING"*) exit 1; esac
"""


@pytest.fixture
def make(tmp_path):
    """Returns `make(arguments…, failing=…)`: its exit code, and the lines that the programs have noted."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-bench.txt"):
        (tmp_path / name).touch()  # before what is made of them, or make would install it
    for environment, installed in ((".venv", ("installed", "installed-dev")), (".venv-torch", ("installed",))):
        (tmp_path / environment / "bin").mkdir(parents=True)
        program = tmp_path / environment / "bin" / "python"
        program.write_text(NOTE)
        program.chmod(0o755)
        for name in installed:
            (tmp_path / environment / name).touch()

    def run(*arguments, failing="nothing"):
        notes = tmp_path / "notes"
        outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        environment = outer | {"NOTES": str(notes), "FAILING": failing}
        done = subprocess.run(["make", *arguments], cwd=tmp_path, env=environment, capture_output=True)
        assert not (tmp_path / ".venv" / "bin" / "pip").exists()
        return done.returncode, notes.read_text().splitlines()

    return run


def test_all_that_a_gpu_is_to_do_comes_one_after_the_other(make):
    code, notes = make("-j4", "gpu", "SEEDS=3")
    assert code == 0
    begun, ended = notes[::2], notes[1::2]
    assert all(note.startswith("begin") for note in begun) and set(ended) == {"end"}
    wanted = ("-c", "pytest", "-c", "train_step", "=small", "=medium", "=large", "reproduce.py --model=large --seeds=3")
    assert [part in note for part, note in zip(wanted, begun, strict=True)] == [True] * len(wanted)


def test_what_fails_is_the_last_that_is_done(make):
    code, notes = make("gpu", failing="phases --model=small")
    assert code != 0
    assert "phases --model=small" in notes[-2]


def test_a_path_may_have_a_space(make):
    code, notes = make("reproduce-medium", "DATA=my corpus/data")
    assert (code, notes[0]) == (0, "begin 5 reproduce.py --model=medium --seeds=1 --precision=auto --data_path=my corpus/data")
