"""What a record of measurements says about where they were taken."""

import datetime
import json
import os
import pathlib
import platform
import re

import tensorflow as tf

from ptb.run import write_atomically
from train import git_revision


def describe_machine():
    """Returns the processor, the cores that this process may use, the GPU or None, memory, date and revision of the program."""
    gpus = tf.config.list_physical_devices("GPU")
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "git_revision": git_revision(),
    }


def cpu_model():
    """Returns the processor's name and those of its instruction sets that matrix products are made of."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*:\s*(.*)", text, re.MULTILINE)
    sets = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if re.search(rf"\b{flag}\b", text)]
    return " ".join([name[1] if name else platform.machine(), *sets])


def write_record(path, record):
    """Writes `record` as JSON, whole or not at all."""
    write_atomically(pathlib.Path(path), (json.dumps(record, indent=1) + "\n").encode())
