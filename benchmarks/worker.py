"""A contestant in a process of its own: its libraries, threads and memory are its own, and it rests while others compute.

The parent starts `python -m benchmarks.worker` and they exchange lines of JSON, one reply for each request:

    {"module": "peers.ours", "workload": {…}, "precision": "float32", "options": {…}}  →  {"device": …, "versions": {…}}
    {"steps": 5}  →  {"seconds": 1.25, "loss": 184.2, "peak_bytes": …, "gpu_peak_bytes": …}

or `{"error": …}`, after which the worker is gone. It ends when its standard input does.
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
    """A worker that could not be started, or failed."""


class Worker:
    """The parent's end. It starts to set up at once; nobody else should compute before `wait` has returned."""

    def __init__(self, python, environment, **setup):
        self._errors = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115, closed in `close`
        try:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.worker"], cwd=ROOT, env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)  # fmt: skip
        except OSError as error:
            self._errors.close()
            raise WorkerError(f"{python}: {error.strerror}") from None
        self._send(setup)

    def wait(self):
        """Returns the reply to what was asked last. Raises WorkerError if there is none."""
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last_words = self._errors.read().strip().rsplit("\n", 1)[-1]
            raise WorkerError(f"ended with exit code {self._process.returncode}: {last_words}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def train(self, steps):
        """Returns the reply to a request for `steps` training steps."""
        self._send({"steps": steps})
        return self.wait()

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _send(self, request):
        with contextlib.suppress(BrokenPipeError):  # `wait` tells why
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()


def serve():
    """The worker's end: answers requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not come between the replies

    def reply(record):
        print(json.dumps(record), file=replies, flush=True)

    try:
        setup = json.loads(sys.stdin.readline())
        module = importlib.import_module(f"benchmarks.{setup['module']}")
        trainer = module.Trainer(Workload(**setup["workload"]), setup["precision"], **setup["options"])
        trainer.train(2)  # compiles, and takes memory
        reply(trainer.description)
        for line in sys.stdin:
            reply(timed(trainer, json.loads(line)["steps"]))
    except Exception as error:
        reply({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
        raise


def timed(trainer, steps):
    """Trains `steps` steps and returns what they took.

    A quarter as many before them, one at least, are not counted: others have had the caches meanwhile, and a GPU that rests
    lowers its clocks.
    """
    trainer.train(max(1, steps // 4))
    started = time.perf_counter()
    loss = trainer.train(steps)
    seconds = time.perf_counter() - started
    if not math.isfinite(loss):
        raise ArithmeticError("the loss is no longer finite")
    return {"seconds": seconds, "loss": loss, "peak_bytes": peak_bytes(), "gpu_peak_bytes": trainer.gpu_peak_bytes()}


def peak_bytes():
    """Returns the most memory that this process has had resident."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on Linux this would count the parent's too
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    serve()
