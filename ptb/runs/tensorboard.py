"""A run's curves for TensorBoard: points that travel in the checkpoints, and event files made from them."""

import os
import socket
import time
from collections.abc import Iterator, Mapping

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.summary import pb as layout_summary
from tensorboard.plugins.hparams import api as hparams_plugin
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.summary import experiment_pb, session_end_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from ptb.config import KINDS, Config, Optimizer, flatten
from ptb.runs.folder import CURVES, RunFolder
from ptb.runs.storage import writing

# TensorBoard shows groups in the order of the alphabet: perplexity before speed and training.
TRAIN, VALID, TEST = "perplexity/train", "perplexity/valid", "perplexity/test"
RUNNING, PUBLISHED = "perplexity/train_running", "perplexity/published_valid"
LEARNING_RATE, GRADIENT_NORM, CLIPPED = "training/learning_rate", "training/mean_gradient_norm", "training/clipped_fraction"
SPEED, SAMPLE = "speed/words_per_second", "sample"

# One value an epoch, drawn as a step of many points: TensorBoard's smoothing would otherwise mix it with earlier epochs.
STEPPED = (TRAIN, VALID, PUBLISHED, CLIPPED)
POINTS_PER_STEP = 20

# TensorBoard shows five columns at first, those that differ between runs before others. It cannot know which; these often do.
COLUMNS = ("model", "seed", "model.layers", "optimizer.learning_rate", "dropout.output")
METRICS = {TEST: "test perplexity", VALID: "valid perplexity", TRAIN: "train perplexity"}

FORMER_TAGS = {  # of versions that had a folder of their own for train and for valid, with one point an epoch
    ("", "running_train_perplexity"): RUNNING,
    ("", "learning_rate"): LEARNING_RATE,
    ("", "mean_gradient_norm"): GRADIENT_NORM,
    ("", "words_per_second"): SPEED,
    ("", "valid_perplexity"): VALID,
    ("", "sample"): SAMPLE,
    ("train", "perplexity"): TRAIN,
    ("valid", "perplexity"): VALID,
}


class Curves:
    """Write points to an event file in a run folder.

    Starts with a new file that holds the `points` of a resumed run. What a crashed process wrote after its last checkpoint is
    deleted, so curves never overlap. New points are appended to `points`, which is the list in the checkpoint.
    """

    def __init__(self, run: RunFolder, points: list, hyperparameters: Mapping, published_valid: float | None = None):
        self._folder, self._writer = run.path, None
        self._published = published_valid
        self._last_steps: dict[str, int] = {}  # of the stepped tags
        self.points = points
        if run.read_only:
            return
        with writing(self._folder):
            for stale in (path for pattern in CURVES for path in self._folder.glob(pattern)):
                stale.unlink()
            self._writer = _open(self._folder)
        for summary in (_experiment(hyperparameters), self._trial(hyperparameters), layout_summary(_layout())):
            self._write(summary)
        for point in points:
            self._plot(*point)

    def add(self, tag: str, step: int, value: float | str) -> None:
        """Add one point, a number or a text. It is on disk after the next `flush`."""
        self.points.append((tag, step, value if isinstance(value, str) else float(value), time.time()))
        self._plot(*self.points[-1])

    def flush(self) -> None:
        if self._writer:
            with writing(self._folder):
                self._writer.flush()

    def close(self, success: bool | None = None) -> None:
        """Close the file. `success` is what TensorBoard shows as the status: True, False, or None for unknown."""
        if self._writer is None:
            return
        if success is not None:
            status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
            self._write(session_end_pb(status))
        with writing(self._folder):
            self._writer.close()
        self._writer = None

    def _trial(self, hyperparameters):
        """Return the summary for TensorBoard's hyperparameters, which take no None and no lists.

        The trial has a name, so that a resumed run stays the same trial. The name has two folders, so that runs/a/1 and
        runs/b/1 are two trials.
        """
        given = {f"hparams/{name}": _printable(value) for name, value in hyperparameters.items() if value is not None}
        return hparams_plugin.hparams_pb(given, trial_id=_printable("/".join(self._folder.resolve().parts[-2:])))

    def _plot(self, tag, step, value, wall_time):
        if isinstance(value, str):
            self._write(text_pb(tag, value), step, wall_time)
            return
        for place in self._places(tag, step):
            self._write(scalar_pb(tag, value), place, wall_time)
        if tag == VALID and self._published:
            self._plot(PUBLISHED, step, self._published, wall_time)

    def _places(self, tag, step):
        """Return the steps at which to draw a value: several since the value before, if it belongs to all of them."""
        if tag not in STEPPED:
            return [step]
        last, self._last_steps[tag] = self._last_steps.get(tag, 0), step
        return np.unique(np.ceil(np.linspace(last, step, POINTS_PER_STEP + 1)[1:]).astype(int)).tolist()

    def _write(self, summary, step=0, wall_time=None):
        if self._writer is None:
            return
        summary = Summary.FromString(summary.SerializeToString())  # some of TensorBoard's functions return TensorFlow's class
        event = Event(wall_time=wall_time or time.time(), step=step, summary=summary)
        with writing(self._folder):
            self._writer.write(event.SerializeToString())


