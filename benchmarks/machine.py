"""Describe the machine of a measurement, and write the record of it."""

import datetime
import json
import os
import pathlib
import platform

from ptb.runs.storage import write_atomically
from ptb.runtime import devices


def describe_machine() -> dict:
    """Return processor, usable cores, GPU (or None), memory, system, date, and the revision of this program."""
    return devices.machine() | {
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "git_revision": devices.git_revision(pathlib.Path(__file__).parent),
    }


def write_record(path: str, record: dict) -> None:
    """Write `record` as JSON. A crash leaves either all of it or the previous file."""
    write_atomically(pathlib.Path(path), (json.dumps(record, indent=1) + "\n").encode())
