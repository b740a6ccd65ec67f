"""Curves: TensorBoard reads the points that were added, once each, also after a resumed run."""

import os

import pytest

from helpers.run_files import curve, events, trial
from ptb.runs.folder import RunFolder
from ptb.runs.tensorboard import Curves


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def test_points_go_to_the_file_of_their_series(run):
    curves = Curves(run, [], {})
    curves.add("", "learning_rate", 3, 0.5)
    curves.add("", "learning_rate", 6, 0.25)
    curves.add("train", "perplexity", 1, 90.0)
    curves.add("valid", "perplexity", 1, 100.0)
    curves.flush()
    assert curve(run.path, "learning_rate") == [(3, 0.5), (6, 0.25)]
    assert curve(run.path / "train", "perplexity") == [(1, 90.0)]
    assert curve(run.path / "valid", "perplexity") == [(1, 100.0)]
    curves.close()


def test_a_text_is_shown_as_text(run):
    curves = Curves(run, [], {})
    curves.add("", "sample", 5, "the cat")
    curves.close()
    assert curve(run.path, "sample") == [(5, "the cat")]
    assert events(run.path).summary_metadata["sample"].plugin_data.plugin_name == "text"


def test_a_resumed_run_shows_the_points_of_its_checkpoint_and_no_others(run):
    curves = Curves(run, [], {})
    curves.add("", "learning_rate", 1, 1.0)
    curves.add("train", "perplexity", 1, 90.0)
    saved = list(curves.points)
    curves.add("", "learning_rate", 2, 0.5)  # after the last checkpoint of a process that crashed
    curves.close()
    resumed = Curves(run, saved, {})
    resumed.add("", "learning_rate", 2, 0.25)
    resumed.close()
    assert resumed.points is saved  # the list in the next checkpoint
    assert curve(run.path, "learning_rate") == [(1, 1.0), (2, 0.25)]
    assert curve(run.path / "train", "perplexity") == [(1, 90.0)]


def test_points_keep_their_time(run):
    curves = Curves(run, [("", "learning_rate", 1, 1.0, 1234.5)], {})
    curves.close()
    assert [point.wall_time for point in events(run.path).Tensors("learning_rate")] == [1234.5]


def test_event_files_of_other_runs_below_the_folder_stay(run):
    for path in (run.path / "other", run.path / "other" / "train", run.path / "train", run.path):
        path.mkdir(exist_ok=True)
        (path / "events.out.tfevents.1").touch()
    Curves(run, [], {}).close()
    left = {path.parent.relative_to(run.path).as_posix() for path in run.path.rglob("events.out.tfevents.1")}
    assert left == {"other", "other/train"}


def test_a_further_worker_writes_no_events_and_keeps_its_points(run):
    curves = Curves(RunFolder(run.path, read_only=True), [], {})
    curves.add("train", "perplexity", 1, 90.0)
    curves.flush()
    curves.close()
    assert [point[:4] for point in curves.points] == [("train", "perplexity", 1, 90.0)]
    assert list(run.path.iterdir()) == []


def test_hyperparameters_are_a_trial_named_by_two_folders(run):
    values = {"model": "small", "optimizer.learning_rate": 0.5, "model.layers": (5, 6), "two_biases": True, "data_path": None}
    Curves(run, [], values).close()
    assert trial(run.path).group_name == "/".join(run.path.parts[-2:])
    shown = trial(run.path).hparams
    assert set(shown) == set(values) - {"data_path"}
    assert (shown["model"].string_value, shown["model.layers"].string_value) == ("small", "5,6")
    assert shown["optimizer.learning_rate"].number_value == 0.5
    assert shown["two_biases"].bool_value is True


def test_names_of_a_folder_and_a_text_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    run = RunFolder(tmp_path / name)
    run.path.mkdir()
    Curves(run, [], {"data_path": name}).close()
    (file,) = run.path.glob("events.out.*")
    assert file.read_bytes().count(b"caf\\udce9") == 2
