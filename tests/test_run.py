"""The run folder: what is written survives, what is damaged is passed over, what does not belong is refused."""

import errno
import json
import os
import re

import numpy as np
import pytest

from ptb.curves import Curves
from ptb.run import Run, RunError, write_atomically

ARRAYS = {"weights/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "carried/state/0": np.zeros((2, 2))}


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "deep" / "run")
    run.begin({"model": "small", "seed": 1, "data_path": "here"})
    return run


def checkpoints(run):
    return sorted(path.name for path in run.path.glob("*.npz"))


def test_a_checkpoint_comes_back_as_it_was_and_the_last_two_are_kept(run):
    assert run.load_checkpoint() is None
    for step in (5, 50, 500):
        run.save_checkpoint(step, ARRAYS, {"step": step, "history": [{"epoch": 1}]})
    assert checkpoints(run) == ["checkpoint-000000050.npz", "checkpoint-000000500.npz"]
    arrays, record, _ = run.load_checkpoint()
    assert record == {"step": 500, "history": [{"epoch": 1}]}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_not_unpacked(run):
    path = run.path / "checkpoint-000000001.npz"
    np.savez_compressed(path, __record__=np.frombuffer(b"{}", np.uint8), weights=np.zeros(1 << 20))
    with pytest.raises(RunError, match="unpacks to more than it is"):
        run.load_checkpoint()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_that_names_it(run, damage, caplog):
    for step in (1, 2):
        run.save_checkpoint(step, ARRAYS, {"step": step})
    newest = run.path / "checkpoint-000000002.npz"
    content = bytearray(newest.read_bytes())
    if damage == "flipped":
        content[content.index(ARRAYS["weights/kernel"].tobytes()) + 5] ^= 1  # one bit of one weight
    else:
        content = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"no zip"}[damage]
    newest.write_bytes(content)
    assert run.load_checkpoint().record == {"step": 1}
    (warning,) = caplog.messages
    assert re.search("checkpoint-000000002.npz: damaged .*going on from checkpoint-000000001.npz", warning)


@pytest.mark.parametrize("kind", ["a folder", "a link to a disk that is not there"])
def test_a_checkpoint_that_cannot_be_opened_may_be_whole(run, kind):
    run.save_checkpoint(1, ARRAYS, {"step": 1})
    newest = run.path / "checkpoint-000000002.npz"
    if kind == "a folder":
        newest.mkdir()
    else:
        newest.symlink_to("/nowhere/checkpoint-000000002.npz")
    with pytest.raises(RunError, match=r"checkpoint-000000002.npz: cannot be read \(.*make it readable, or move it elsewhere"):
        run.load_checkpoint()
    run.save_checkpoint(3, ARRAYS, {"step": 3})
    assert newest.name in checkpoints(run)


def test_the_checkpoint_of_the_beginning_of_the_epoch_outlives_the_last_two(run):
    for step, epoch_step in ((0, 0), (1, 0), (2, 0), (3, 0), (4, 4), (5, 4)):
        run.save_checkpoint(step, ARRAYS, {"step": step}, epoch_step)
        assert f"checkpoint-{epoch_step:09d}.npz" in checkpoints(run)
    assert [run.load_checkpoint(up_to=step).record["step"] for step in (4, 5)] == [4, 5]
    run.save_checkpoint(6, ARRAYS, {"step": 6}, 4)
    run.save_checkpoint(7, ARRAYS, {"step": 7}, 4)
    assert [name[-5:-4] for name in checkpoints(run)] == ["4", "6", "7"]


@pytest.mark.parametrize("name", ["vocabulary.txt", "checkpoint-000000003.npz", "events.out.1", "train/events.out.1"])
def test_files_of_whoever_left_no_config_are_not_touched(tmp_path, name):
    strange = tmp_path / "run" / name
    strange.parent.mkdir(parents=True)
    strange.write_text("whose?")
    with pytest.raises(RunError, match=f"{name}: is of a run without config.json; restore that, or choose"):
        Run(tmp_path / "run").begin({"seed": 1})
    assert strange.read_text() == "whose?"
    assert not (tmp_path / "run" / "config.json").exists()


def test_with_every_checkpoint_damaged_it_stops_rather_than_begin_anew(run):
    run.save_checkpoint(1, ARRAYS, {})
    (run.path / "checkpoint-000000001.npz").write_bytes(b"no zip")
    with pytest.raises(RunError, match="checkpoint-000000001.npz: damaged"):
        run.load_checkpoint()


def test_a_checkpoint_cannot_run_code(run, tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = run.path / "checkpoint-000000009.npz"
    np.savez(path, __record__=np.array([Malicious()], dtype=object))
    with pytest.raises(RunError, match="damaged"):
        run.load_checkpoint()
    assert not (tmp_path / "executed").exists()


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(RunError, match=r"file: cannot be written \(disk full\)"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_same_run_begins_again_and_another_is_refused_by_the_names_of_what_differs(run):
    run.begin({"model": "small", "seed": 1, "data_path": "moved/elsewhere"})
    assert run.config["data_path"] == "moved/elsewhere"
    with pytest.raises(RunError, match=r"holds another run \(model was 'small', now 'large'; seed was 1, now 2\)"):
        run.begin({"model": "large", "seed": 2, "data_path": "here"})
    assert run.config["model"] == "small"


def test_a_damaged_record_names_its_file(run):
    (run.path / "config.json").write_text('{"model": ')
    with pytest.raises(RunError, match="config.json: damaged"):
        run.begin({})


def test_a_file_system_without_locks_is_named(run, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(RunError, match=f"{run.path}/lock: cannot be locked .No locks available."), run.locked():
        pass


def test_curves_begin_anew_without_those_of_other_runs_in_the_folder(run):
    for path in (run.path / "other", run.path / "other" / "train", run.path / "train", run.path):
        path.mkdir(exist_ok=True)
        (path / "events.out.tfevents.1").touch()
    Curves(run, [], {}).close()
    left = {path.parent.relative_to(run.path).as_posix() for path in run.path.rglob("events.out.tfevents.1")}
    assert left == {"other", "other/train"}


def test_curves_of_a_folder_and_a_text_whose_names_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    run = Run(tmp_path / name)
    run.begin({"data_path": name})
    Curves(run, [], run.config).close()
    (events,) = run.path.glob("events.out.*")
    assert events.read_bytes().count(b"caf\\udce9") == 2


def test_history_has_a_line_for_each_record(run):
    run.write_history([{"epoch": 1}, {"epoch": 2}])
    lines = (run.path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
