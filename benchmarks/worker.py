"""Run a contestant in a process of its own, with its own libraries, threads and memory. It is idle while others compute.

The parent starts `python -m benchmarks.worker`. They exchange lines of JSON, one reply for each request:

    {"module": "peers.ours", "workload": {…}, "precision": "float32", "options": {…}}  →  {"device": …, "versions": {…}}
    {"steps": 5}  →  {"seconds": 1.25, "loss": 184.2, "peak_bytes": …, "gpu_peak_bytes": …}

A reply `{"error": …}` is the last one. The worker ends when its standard input ends.
"""

import contextlib
import importlib
import json
import math
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

from benchmarks.workload import Workload

ROOT = pathlib.Path(__file__).parent.parent


class WorkerError(Exception):
    """A worker could not be started, or failed."""


class Worker:
    """The parent's side. The worker starts its setup at once; nothing else should compute until `wait` has returned.

    Raises WorkerError if `python` cannot be started.
    """

    def __init__(self, python: str, environment: dict, **setup):
        self._errors = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115 -- `close` closes it
        try:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker"], cwd=ROOT, env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)  # fmt: skip
        except OSError as error:
            self._errors.close()
            raise WorkerError(f"{python}: {error.strerror}") from None
        self._send(setup)

    def wait(self) -> dict:
        """Return the reply to the last request. Raises WorkerError if there is none."""
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last_line = self._errors.read().strip().rsplit("\n", 1)[-1]
            raise WorkerError(f"ended with exit code {self._process.returncode}: {last_line}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def train(self, steps: int) -> dict:
        """Return the reply to a request for `steps` training steps. Raises WorkerError if there is none."""
        self._send({"steps": steps})
        return self.wait()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _send(self, request):
        with contextlib.suppress(BrokenPipeError):  # the worker has ended; `wait` reports why
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()


def serve() -> None:
    """The worker's side: answer requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep what a library prints out of the replies

    def reply(record):
        print(json.dumps(record), file=replies, flush=True)

    try:
        setup = json.loads(sys.stdin.readline())
        module = importlib.import_module(f"benchmarks.{setup['module']}")
        trainer = module.Trainer(Workload(**setup["workload"]), setup["precision"], **setup["options"])
        trainer.train(2)  # compile, and allocate memory
        reply(trainer.description)
        for line in sys.stdin:
            reply(timed(trainer, json.loads(line)["steps"]))
    except Exception as error:
        reply({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
        raise


def timed(trainer, steps: int) -> dict:
    """Train `steps` steps; return their seconds and loss, and the peak memory so far.

    A quarter as many steps, at least one, come first and are not timed: other processes have used the caches in the meantime,
    and an idle GPU lowers its clock rate. Raises ArithmeticError if the loss is not finite.
    """
    trainer.train(max(1, steps // 4))
    started = time.perf_counter()
    loss = trainer.train(steps)
    seconds = time.perf_counter() - started
    if not math.isfinite(loss):
        raise ArithmeticError("the loss is no longer finite")
    return {"seconds": seconds, "loss": loss, "peak_bytes": peak_bytes(), "gpu_peak_bytes": trainer.gpu_peak_bytes()}


def peak_bytes() -> int:
    """Return the peak resident memory of this process."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on Linux this would include the parent's peak
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    serve()
