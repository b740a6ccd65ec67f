"""Storage that fails, files that are damaged, processes that meet: nothing good is lost, and one line says what is wrong."""

import os
import shutil
import signal
import time

import pytest

import train
from configs import TEST
from helpers import processes
from helpers.processes import files_of_at_most
from helpers.rejected import contents
from helpers.run_files import assert_same_run
from helpers.texts import raises_one_line
from helpers.training_runs import StopAt, begin
from ptb.data.corpus import load_corpus
from ptb.data.files import DAY
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError, reading, write_atomically
from ptb.runs.tensorboard import Curves

FILE_SIZE = 8000  # bytes: enough for the first checkpoints of the test configuration and the first points of its curves


@pytest.fixture(scope="module")
def corpus(tiny_corpus):
    return load_corpus(str(tiny_corpus))


def train_to_its_end(corpus, folder, **monitoring):
    return train.train(TEST, corpus, folder, precision="float32", monitoring=train.Monitoring(**monitoring))


@pytest.fixture(scope="module")
def unbroken(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    train_to_its_end(corpus, folder)
    return folder


def test_two_files_of_a_folder_can_be_written_at_the_same_time(tmp_path):
    def write(file):
        file.write(b"one")
        write_atomically(tmp_path / "two.json", b"two")

    write_atomically(tmp_path / "one.json", write)
    assert contents(tmp_path) == {tmp_path / "one.json": b"one", tmp_path / "two.json": b"two"}


def test_a_failed_write_leaves_the_previous_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with raises_one_line(RunError, path, "disk full"):
        write_atomically(path, fail)
    assert contents(tmp_path) == {path: b"old"}


def test_two_processes_write_different_files_at_once(tmp_path):
    def write(file):
        file.write(b"check")
        write_atomically(tmp_path / "adapt.json", b"{}")  # as by another process
        file.write(b"point")

    write_atomically(tmp_path / "checkpoint.npz", write)
    assert contents(tmp_path) == {tmp_path / "checkpoint.npz": b"checkpoint", tmp_path / "adapt.json": b"{}"}


def test_a_write_that_cannot_take_its_place_leaves_no_other_file(tmp_path):
    (tmp_path / "file").mkdir()
    with raises_one_line(RunError, tmp_path / "file"):
        write_atomically(tmp_path / "file", b"new")
    assert contents(tmp_path) == {tmp_path / "file": False}


def test_what_killed_writers_left_is_deleted_after_a_day(tmp_path):
    for name, age in ((".writing-1-config.json", 2 * DAY), (".writing-2-config.json", 0)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, times=(time.time() - age,) * 2)
    write_atomically(tmp_path / "history.jsonl", b"")
    assert {path.name for path in tmp_path.iterdir()} == {".writing-2-config.json", "history.jsonl"}  # 2 may still write


@pytest.mark.parametrize("error", [ValueError("no JSON"), RecursionError("too deep")])
def test_damaged_json_is_an_error_with_its_file_and_a_cure(error, tmp_path):
    with raises_one_line(RunError, tmp_path / "file", error, "the cure"), reading(tmp_path / "file", "the cure"):
        raise error


def test_a_full_disk_stops_a_run_and_loses_nothing(corpus, unbroken, tmp_path):
    run = RunFolder(tmp_path / "run")
    with raises_one_line(RunError, run.path), files_of_at_most(FILE_SIZE):
        train_to_its_end(corpus, run.path, checkpoint_seconds=0)
    reached = run.checkpoints.load().record["step"]
    assert 0 < reached < 10
    assert not list(run.path.glob(".writing*"))
    train_to_its_end(corpus, run.path)
    assert_same_run(run.path, unbroken)


def test_curves_on_a_full_disk_name_their_folder(tmp_path):
    curves = Curves(RunFolder(tmp_path), [], {})
    with raises_one_line(RunError, tmp_path), files_of_at_most(FILE_SIZE):
        for step in range(1000):
            curves.add("perplexity/train", step, 1.0)
            curves.flush()


def test_a_disk_without_room_for_a_byte_names_the_first_file(tmp_path):
    with raises_one_line(RunError, tmp_path / "run" / "lock"), files_of_at_most(0), RunFolder(tmp_path / "run").locked():
        pass


def cut(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def newest(folder):
    return sorted(folder.glob("checkpoint-*.npz"))[-1]


def damage_the_newest_checkpoint(folder):
    cut(newest(folder))
    (folder / "result.json").unlink()


def damage_the_result(folder):
    cut(folder / "result.json")


def damage_what_is_made_again(folder):
    newest(folder).unlink()
    (folder / "result.json").unlink()
    (folder / "vocabulary.txt").unlink()
    cut(folder / "history.jsonl")
    next(folder.glob("events.out.*")).unlink()
    (folder / ".writing.npz").write_bytes(b"half a file")
    (folder / "lock").write_text("not a pid")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (damage_the_newest_checkpoint, "checkpoint-"),
        (damage_the_result, "result.json"),
        (damage_what_is_made_again, None),
        (lambda folder: [(folder / name).unlink() for name in ("result.json", "history.jsonl")], None),
    ],
)
def test_damaged_files_are_skipped_or_made_again(damage, named, corpus, unbroken, tmp_path, caplog):
    folder = shutil.copytree(unbroken, tmp_path / "run")
    damage(folder)
    train_to_its_end(corpus, folder)
    assert len(caplog.messages) == (named is not None)
    assert all(named in message for message in caplog.messages)
    assert_same_run(folder, unbroken)


def test_a_run_never_counts_a_damaged_checkpoint_among_those_it_keeps(corpus, tmp_path):
    run = RunFolder(tmp_path / "run")
    for stop, checkpoint_seconds, kept in (
        (4, 0, [0, 4, 5]),
        (2, 1e9, [0, 4, 7]),  # the next save comes after the damaged one,
        (0, 1e9, [0, 4, 5]),  # before it,
        (0, 1e9, [0, 4, 5]),  # in its place
    ):
        with pytest.raises(SystemExit):
            begin(TEST, corpus, run.path, StopAt(stop), checkpoint_seconds=checkpoint_seconds)
        assert [run.checkpoints.load(up_to=step).record["step"] for step in kept] == kept
        assert len(run.checkpoints.paths()) == len(kept)
        newest(run.path).write_bytes(b"")


def test_the_second_process_in_a_folder_names_the_first_and_no_lock_outlives_its_process(tiny_corpus, tmp_path):
    folder = tmp_path / "run"
    command = ["--model=test", f"--data_path={tiny_corpus}", f"--save_path={folder}"]
    first = processes.start("train.py", *command, folder=tmp_path)
    processes.wait_for(lambda: list(folder.glob("checkpoint-*.npz")), first)
    os.kill(first.pid, signal.SIGSTOP)  # or it would end too soon
    second = processes.run("train.py", *command)
    first.kill()
    first.join()
    assert (second.returncode, second.stdout, second.stderr.count("\n")) == (1, "", 1)
    assert all(fact in second.stderr for fact in (str(folder), str(first.pid), "--save_path"))
    with RunFolder(folder).locked():
        assert (folder / "lock").read_text() == str(os.getpid())
