"""Curves: TensorBoard reads the points that were added, once each, also after a resumed run."""

import os

import numpy as np
import pytest
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from configs import CHAR_RNN, MELIS_10M, SMALL
from helpers.run_files import curve, events, trial
from ptb.config import flatten
from ptb.runs.folder import RunFolder
from ptb.runs.tensorboard import (
    LEARNING_RATE,
    POINTS_PER_STEP,
    PUBLISHED,
    SAMPLE,
    TEST,
    TRAIN,
    VALID,
    Curves,
    upgrade_points,
)


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def hparams_data(folder, tag):
    """Return what TensorBoard's table of runs reads: the columns ("experiment") or the end of a run ("session_end_info")."""
    return HParamsPluginData.FromString(events(folder).summary_metadata[f"_hparams_/{tag}"].plugin_data.content)


def smoothed(values, weight=0.6):
    """Return values as TensorBoard's charts smooth them: exponential averages, corrected for their start."""
    total, result = 0.0, []
    for count, value in enumerate(values, 1):
        total = weight * total + (1 - weight) * value
        result.append(total / (1 - weight**count))
    return result


def test_points_of_a_curve(run):
    curves = Curves(run, [], {})
    curves.add(LEARNING_RATE, 3, 0.5)
    curves.add(LEARNING_RATE, 6, 0.25)
    curves.add(SAMPLE, 5, "the cat")
    curves.flush()
    assert curve(run.path, LEARNING_RATE) == [(3, 0.5), (6, 0.25)]
    assert curve(run.path, SAMPLE) == [(5, "the cat")]
    assert events(run.path).summary_metadata[SAMPLE].plugin_data.plugin_name == "text"
    curves.close()


def test_the_default_smoothing_leaves_every_epoch_its_value_and_train_below_valid(run):
    """With one point an epoch it drew these train perplexities above those of valid."""
    train, valid = [300.0, 150.0, 110.0, 90.0], [200.0, 155.0, 125.0, 118.0]
    assert smoothed(train)[2] > smoothed(valid)[2]
    curves = Curves(run, [], {}, published_valid=120.7)
    for epoch in range(4):
        curves.add(VALID, 2323 * (epoch + 1), valid[epoch])
        curves.add(TRAIN, 2323 * (epoch + 1), train[epoch])
    curves.close()
    ends = {}
    for tag, values in ((TRAIN, train), (VALID, valid), (PUBLISHED, [120.7] * 4)):
        steps, points = zip(*curve(run.path, tag))
        assert len(points) == 4 * POINTS_PER_STEP and np.all(np.diff(steps) > 0) and steps[-1] == 4 * 2323
        np.testing.assert_allclose(points, np.repeat(values, POINTS_PER_STEP), rtol=1e-6)
        ends[tag] = smoothed(points)[POINTS_PER_STEP - 1 :: POINTS_PER_STEP]
        np.testing.assert_allclose(ends[tag], values, rtol=1e-3)
    assert np.all(np.less(ends[TRAIN], ends[VALID])[1:])


def test_an_epoch_of_few_steps_has_no_step_twice(run):
    curves = Curves(run, [], {})
    curves.add(TRAIN, 3, 9.0)
    curves.add(TRAIN, 5, 8.0)
    curves.close()
    assert curve(run.path, TRAIN) == [(1, 9.0), (2, 9.0), (3, 9.0), (4, 8.0), (5, 8.0)]


def test_a_resumed_run_shows_the_points_of_its_checkpoint_and_no_others(run):
    curves = Curves(run, [], {})
    curves.add(LEARNING_RATE, 1, 1.0)
    curves.add(TEST, 1, 90.0)
    saved = list(curves.points)
    curves.add(LEARNING_RATE, 2, 0.5)  # after the last checkpoint of a process that crashed
    curves.close()
    resumed = Curves(run, saved, {})
    resumed.add(LEARNING_RATE, 2, 0.25)
    resumed.close()
    assert resumed.points is saved  # the list in the next checkpoint
    assert curve(run.path, LEARNING_RATE) == [(1, 1.0), (2, 0.25)]
    assert curve(run.path, TEST) == [(1, 90.0)]


