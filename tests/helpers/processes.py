"""Run commands as processes on the CPU, forked from a server that has already spent the seconds to import TensorFlow."""

import contextlib
import multiprocessing
import os
import pathlib
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
ON_THE_CPU = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}  # environment of processes that are started without `start`

os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])  # for the server's preloaded modules
context = multiprocessing.get_context("forkserver")
PRELOADED = ["helpers.without_gpu", "helpers.processes", "cli", "configs", "ptb.runs.load", "ptb.runs.tensorboard"]
context.set_forkserver_preload(PRELOADED)


def start(script, *arguments, folder, cwd=ROOT, before=None):
    """Start `python script arguments...` and return the process.

    Standard output and error go to the files `stdout` and `stderr` in `folder`; standard input is its file `stdin`, if there
    is one. `before`, which must be picklable, is called in the process first.
    """
    pathlib.Path(folder, "stdin").touch()
    process = context.Process(target=_run, args=(script, [*map(str, arguments)], str(folder), str(cwd), before))
    process.start()
    return process


def run(script, *arguments, cwd=ROOT, stdin="", before=None, timeout=300):
    """Run a command to its end, with text or bytes on standard input. Return a CompletedProcess with text."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "stdin").write_bytes(stdin if isinstance(stdin, bytes) else stdin.encode())
        process = start(script, *arguments, folder=folder, cwd=cwd, before=before)
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired([script, *arguments], timeout)
        out, err = (pathlib.Path(folder, name).read_text() for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess([script, *arguments], process.exitcode, out, err)


def succeed(script, *arguments, **options):
    """Run a command that must end with exit code 0."""
    process = run(script, *arguments, **options)
    assert process.returncode == 0, process.stderr
    return process


def wait_for(condition, process, seconds=120):
    """Wait until `condition()` is true. Fails if the process ends first, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def at_most(seconds):
    """Raise TimeoutError in a block that takes longer, for example because nobody opens the other end of a pipe."""

    def stop(*_):
        raise TimeoutError(f"this takes over {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _run(script, arguments, folder, cwd, before):
    for descriptor, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        with open(pathlib.Path(folder, name), mode) as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 -- multiprocessing has replaced it with the null device
    sys.argv = [script, *arguments]
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores SIGINT for tests in the background
    if before:
        before()
    runpy.run_path(str(ROOT / script), run_name="__main__")


@contextlib.contextmanager
def files_of_at_most(size):
    """Let this process fail, as on a full disk, to make a file larger than so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
