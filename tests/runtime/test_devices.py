"""Choice of kernel and precision, for the devices of other machines."""

import os
import pathlib
import subprocess

import pytest
import tensorflow as tf

from ptb.runtime import devices

GPU = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]


def set_compute_capability(monkeypatch, capability):
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": capability})


def test_machine_names_the_processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    assert devices.machine()["cpu"].startswith(names[0] if names else os.uname().machine)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_machine_counts_the_cores_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert devices.machine()["cores"] == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_auto_takes_cudnn_on_a_gpu_if_it_can_run_the_layer():
    assert devices.choose_kernel("auto", GPU) == devices.choose_kernel("cudnn", GPU) == "cudnn"
    assert devices.choose_kernel("auto", []) == "stepwise"
    assert devices.choose_kernel("auto", GPU, state_dropout=True) == "stepwise"
    with pytest.raises(devices.DeviceError, match="--rnn_mode=cudnn: cannot drop the recurrent state"):
        devices.choose_kernel("cudnn", GPU, state_dropout=True)


@pytest.mark.parametrize("gpus", [[], GPU])
def test_a_kernel_can_be_chosen_by_name(gpus):
    assert devices.choose_kernel("stepwise", gpus) == "stepwise"


@pytest.mark.parametrize("gpus", [[], GPU])
@pytest.mark.parametrize("cell", ["gru", "capped_lstm"])
def test_other_cells_than_the_lstm_have_the_stepwise_kernel_only(cell, gpus):
    assert devices.choose_kernel("auto", gpus, cell) == devices.choose_kernel("stepwise", gpus, cell) == "stepwise"
    with pytest.raises(devices.DeviceError, match=f"--rnn_mode=cudnn.*{cell}"):
        devices.choose_kernel("cudnn", gpus, cell)


def test_cudnn_and_tf32_need_a_gpu():
    with pytest.raises(devices.DeviceError, match="--rnn_mode=cudnn"):
        devices.choose_kernel("cudnn", [])
    with pytest.raises(devices.DeviceError, match="--precision=tf32"):
        devices.choose_precision("tf32", [])


@pytest.mark.parametrize("gpus", [[], GPU])
def test_an_unknown_kernel_is_not_blamed_on_the_machine(gpus):
    with pytest.raises(devices.DeviceError, match="Fused: is unknown; use one of auto, stepwise, cudnn"):
        devices.choose_kernel("Fused", gpus)


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu avx2 fma", "float32"),
        ("avx512f avx512_bf16", "bfloat16"),
        ("amx_tile amx_bf16", "bfloat16"),
        ("", "float32"),
    ],
)
def test_auto_precision_depends_on_the_processors_flags(flags, precision):
    assert devices.choose_precision("auto", [], cpu_flags=flags) == precision


@pytest.mark.parametrize(("flags", "warnings"), [("fpu avx2 fma", 1), ("amx_tile amx_bf16", 0)])
def test_bfloat16_without_a_unit_for_it_gives_a_warning(flags, warnings, caplog):
    assert devices.choose_precision("bfloat16", [], cpu_flags=flags) == "bfloat16"
    assert sum("--precision=bfloat16" in record.message for record in caplog.records) == warnings


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "float32"), ((8, 0), "tf32"), ((9, 0), "tf32")])
def test_auto_precision_depends_on_the_gpu(capability, precision, monkeypatch):
    set_compute_capability(monkeypatch, capability)
    assert devices.choose_precision("auto", GPU) == precision


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_tf32_and_bfloat16_need_a_gpu_that_has_them(precision, monkeypatch):
    set_compute_capability(monkeypatch, (7, 5))
    with pytest.raises(devices.DeviceError, match=f"--precision={precision}"):
        devices.choose_precision(precision, GPU)
    set_compute_capability(monkeypatch, (8, 0))
    assert devices.choose_precision(precision, GPU) == precision


def test_use_precision_returns_the_type_of_products_and_switches_tf32():
    for precision, dtype, tf32 in (
        ("float32", "float32", False),
        ("tf32", "float32", True),
        ("bfloat16", "bfloat16", True),
    ):
        assert devices.use_precision(precision) == dtype
        assert tf.config.experimental.tensor_float_32_execution_enabled() == tf32
    devices.use_precision("float32")


def test_the_revision_has_a_plus_if_the_program_differs_from_it_not_if_its_records_do(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert devices.git_revision(tmp_path) is None
    git("init")
    for name in ("train.py", "ptb/model.py", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one")
    git("add", ".")
    git("commit", "--message=Begin")
    revision = git("rev-parse", "--short=12", "HEAD")
    assert devices.git_revision(tmp_path) == revision
    (tmp_path / "README.md").write_text("two")
    assert devices.git_revision(tmp_path) == revision
    (tmp_path / "ptb" / "model.py").write_text("two")
    (tmp_path / "benchmarks").mkdir()
    assert devices.git_revision(tmp_path / "benchmarks") == f"{revision}+"  # from any folder of the checkout
    assert devices.git_revision(tmp_path) == revision + "+"