def test_a_run_of_a_former_version_goes_on_with_its_points_under_the_new_names(run):
    """It had files in train/ and valid/, by epoch, and valid by step too if it was validated within epochs."""
    points = [
        ["", "learning_rate", 4, 1.0, 100.5],
        ["", "valid_perplexity", 8, 90.0, 101.0],
        ["train", "perplexity", 1, 95.0, 102.0],
        ["valid", "perplexity", 1, 90.0, 103.0],
        ("perplexity/train", 16, 80.0, 104.0),  # a point of this version
    ]
    for path in (run.path / "train", run.path / "valid", run.path):
        path.mkdir(exist_ok=True)
        (path / "events.out.tfevents.1").touch()
    upgrade_points(points, num_windows=8)
    assert sorted(points, key=lambda point: point[-1]) == [
        (LEARNING_RATE, 4, 1.0, 100.5),
        (VALID, 8, 90.0, 101.0),
        (TRAIN, 8, 95.0, 102.0),
        (TRAIN, 16, 80.0, 104.0),
    ]
    before = list(points)
    upgrade_points(points, num_windows=8)
    assert points == before
    Curves(run, points, {}).close()
    assert len(list(run.path.rglob("events.out.*"))) == 1
    assert curve(run.path, VALID)[-1] == (8, 90.0)


def test_points_keep_their_time(run):
    Curves(run, [(LEARNING_RATE, 1, 1.0, 1234.5)], {}).close()
    assert [point.wall_time for point in events(run.path).Tensors(LEARNING_RATE)] == [1234.5]


def test_event_files_of_other_runs_below_the_folder_stay(run):
    for path in (run.path / "other", run.path / "other" / "train", run.path / "train", run.path):
        path.mkdir(exist_ok=True)
        (path / "events.out.tfevents.1").touch()
    Curves(run, [], {}).close()
    left = {path.parent.relative_to(run.path).as_posix() for path in run.path.rglob("events.out.tfevents.1")}
    assert left == {"other", "other/train"}


def test_a_further_worker_writes_no_events_and_keeps_its_points(run):
    curves = Curves(RunFolder(run.path, read_only=True), [], {})
    curves.add(TRAIN, 1, 90.0)
    curves.flush()
    curves.close(success=True)
    assert [point[:3] for point in curves.points] == [(TRAIN, 1, 90.0)]
    assert list(run.path.iterdir()) == []


@pytest.mark.parametrize(("success", "status"), [(True, api_pb2.STATUS_SUCCESS), (False, api_pb2.STATUS_FAILURE)])
def test_the_end_of_a_run_is_its_status(run, success, status):
    Curves(run, [], {}).close(success)
    assert hparams_data(run.path, "session_end_info").session_end_info.status == status


def test_a_run_that_goes_on_has_no_status(run):
    Curves(run, [], {}).close()
    assert "_hparams_/session_end_info" not in events(run.path).summary_metadata


def test_hyperparameters_are_a_trial_named_by_two_folders_apart_from_the_curves(run):
    values = {"model": "small", "optimizer.learning_rate": 0.5, "model.layers": (5, 6), "two_biases": True, "data_path": None}
    Curves(run, [], values).close()
    assert trial(run.path).group_name == "/".join(run.path.parts[-2:])
    shown = trial(run.path).hparams
    assert set(shown) == {f"hparams/{name}" for name in set(values) - {"data_path"}}
    assert (shown["hparams/model"].string_value, shown["hparams/model.layers"].string_value) == ("small", "5,6")
    assert shown["hparams/optimizer.learning_rate"].number_value == 0.5
    assert shown["hparams/two_biases"].bool_value is True


def test_the_columns_are_the_same_in_every_run_and_begin_with_the_scores(run):
    """TensorBoard takes the columns of its table from one of the runs."""
    columns = []
    for config in (SMALL, CHAR_RNN, MELIS_10M):
        Curves(run, [], flatten(config)).close()
        columns.append(hparams_data(run.path, "experiment").experiment)
    names = [sorted((info.name, info.type, info.differs) for info in experiment.hparam_infos) for experiment in columns]
    assert names[0] == names[1] == names[2]
    assert len({name for name, *_ in names[0]}) == len(names[0])
    for config in (SMALL, CHAR_RNN, MELIS_10M):
        assert {f"hparams/{name}" for name in flatten(config)} <= {name for name, *_ in names[0]}
    on = {info.display_name for info in columns[0].hparam_infos if info.differs}
    assert {"model", "seed", "model.layers", "optimizer.learning_rate"} <= on and "loss.tar" not in on
    assert [info.name.tag for info in columns[0].metric_infos] == [TEST, VALID, TRAIN]


def test_one_chart_has_train_valid_and_the_published_line(run):
    Curves(run, [], {}).close()
    (event,) = events(run.path).Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(event.tensor_proto.string_val[0]).category
    assert [*category.chart[0].multiline.tag] == [f"{TRAIN}$", f"{VALID}$", PUBLISHED]


def test_names_of_a_folder_and_a_text_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    run = RunFolder(tmp_path / name)
    run.path.mkdir()
    Curves(run, [], {"data_path": name}).close()
    (file,) = run.path.glob("events.out.*")
    assert file.read_bytes().count(b"caf\\udce9") == 2
