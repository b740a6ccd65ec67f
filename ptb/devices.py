"""Which kernel and which precision a machine gets. Asked for by name, or by "auto"; what cannot be had is an error."""

import contextlib
import logging
import os
import pathlib
import platform
import re

import keras
import numpy as np
import tensorflow as tf

RNN_MODES = ("auto", "basic", "fused", "cudnn")
PRECISIONS = ("auto", "float32", "tf32", "bfloat16")
OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)  # what Python raises, and TensorFlow on any device

logger = logging.getLogger(__name__)


class DeviceError(Exception):
    """What was asked of the devices that they cannot give: a kernel, a precision, a share of the batch, other workers."""


def versions():
    """Returns the version of each program that computes, by its name."""
    return {"python": platform.python_version()} | {package.__name__: package.__version__ for package in (tf, keras, np)}


def machine():
    """Returns the processor, how many cores of it this process may use, and the first GPU or None, by name."""
    gpus = tf.config.list_physical_devices("GPU")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": tf.config.experimental.get_device_details(gpus[0]).get("device_name") if gpus else None,
    }


def _cpu_model():
    """Returns the processor's name and those of its instruction sets that matrix products are made of."""
    text = _cpuinfo()
    name = re.search(r"^model name\s*:\s*(.*)", text, re.MULTILINE)
    sets = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if re.search(rf"\b{flag}\b", text)]
    return " ".join([name[1] if name else platform.machine(), *sets])


def _cpuinfo():
    """Returns what Linux says of the processor, nothing elsewhere."""
    try:
        return pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def visible_gpus():
    """Returns the GPUs that TensorFlow can use, and lets it take their memory bit by bit rather than all at once."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # it is in use, and stays as it is
            tf.config.experimental.set_memory_growth(gpu, True)
    return gpus


def on_host():
    """Returns the scope for what is made of words and seeds alone, which a step gets from the host.

    TensorFlow has some of the operations on int32 for the GPU and does the others on the host in any case. Of a chain of both,
    each step would wait for the GPU to hand back what it was given.
    """
    return tf.device("CPU:0")


def choose_kernel(rnn_mode, gpus, cell="lstm"):
    """Returns which of `ptb.kernels` to use: the one asked for, or for the LSTM cuDNN's on a GPU, the fused one elsewhere.

    DeviceError where the cell or the device has not the one asked for.
    """
    if cell != "lstm":
        if rnn_mode not in ("auto", "basic"):
            raise DeviceError(f"--rnn_mode={rnn_mode}: is for the cell lstm, and this model's is {cell}; use auto or basic")
        return "basic"
    if rnn_mode == "auto":
        return "cudnn" if gpus else "fused"
    if rnn_mode == "cudnn" and not gpus:
        raise DeviceError("--rnn_mode=cudnn: TensorFlow sees no GPU here; use --rnn_mode=fused, or auto")
    return rnn_mode


def choose_precision(precision, gpus, cpu_flags=None):
    """Returns the name of the precision of matrix products, never "auto".

    float32: as the name says. tf32: NVIDIA's, whose matrix units round the factors to 10 bits of mantissa. bfloat16: factors
    and product have 7 bits, but not the sums in between; TF32 in cuDNN's kernel, which TensorFlow has no bfloat16 for. On a
    processor that has no unit for bfloat16 TensorFlow cuts the product's other bits off, where hardware and XLA round it: every
    product is 0.3% too small. Weights, state and everything elementwise are float32 in all. DeviceError for tf32
    without a GPU, and for tf32 or bfloat16 on a GPU that has neither; a processor without a unit for bfloat16 gets a warning.
    `cpu_flags` are the processor's, by default those of /proc/cpuinfo.
    """
    has_tf32 = bool(gpus) and _compute_capability(gpus[0]) >= (8, 0)  # and bfloat16 too
    if precision == "auto":
        if gpus:
            return "tf32" if has_tf32 else "float32"
        return "bfloat16" if _has_bfloat16(cpu_flags) else "float32"
    if precision == "tf32" and not gpus:
        raise DeviceError("--precision=tf32: TensorFlow sees no GPU here; use --precision=float32, or auto")
    if precision in ("tf32", "bfloat16") and gpus and not has_tf32:
        raise DeviceError(
            f"--precision={precision}: needs a GPU of compute capability 8.0 or more; use --precision=float32, or auto"
        )
    if precision == "bfloat16" and not gpus and not _has_bfloat16(cpu_flags):
        logger.warning("--precision=bfloat16: this processor has neither AMX nor AVX512-BF16; float32 would be faster")
    return precision


def use_precision(precision):
    """Switches TF32 on or off in all of TensorFlow. Returns the type of matrix products and of their factors."""
    tf.config.experimental.enable_tensor_float_32_execution(precision != "float32")
    return "bfloat16" if precision == "bfloat16" else "float32"


def _compute_capability(gpu):
    return tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))


def _has_bfloat16(cpu_flags):
    """Returns whether the processor multiplies matrices in bfloat16 (AMX or AVX-512), by the flags that Linux lists."""
    if cpu_flags is None:
        cpu_flags = _cpuinfo()
    return "amx_bf16" in cpu_flags or "avx512_bf16" in cpu_flags
