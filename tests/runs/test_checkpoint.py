"""Checkpoints: they come back as they were, the right ones are kept, and damaged ones are skipped by name."""

import errno
import os

import numpy as np
import pytest

from helpers.texts import raises_one_line
from ptb.runs.checkpoint import MAX_REWINDS, REWIND_FACTOR, CheckpointStore
from ptb.runs.storage import RunError

ARRAYS = {"weights/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "carried/state/0": np.zeros((2, 2))}


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path)


def save(store, *steps, window=0, **fields):
    for step in steps:
        store.save(step, ARRAYS, {"step": step, "window": window, "rate_factor": 1.0} | fields, epoch_step=step - window)


def steps(store):
    return [int(path.stem.removeprefix("checkpoint-")) for path in store.paths()]


def test_a_checkpoint_comes_back_as_it_was_and_the_last_two_are_kept(store):
    assert store.load() is None
    for step in (5, 50, 500):
        store.save(step, ARRAYS, {"step": step, "history": [{"epoch": 1}]})
    assert steps(store) == [50, 500]
    arrays, record, path = store.load()
    assert (record, path) == ({"step": 500, "history": [{"epoch": 1}]}, store.paths()[-1])
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_the_checkpoint_of_the_start_of_the_epoch_is_kept_too(store):
    for step, epoch_step in ((0, 0), (1, 0), (2, 0), (3, 0), (4, 4), (5, 4)):
        store.save(step, ARRAYS, {"step": step}, epoch_step)
        assert epoch_step in steps(store)
    assert [store.load(up_to=step).record["step"] for step in (4, 5)] == [4, 5]
    store.save(6, ARRAYS, {"step": 6}, 4)
    store.save(7, ARRAYS, {"step": 7}, 4)
    assert steps(store) == [4, 6, 7]


def test_the_checkpoint_of_the_best_validation_is_kept_too_as_long_as_one_names_it(store):
    for step, best_step in ((1, 0), (2, 0), (3, 2), (4, 2), (5, 2), (6, 5), (7, 5)):
        save(store, step, window=step, best_step=best_step)
    assert steps(store) == [5, 6, 7]
    fresh = CheckpointStore(store.folder)  # of a resumed run
    save(fresh, 8, window=8, best_step=5)
    save(fresh, 9, window=9, best_step=8)
    assert steps(store) == [5, 8, 9]  # 8 names 5: it may become the newest again
    save(fresh, 10, window=10, best_step=8)
    assert steps(store) == [8, 9, 10]
    assert store.load_step(8).best_step == 5


def test_a_rewind_finds_the_best_weights_of_its_epoch(store):
    save(store, 4, best_step=2)
    save(store, 2)
    save(store, 4, best_step=2)
    for step, best_step in ((6, 2), (8, 6), (10, 8)):
        save(store, step, window=step - 4, best_step=best_step)
    assert steps(store) == [2, 4, 6, 8, 10]
    store.rewind()
    assert store.load_step(store.load().best_step).step == 2


def test_a_further_worker_writes_and_deletes_nothing(store):
    save(store, 1, 2)
    other = CheckpointStore(store.folder, read_only=True)
    save(other, 3)
    assert other.load().record["step"] == 2
    assert steps(store) == [1, 2]


def test_other_files_are_no_checkpoints(store):
    for name in ("checkpoint-1.npz", "checkpoint-000000001.npz.bak", "checkpoint-00000000x.npz"):
        (store.folder / name).write_bytes(b"")
    assert store.paths() == []
    assert store.load() is None


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning_that_names_it(store, damage, caplog):
    save(store, 1, 2)
    newest = store.paths()[-1]
    content = bytearray(newest.read_bytes())
    if damage == "flipped":
        content[content.index(ARRAYS["weights/kernel"].tobytes()) + 5] ^= 1  # one bit of one weight
    else:
        content = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"no zip"}[damage]
    newest.write_bytes(content)
    assert store.load().record["step"] == 1
    (warning,) = caplog.messages
    assert all(path.name in warning for path in store.paths())


def test_a_damaged_checkpoint_is_none_of_the_last_two_and_goes_with_the_next_save(store):
    save(store, 1, 2, 3, 4)
    store.paths()[-1].write_bytes(b"")
    store.load()
    assert steps(store) == [3, 4]
    save(store, 5)
    assert steps(store) == [3, 5]
    store.paths()[-1].write_bytes(b"")
    store.load()
    save(store, 5)  # in the place of the damaged one
    assert [store.load(up_to=step).record["step"] for step in steps(store)] == [3, 5]


