"""The benchmarks on tiny shapes, and their arithmetic by hand. No test depends on how fast anything is."""

import json
import math
import subprocess
import sys

import pytest
from absl import flags

from benchmarks import techniques
from benchmarks.phases import derive_phases
from benchmarks.tables import summarise
from benchmarks.train_step import choose
from benchmarks.worker import Worker, WorkerError
from benchmarks.workload import MODELS, Workload
from configs import LARGE, MEDIUM, SMALL, find_config
from helpers import processes
from ptb.config import differences, override


def benchmark(module, *arguments):
    return processes.succeed(f"benchmarks/{module}.py", *arguments)


def entry(name, precision, step_seconds, **more):
    return {"name": name, "precision": precision, "step_seconds": step_seconds, "error": None, **more}


PEERS = ["keras", "keras_unrolled_no_xla", "tutorial"]  # not block_lstm, whose loss was once not finite


@pytest.mark.slow
def test_train_step_records_each_contestant_in_each_round(tmp_path):
    path = tmp_path / "record.json"
    # /bin/false as PyTorch's Python ends at once: that peer is reported as failed, and the others continue.
    process = benchmark("train_step", "--models=test", "--vocab_size=20", f"--peers={','.join([*PEERS, 'pytorch'])}",
                        "--precisions=float32", "--rounds=2", "--turn_seconds=0.01", "--torch_python=/bin/false",
                        f"--json={path}")  # fmt: skip
    record = json.loads(path.read_text())
    assert record["machine"]["cores"] >= 1
    contestants = {contestant["name"]: contestant for contestant in record["models"]["test"]["contestants"]}
    assert list(contestants) == ["ours", *PEERS, "pytorch"]
    for name in ("ours", *PEERS):
        assert contestants[name]["error"] is None
        assert contestants[name]["loss"] == pytest.approx(2 * math.log(20), rel=0.2)  # num_steps is 2, the words are random
        assert len(contestants[name]["words_per_second"]) == len(contestants[name]["share_of_product_limit"]) == 2
        assert all(0 < share < 1 for share in contestants[name]["share_of_product_limit"])
        assert 50 < contestants[name]["peak_bytes"] / 2**20 < 5000
    assert contestants["pytorch"]["error"]
    assert "pytorch" in process.stdout and "not measured" in process.stdout


def test_worker_with_missing_python():
    with pytest.raises(WorkerError, match="/no/such/python"):
        Worker("/no/such/python", environment={})


def test_unknown_peer_names_the_flag():
    with pytest.raises(flags.Error, match="--peers=theano"):
        choose("peers", ["keras", "theano"], {"keras": 1, "tutorial": 2})
    assert choose("peers", ["tutorial"], {"keras": 1, "tutorial": 2}) == {"tutorial": 2}
    assert choose("peers", None, {"keras": 1, "tutorial": 2}) == {"keras": 1, "tutorial": 2}


@pytest.mark.parametrize("model", MODELS)
def test_workload_has_all_that_a_step_depends_on(model):
    config = find_config(model)
    assert differences(Workload.of(config, 10_000).config, config).keys() <= {
        "schedule.full_rate_epochs",
        "schedule.factor",
        "num_epochs",
    }


@pytest.mark.parametrize("change", [{"layers": (200, 300)}, {"dropout.output": 0.5}])
def test_workload_of_a_configuration_that_peers_do_not_have(change):
    with pytest.raises(ValueError):
        Workload.of(override(SMALL, change), 10_000)


def test_workers_of_other_libraries_import_neither_tensorflow_nor_absl():
    program = "import sys, benchmarks.worker; print({'tensorflow', 'keras', 'absl'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", program], cwd=processes.ROOT, capture_output=True, text=True)
    assert process.stdout == "set()\n", process.stderr


def test_arithmetic_of_a_step_by_hand():
    # 6 × multiply-adds × words: two layers of [x, h] times 400 × 800, the softmax's 200 × 10,000; 20 × 20 words
    assert Workload.of(SMALL, 10_000).flops_per_step == 6 * (2 * 400 * 800 + 200 * 10_000) * 400
    # two layers of 1500 × 6000 recurrent weights of 4 bytes, read 35 times forward and 35 times backward
    assert Workload.of(LARGE, 10_000).recurrent_bytes_per_step(4) == 2 * 1500 * 6000 * 4 * 70


