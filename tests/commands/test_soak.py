"""`make soak` in short: what it checks on the way, and what it prints at the end."""

import re
import subprocess
import sys

import pytest

from helpers.processes import ON_THE_CPU, ROOT


@pytest.mark.slow
def test_in_short(tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    for name in ("installed", "installed-dev"):
        (tmp_path / name).touch()  # there is nothing to install
    command = ["make", "soak", f"VENV={tmp_path}", "KILLS=2", "STEPS=500"]
    process = subprocess.run(command, cwd=ROOT, env=ON_THE_CPU, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    assert re.search("^2 kills survived in ", process.stdout, re.MULTILINE)
    assert re.search("^step    500 .*\nsteady$", process.stdout, re.MULTILINE)