@pytest.mark.parametrize("kind", ["a folder", "a link to a missing disk"])
def test_a_checkpoint_that_cannot_be_opened_may_be_intact_and_is_kept(store, kind):
    save(store, 1)
    newest = store.folder / "checkpoint-000000002.npz"
    newest.mkdir() if kind == "a folder" else newest.symlink_to("/nowhere/checkpoint-000000002.npz")
    with raises_one_line(RunError, newest):
        store.load()
    save(store, 3)
    assert newest in store.paths()


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError(errno.EIO, "Input/output error")])
def test_a_checkpoint_that_could_not_be_read_may_be_intact_and_is_kept(store, error, monkeypatch):
    """The error comes from NumPy, as if the memory were full or the disk had failed, which a test cannot cause."""
    save(store, 1, 2)
    with monkeypatch.context() as patches, pytest.raises((MemoryError, RunError)) as caught:
        patches.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda *_: (_ for _ in ()).throw(error))
        store.load()
    assert "damaged" not in str(caught.value)
    with monkeypatch.context() as patches:
        patches.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda *_: (_ for _ in ()).throw(error))
        CheckpointStore(store.folder).save(3, {"weights": np.zeros(3)}, {"step": 3, "best_step": 1})
    assert steps(store) == [1, 2, 3]
    assert store.load(up_to=2).record["step"] == 2


def test_the_first_save_of_a_resumed_run_reads_no_arrays_of_the_others(store, monkeypatch):
    save(store, 1, 2, 3, window=1, best_step=1)
    read, get = [], np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda file, name: read.append(name) or get(file, name))
    save(CheckpointStore(store.folder), 4, window=1, best_step=1)
    assert not ARRAYS.keys() & {*read}
    assert steps(store) == [1, 3, 4]


def test_a_size_that_damage_made_too_large_is_damage(store):
    save(store, 1, 2)
    newest = store.paths()[-1]
    header = b"(2, 3), }" + b" " * 12
    assert header in newest.read_bytes()
    newest.write_bytes(newest.read_bytes().replace(header, b"(2, 3" + b"0" * 12 + b"), }"))
    assert store.load().record["step"] == 1


def test_a_run_of_damaged_checkpoints_only_is_an_error(store):
    save(store, 1)
    store.paths()[0].write_bytes(b"no zip")
    with raises_one_line(RunError, store.paths()[0]):
        store.load()


def test_a_decompression_bomb_is_not_unpacked(store):
    path = store.folder / "checkpoint-000000001.npz"
    np.savez_compressed(path, __record__=np.frombuffer(b"{}", np.uint8), weights=np.zeros(1 << 20))
    with raises_one_line(RunError, path):
        store.load()
    np.savez(path, __record__=np.frombuffer(b"{}", np.uint8), weights=np.zeros(1 << 20))
    assert store.load().record == {}


def test_a_record_that_is_no_object_is_damage(store):
    path = store.folder / "checkpoint-000000001.npz"
    np.savez(path, __record__=np.frombuffer(b"[1]", np.uint8))
    with raises_one_line(RunError, path):
        store.load()


def test_a_checkpoint_cannot_run_code(store, tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = store.folder / "checkpoint-000000009.npz"
    np.savez(path, __record__=np.array([Malicious()], dtype=object))
    with raises_one_line(RunError, path):
        store.load()
    assert not (tmp_path / "executed").exists()


def test_a_rewind_returns_to_the_start_of_the_epoch_at_half_the_rate(store):
    save(store, 0, 7, epoch=2)
    save(store, 8, 9, window=2)  # two steps into the epoch that began at step 7
    before = store.load(up_to=7)
    assert store.rewind() == (7, REWIND_FACTOR)
    assert steps(store)[-1] == 7
    after = store.load()
    assert after.record == before.record | {"rate_factor": REWIND_FACTOR}
    np.testing.assert_array_equal(after.arrays["weights/kernel"], ARRAYS["weights/kernel"])
    assert store.rewind() == (7, REWIND_FACTOR**2)


def test_a_checkpoint_of_an_older_version_can_be_rewound_to(store):
    store.save(3, ARRAYS, {"step": 3, "window": 0}, epoch_step=3)
    assert store.rewind() == (3, REWIND_FACTOR)


def test_rewinds_come_to_an_end(store):
    save(store, 0)
    for _ in range(MAX_REWINDS):
        store.rewind()
    with raises_one_line(RunError, store.paths()[0]):
        store.rewind()
    assert store.load().record["rate_factor"] == REWIND_FACTOR**MAX_REWINDS


def test_a_rewind_needs_the_checkpoint_of_the_start_of_the_epoch(store):
    save(store, 5, window=5)
    with raises_one_line(RunError, store.folder):
        store.rewind()
    assert steps(store) == [5]
