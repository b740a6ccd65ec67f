"""Storage that fails, files that are damaged, processes that meet: nothing good is lost, and one line says what is wrong."""

import contextlib
import os
import resource
import shutil
import signal

import pytest

import corpora
import processes
import runs
from configs import CONFIGS
from ptb.curves import Curves
from ptb.run import Run, RunError
from training_runs import StopAt, begin

FILE_SIZE = 6000  # bytes: enough for the first checkpoints of the test configuration, which grow with the curves in them


def train(save_path, data_path, *more, before=None):
    arguments = ["--model=test", f"--data_path={data_path}", f"--save_path={save_path}", "--checkpoint_minutes=0", *more]
    return processes.run("train.py", *arguments, before=before)


@pytest.fixture(scope="module")
def unbroken(tiny_corpus, tmp_path_factory):
    save_path = tmp_path_factory.mktemp("runs") / "unbroken"
    process = train(save_path, tiny_corpus)
    assert process.returncode == 0, process.stderr
    return save_path


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))


def test_a_full_disk_stops_the_run_with_one_line_and_loses_nothing(tiny_corpus, unbroken, tmp_path):
    save_path = tmp_path / "run"
    process = train(save_path, tiny_corpus, before=limit_file_size)
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1
    assert f"{save_path}/checkpoint-" in process.stderr
    assert "cannot be written (File too large); make room" in process.stderr
    reached = Run(save_path).load_checkpoint().record["step"]
    assert 0 < reached < 10
    assert not (save_path / ".writing").exists()

    process = train(save_path, tiny_corpus)
    assert process.returncode == 0, process.stderr
    assert f"after step {reached}\n" in process.stdout
    runs.assert_same(save_path, unbroken)


@contextlib.contextmanager
def files_of_at_most(size):
    """Has this process fail, as on a full disk, to make a file larger than so many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_curves_on_a_full_disk_name_their_folder(tmp_path):
    curves = Curves(Run(tmp_path), [], {})
    with files_of_at_most(FILE_SIZE), pytest.raises(RunError, match="train: cannot be written .File too large"):
        for step in range(1000):
            curves.add("train", "perplexity", step, 1.0)
            curves.flush()


def test_a_disk_without_room_for_a_single_byte_is_told_of_the_first_file(tmp_path):
    locked = Run(tmp_path / "run").locked()
    with pytest.raises(RunError, match="run/lock: cannot be written .File too large"), files_of_at_most(0), locked:
        pass


def cut(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def newest(run):
    return sorted(run.glob("checkpoint-*.npz"))[-1]


@pytest.mark.parametrize(
    ("damage", "warnings"),
    [
        (lambda run: cut(newest(run)), ["damaged checkpoint"]),
        (lambda run: newest(run).unlink(), []),
        (lambda run: cut(run / "history.jsonl"), []),
        (lambda run: (run / "history.jsonl").unlink(), []),
        (lambda run: cut(run / "result.json"), ["result.json: damaged"]),
        (lambda run: (run / "vocabulary.txt").unlink(), []),
        (lambda run: shutil.rmtree(run / "train"), []),
        (lambda run: (run / ".writing").write_bytes(b"half a file"), []),
        (lambda run: (run / "lock").write_text("not a pid"), []),
    ],
)
def test_what_is_damaged_is_passed_over_or_made_again(damage, warnings, unbroken, tiny_corpus, tmp_path):
    save_path = shutil.copytree(unbroken, tmp_path / "run")
    if not warnings or "result.json" not in warnings[0]:
        (save_path / "result.json").unlink()
    damage(save_path)
    process = train(save_path, tiny_corpus)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("\n") == len(warnings)
    for warning in warnings:
        assert warning in process.stderr
    runs.assert_same(save_path, unbroken)


def test_a_damaged_checkpoint_is_none_of_the_last_two_when_the_run_has_gone_on(tiny_corpus, tmp_path):
    corpus, run = corpora.load_corpus(str(tiny_corpus)), Run(tmp_path / "run")
    for stop, checkpoint_seconds, kept in (
        (4, 0, [0, 4, 5]),
        (2, 1e9, [0, 4, 7]),  # the next save comes after the damaged one,
        (0, 1e9, [0, 4, 5]),  # before it,
        (0, 1e9, [0, 4, 5]),  # in its place
    ):
        with pytest.raises(SystemExit):
            begin(CONFIGS["test"], corpus, run.path, StopAt(stop), checkpoint_seconds=checkpoint_seconds)
        assert [run.load_checkpoint(up_to=step).record["step"] for step in kept] == kept
        assert len(run.checkpoints()) == len(kept)
        newest(run.path).write_bytes(b"")


def test_the_second_process_in_a_folder_is_told_of_the_first_and_no_lock_outlives_its_process(tiny_corpus, tmp_path):
    save_path = tmp_path / "run"
    command = ["--model=test", f"--data_path={tiny_corpus}", f"--save_path={save_path}"]
    first = processes.start("train.py", *command, folder=tmp_path)
    processes.wait_for(lambda: list(save_path.glob("checkpoint-*.npz")), first)
    os.kill(first.pid, signal.SIGSTOP)  # or it would end too soon
    second = processes.run("train.py", *command)
    first.kill()
    first.join()
    assert second.returncode == 1
    assert second.stdout == ""
    assert second.stderr.endswith(
        f"train.py: {save_path}: process {first.pid} is training here; wait until it ends, or choose another --save_path\n"
    )
    assert second.stderr.count("\n") == 1
    with Run(save_path).locked():
        assert (save_path / "lock").read_text() == str(os.getpid())
