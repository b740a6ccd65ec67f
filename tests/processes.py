"""Commands as processes of their own, on the CPU, forked from one that has spent the seconds of importing TensorFlow."""

import dataclasses
import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
ON_THE_CPU = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}  # for what is started otherwise than by `start`

os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])  # or the server would find nothing to preload
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["without_gpu", "processes", "commands", "trained", "ptb.curves", "ptb.grammar"])


def start(script, *arguments, folder, cwd=ROOT, before=None):
    """Starts `python script arguments…`; `folder` gets its `stdout` and `stderr` as files, and may have a `stdin` for it.

    `before`, which can be pickled, is called in the process first. Returns the process.
    """
    pathlib.Path(folder, "stdin").touch()
    process = context.Process(target=_run, args=(script, [*map(str, arguments)], str(folder), str(cwd), before))
    process.start()
    return process


def run(script, *arguments, cwd=ROOT, stdin="", before=None, timeout=300):
    """Runs a command to its end, with text or bytes on standard input. Returns a CompletedProcess with text."""
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
    """Runs a command as above that is to end with exit code 0."""
    process = run(script, *arguments, **options)
    assert process.returncode == 0, process.stderr
    return process


def change(model, **changes):
    """To be called in a process `before` a command: changes the configuration of that name."""
    import configs  # which imports TensorFlow; conftest.py has something to do before that

    configs.CONFIGS[model] = dataclasses.replace(configs.CONFIGS[model], **changes)


def wait_for(condition, process, seconds=120):
    """Waits until `condition()` holds, which it is to do while the process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)


def _run(script, arguments, folder, cwd, before):
    for descriptor, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        with open(pathlib.Path(folder, name), mode) as file:
            os.dup2(file.fileno(), descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 -- multiprocessing has put the null device there
    sys.argv = [script, *arguments]
    os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even of tests in the background, where shells ignore it
    if before:
        before()
    runpy.run_path(str(ROOT / script), run_name="__main__")
