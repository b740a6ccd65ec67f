"""The choice of kernel and precision, against lists of devices as other machines have them."""

import os
import pathlib

import pytest
import tensorflow as tf

from ptb import devices

GPU = [tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")]


def test_the_machine_is_named():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    assert devices.machine()["cpu"].startswith(names[0] if names else os.uname().machine)
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert devices.machine()["cores"] == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_auto_takes_cudnn_where_there_is_a_gpu_and_the_fused_kernel_elsewhere():
    assert devices.choose_kernel("auto", GPU) == "cudnn"
    assert devices.choose_kernel("auto", []) == "fused"


@pytest.mark.parametrize("gpus", [[], GPU])
@pytest.mark.parametrize("name", ["basic", "fused"])
def test_a_kernel_asked_for_by_name_is_the_one(name, gpus):
    assert devices.choose_kernel(name, gpus) == name


def test_what_needs_a_gpu_is_an_error_without_one():
    with pytest.raises(devices.DeviceError, match="--rnn_mode=cudnn: TensorFlow sees no GPU"):
        devices.choose_kernel("cudnn", [])
    with pytest.raises(devices.DeviceError, match="--precision=tf32: TensorFlow sees no GPU"):
        devices.choose_precision("tf32", [])


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu avx2 fma", "float32"),
        ("avx512f avx512_bf16", "bfloat16"),
        ("amx_tile amx_bf16", "bfloat16"),
        ("", "float32"),
    ],
)
def test_auto_precision_follows_the_processors_flags(flags, precision):
    assert devices.choose_precision("auto", [], cpu_flags=flags) == precision


@pytest.mark.parametrize(("flags", "warnings"), [("fpu avx2 fma", 1), ("amx_tile amx_bf16", 0)])
def test_bfloat16_where_it_is_slow_is_had_with_a_warning(flags, warnings, caplog):
    assert devices.choose_precision("bfloat16", [], cpu_flags=flags) == "bfloat16"
    assert sum("neither AMX nor AVX512-BF16" in record.message for record in caplog.records) == warnings


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "float32"), ((8, 0), "tf32"), ((9, 0), "tf32")])
def test_auto_precision_follows_the_gpu(capability, precision, monkeypatch):
    monkeypatch.setattr(devices, "_compute_capability", lambda gpu: capability)
    assert devices.choose_precision("auto", GPU) == precision


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_what_an_old_gpu_lacks_is_an_error(precision, monkeypatch):
    monkeypatch.setattr(devices, "_compute_capability", lambda gpu: (7, 5))
    with pytest.raises(devices.DeviceError, match=f"--precision={precision}: needs a GPU of compute capability 8.0"):
        devices.choose_precision(precision, GPU)
    monkeypatch.setattr(devices, "_compute_capability", lambda gpu: (8, 0))
    assert devices.choose_precision(precision, GPU) == precision


def test_the_type_of_products_and_the_tf32_switch():
    for precision, dtype, tf32 in (
        ("float32", "float32", False),
        ("tf32", "float32", True),
        ("bfloat16", "bfloat16", True),
    ):
        assert devices.use_precision(precision) == dtype
        assert tf.config.experimental.tensor_float_32_execution_enabled() == tf32
    devices.use_precision("float32")
