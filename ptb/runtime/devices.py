"""Choose the kernel and the precision that suit the machine; reject a choice that it does not support."""

import contextlib
import functools
import logging
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Sequence

import numpy as np

from ptb.runtime import environment  # noqa: F401 -- must run before TensorFlow is imported

# isort: split
import keras
import tensorflow as tf

RNN_MODES = ("auto", "stepwise", "cudnn")
PRECISIONS = ("auto", "float32", "tf32", "bfloat16")
OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)  # raised by Python, and by TensorFlow on any device

logger = logging.getLogger(__name__)


class DeviceError(Exception):
    """The devices do not support the requested kernel, precision or distribution."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect the numbers, by name."""
    return {"python": platform.python_version()} | {package.__name__: package.__version__ for package in (tf, keras, np)}


def git_revision(folder: str | os.PathLike) -> str | None:
    """Return the revision of a git checkout, with "+" if its Python files differ from it; None if `folder` is no checkout."""
    git = ["git", "-C", os.fspath(folder)]
    try:
        revision = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":(top)*.py"], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision.strip() + ("+" if changed else "")


def machine() -> dict[str, str | int | None]:
    """Return the processor's name, the number of cores this process may use, and the first GPU's name or None."""
    gpus = tf.config.list_physical_devices("GPU")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": tf.config.experimental.get_device_details(gpus[0]).get("device_name") if gpus else None,
    }


def _cpu_model() -> str:
    """Return the processor's name, followed by the instruction sets that matrix products use."""
    text = _cpuinfo()
    name = re.search(r"^model name\s*:\s*(.*)", text, re.MULTILINE)
    sets = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if re.search(rf"\b{flag}\b", text)]
    return " ".join([name[1] if name else platform.machine(), *sets])


@functools.cache
def has_avx512() -> bool:
    """Whether matrix products on the processor use AVX-512; False where it is not known."""
    return re.search(r"\bavx512f\b", _cpuinfo()) is not None


def _cpuinfo() -> str:
    """Return Linux's description of the processor, or an empty string on other systems."""
    try:
        return pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def visible_gpus() -> list[tf.config.PhysicalDevice]:
    """Return the GPUs that TensorFlow can use. They will allocate memory as needed instead of all of it at once."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # the GPU is in use already; its setting cannot change
            tf.config.experimental.set_memory_growth(gpu, True)
    return gpus


def on_host() -> contextlib.AbstractContextManager:
    """Return a scope that places operations on the CPU: for values computed only from word ids and seeds.

    TensorFlow has GPU kernels for some int32 operations and runs the others on the host. In a chain that mixes both, every
    step would wait for the GPU to send back what the host has just sent.
    """
    return tf.device("CPU:0")


def choose_kernel(rnn_mode: str, gpus: Sequence, cell: str = "lstm", state_dropout: bool = False) -> str:
    """Return the name of the kernel in `ptb.model.kernels` to use, never "auto".

    "auto" takes cudnn for an LSTM on a GPU, unless it drops its recurrent state, which cuDNN cannot do; otherwise stepwise.
    Raises DeviceError if the cell or the machine does not support `rnn_mode`.
    """
    if rnn_mode not in RNN_MODES:
        raise DeviceError(f"--rnn_mode={rnn_mode}: is unknown; use one of {', '.join(RNN_MODES)}")
    reasons = {
        f"cannot run the cell {cell}": cell != "lstm",
        "TensorFlow sees no GPU here": not gpus,
        "cannot drop the recurrent state": state_dropout,
    }
    reason = next((reason for reason, holds in reasons.items() if holds), None)
    if rnn_mode == "cudnn" and reason:
        raise DeviceError(f"--rnn_mode=cudnn: {reason}; use auto or stepwise")
    return "stepwise" if rnn_mode == "stepwise" or reason else "cudnn"


def choose_precision(precision: str, gpus: Sequence, cpu_flags: str | None = None) -> str:
    """Return the precision of matrix products to use, never "auto".

    - float32: full precision.
    - tf32: NVIDIA's format. The matrix units round the factors to a mantissa of 10 bits.
    - bfloat16: factors and product have a mantissa of 7 bits; sums are float32. The cuDNN kernel uses TF32 instead, because
      TensorFlow has no bfloat16 version of it. On a processor without a bfloat16 unit, TensorFlow truncates the product
      instead of rounding it, so that every product is 0.3% too small.

    Weights, state and elementwise operations but the softmax are float32 in each of them. "auto" takes tf32 on a GPU that has
    it, bfloat16 on a processor that has a unit for it, and float32 elsewhere. `cpu_flags` are the processor's feature flags
    (default: those in /proc/cpuinfo). Warns if bfloat16 is requested on a processor without a unit for it.
    Raises DeviceError for another name, for tf32 without a GPU, and for tf32 or bfloat16 on a GPU that lacks them.
    """
    if precision not in PRECISIONS:
        raise DeviceError(f"--precision={precision}: is unknown; use one of {', '.join(PRECISIONS)}")
    has_tf32 = bool(gpus) and _compute_capability(gpus[0]) >= (8, 0)  # these GPUs have bfloat16 too
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


def use_precision(precision: str) -> str:
    """Switch TF32 on or off for the whole process. Return the dtype of matrix products and their factors."""
    tf.config.experimental.enable_tensor_float_32_execution(precision != "float32")
    return "bfloat16" if precision == "bfloat16" else "float32"


def _compute_capability(gpu: tf.config.PhysicalDevice) -> tuple[int, int]:
    return tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))


def _has_bfloat16(cpu_flags: str | None) -> bool:
    """Return whether the processor has a matrix unit for bfloat16 (AMX or AVX-512)."""
    if cpu_flags is None:
        cpu_flags = _cpuinfo()
    return "amx_bf16" in cpu_flags or "avx512_bf16" in cpu_flags