def test_ratios_and_shares_compare_values_of_one_round():
    workload = Workload.of(SMALL, 10_000)
    summary = summarise(workload, [
        entry("product", "float32", [1.0, 2.0], description={"work_per_step": workload.flops_per_step / 10}),
        entry("ours", "float32", [20.0, 40.0]),
        entry("ours", "bfloat16", [10.0, 10.0]),
        entry("pytorch", "float32", [30.0, 80.0]),
        entry("keras", "float32", [100.0, 100.0]),
    ])  # fmt: skip
    ours, _, pytorch, _ = summary["contestants"]
    assert ours["words_per_second"] == [400 / 20, 400 / 40]
    assert ours["share_of_product_limit"] == pytest.approx([0.5, 0.5])
    assert pytorch["ours_over_it"] == [1.5, 2]
    assert summary["over_fastest_float32_peer"] == {"float32": [1.5, 2], "bfloat16": [3, 8]}


@pytest.mark.slow
def test_phases_have_all_the_arithmetic_of_the_step(tmp_path):
    path = tmp_path / "phases.json"
    benchmark("phases", "--model=test", "--vocab_size=20", "--rounds=2", "--turn_seconds=0.01", f"--json={path}")
    phases = {phase["name"]: phase for phase in json.loads(path.read_text())["phases"]}
    parts = [phase for name, phase in phases.items() if name not in ("sum", "whole step")]
    assert sum(phase["flops"] for phase in parts) == phases["whole step"]["flops"]


def test_phases_that_cannot_be_called_alone_are_differences_within_a_round():
    seconds = {
        "embedding": [1, 2], "dropout_after_layer": [3, 3], "input_products": [10, 20], "layer_forward": [30, 50],
        "layer_forward_backward": [100, 200], "gradient_products": [20, 40], "softmax_and_loss": [70, 80],
        "clip_and_update": [5, 6], "whole step": [300, 600],
    }  # fmt: skip
    phases = {phase.name: phase.seconds for phase in derive_phases(Workload.of(MEDIUM, 10_000), seconds)}
    assert phases == {
        "embedding": [1, 2], "dropout after layers": [6, 6], "input products": [20, 40], "recurrence forward": [40, 60],
        "recurrence backward": [100, 220], "weight and input gradients": [40, 80], "softmax and loss": [70, 80],
        "clip and update": [5, 6], "sum": [282, 494], "whole step": [300, 600],
    }  # fmt: skip
    assert derive_phases(Workload.of(SMALL, 10_000), seconds)[1].seconds == [0, 0]  # small has no dropout


@pytest.mark.slow
def test_techniques_records_the_cost_of_each_beside_the_plain_model(tmp_path):
    path = tmp_path / "techniques.json"
    benchmark("techniques", "--layers=3,3", "--batch_size=2", "--rounds=2", "--turn_seconds=0.01", f"--json={path}")
    costs = {cost["name"]: cost for cost in json.loads(path.read_text())["costs"]}
    assert costs.keys() == techniques.TECHNIQUES.keys()
    assert {cost["kernel"] for cost in costs.values()} == {"stepwise"}
    assert costs["plain"]["parameters"] - costs["embedding tied to the softmax"]["parameters"] == 3 * 10_000


@pytest.mark.slow
def test_growth_records_each_size_of_what_grows(tmp_path):
    path = tmp_path / "growth.json"
    benchmark("growth", "--model=test", "--dimension=batch_size", "--rounds=1", "--steps=1", f"--json={path}")
    shapes = json.loads(path.read_text())["shapes"]
    assert [shape["batch_size"] for shape in shapes] == [5, 20, 80, 320]
    for shape in shapes:
        assert shape["words_per_second"] == pytest.approx(2 * shape["batch_size"] / shape["seconds"])
        assert shape["peak_bytes"] > 50 << 20
