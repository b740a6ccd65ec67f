"""The Makefile, with programs in place of Python that only note the arguments they were called with."""

import os
import re
import shutil
import subprocess

import pytest

from fuzz import targets
from helpers.processes import ROOT

NOTE = """#!/bin/sh
echo begin "$#" "$@" >>"$NOTES"
sleep 0.05
echo end >>"$NOTES"
case "$0 $*" in *"$FAILING"*) exit 1; esac
"""


@pytest.fixture
def make(tmp_path):
    """Return `make(arguments…, failing=…)`, which returns its exit code and the lines that the programs noted."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-bench.txt"):
        (tmp_path / name).touch()  # older than the files made from them; otherwise make would install
    for environment, installed in ((".venv", ("installed", "installed-dev")), (".venv-torch", ("installed",))):
        (tmp_path / environment / "bin").mkdir(parents=True)
        for name in ("python", "ruff", "lint-imports"):
            program = tmp_path / environment / "bin" / name
            program.write_text(NOTE)
            program.chmod(0o755)
        for name in installed:
            (tmp_path / environment / name).touch()

    def run(*arguments, failing="nothing"):
        notes = tmp_path / "notes"
        notes.unlink(missing_ok=True)
        outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        environment = outer | {"NOTES": str(notes), "FAILING": failing}
        done = subprocess.run(["make", *arguments], cwd=tmp_path, env=environment, capture_output=True, timeout=60)
        assert not (tmp_path / ".venv" / "bin" / "pip").exists()
        return done.returncode, notes.read_text().splitlines()

    return run


def test_gpu_runs_its_parts_one_after_the_other(make):
    code, notes = make("-j4", "gpu", "SEEDS=3")
    assert code == 0
    begun, ended = notes[::2], notes[1::2]
    assert all(note.startswith("begin") for note in begun) and set(ended) == {"end"}
    wanted = ("-c", "pytest", "-c", "train_step", "=small", "=medium", "=large", "reproduce.py --model=large --seeds=3")
    assert [part in note for part, note in zip(wanted, begun, strict=True)] == [True] * len(wanted)


def test_gpu_stops_at_the_first_failure(make):
    code, notes = make("gpu", failing="phases --model=small")
    assert code != 0
    assert "phases --model=small" in notes[-2]


def test_paths_of_the_gpu_tests_exist(make):
    _, notes = make("test-gpu")
    paths = [word for note in notes for word in note.split() if word.startswith("tests/")]
    assert paths and all((ROOT / path).exists() for path in paths)


@pytest.mark.parametrize("failing", ["ruff check", "ruff format", "lint-imports"])
def test_lint_fails_if_a_check_fails(make, failing):
    assert make("lint")[0] == 0
    assert make("lint", failing=failing)[0] != 0


def test_each_target_runs_its_command(make, tmp_path):
    (tmp_path / "pages").mkdir()  # a target that is a folder too
    for target, command in (
        ("demo", "train.py --model=demo --data_path=demo --save_path=runs/demo"),
        ("pages", "-m pages"),
        ("test", "-m pytest -n"),
        ("test-slow", "-m pytest -m slow -n"),
    ):
        code, notes = make(target)
        assert code == 0
        assert notes[-2].split(maxsplit=2)[2].startswith(command)


def test_everything_that_can_be_fuzzed_is_fuzzed():
    (names,) = re.findall(r"for target in (.*); do .*\n.*fuzz\.run", (ROOT / "Makefile").read_text())
    assert set(names.split()) == set(targets.TARGETS)


def test_paths_may_contain_a_space(make):
    code, notes = make("reproduce-medium", "DATA=my corpus/data")
    assert (code, notes[0]) == (0, "begin 5 reproduce.py --model=medium --seeds=1 --precision=auto --data_path=my corpus/data")
