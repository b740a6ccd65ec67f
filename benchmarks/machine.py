"""What a record of measurements says about where they were taken."""

import datetime
import json
import os
import pathlib
import platform

from ptb import devices
from ptb.run import write_atomically
from train import git_revision


def describe_machine():
    """Returns the processor, the cores that this process may use, the GPU or None, memory, date and revision of the program."""
    return devices.machine() | {
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "git_revision": git_revision(),
    }


def write_record(path, record):
    """Writes `record` as JSON, whole or not at all."""
    write_atomically(pathlib.Path(path), (json.dumps(record, indent=1) + "\n").encode())