def upgrade_points(points: list, num_windows: int) -> None:
    """Give points of former versions today's tags in place. `num_windows` is the number of steps of an epoch."""
    former = [point for point in points if len(point) == 5]
    if not former:
        return
    upgraded, seen = [point for point in points if len(point) != 5], set()
    for series, tag, step, value, wall_time in former:
        now, step = FORMER_TAGS.get((series, tag), tag), step * num_windows if series else step
        if (now, step) not in seen:  # valid had a point by step and one by epoch
            upgraded.append((now, step, value, wall_time))
        seen.add((now, step))
    points[:] = upgraded


def _experiment(hyperparameters):
    """Return the summary that says which columns TensorBoard's table of runs has, in every run the same.

    TensorBoard takes the columns from one of the runs. So they are the fields of all kinds of optimisers and schedules.
    """
    fields = {"model": "", "seed": 0, "precision": "", "data_path": ""} | dict(_all_fields()) | dict(hyperparameters)
    infos = [
        api_pb2.HParamInfo(name=f"hparams/{name}", display_name=name, type=_data_type(value), differs=name in COLUMNS)
        for name, value in fields.items()
    ]
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=label) for tag, label in METRICS.items()]
    return experiment_pb(infos, metrics, description="Runs of train.py")


def _all_fields() -> Iterator[tuple[str, object]]:
    for kind in KINDS.values():
        part = "optimizer" if issubclass(kind, Optimizer) else "schedule"
        yield from flatten(Config(**{part: kind()})).items()


def _data_type(value):
    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_FLOAT64 if isinstance(value, (int, float)) else api_pb2.DATA_TYPE_STRING


def _layout():
    """Return the charts of the tab "Custom Scalars": curves that belong together in one chart."""
    charts = {
        "perplexity by epoch: train, valid, published": (f"{TRAIN}$", f"{VALID}$", PUBLISHED),
        "train perplexity within an epoch": (RUNNING,),
        "learning rate": (LEARNING_RATE,),
        "gradient norm": (GRADIENT_NORM,),
    }
    chart = [
        layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags)) for title, tags in charts.items()
    ]
    return layout_pb2.Layout(category=[layout_pb2.Category(title="training", chart=chart)])


def _open(folder):
    """Return the writer of a new event file.

    TensorBoard's own EventFileWriter writes in a thread, where a full disk raises a traceback instead of an error here.
    """
    name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
    writer = RecordWriter(open(folder / name, "wb"))  # noqa: SIM115 -- stays open as long as the run
    writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    return writer


def _printable(value):
    """Return a hyperparameter as TensorBoard takes it: lists as text, and no surrogates of undecodable paths."""
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
