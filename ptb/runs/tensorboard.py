"""A run's curves for TensorBoard: points that travel in the checkpoints, and event files made from them."""

import os
import socket
import time

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import api as hparams_plugin
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from ptb.runs.folder import RunFolder
from ptb.runs.storage import writing

SERIES = ("", "train", "valid")  # subfolders of the run folder; "" is the run folder itself


class Curves:
    """Write points to event files in a run folder, one of `SERIES` per file.

    Starts with new files that hold the `points` of a resumed run. What a crashed process wrote after its last checkpoint is
    deleted, so curves never overlap. New points are appended to `points`, which is the list in the checkpoint.
    """

    def __init__(self, run: RunFolder, points: list, hyperparameters: dict):
        self._folder, self._read_only = run.path, run.read_only
        self._writers = {}
        if not self._read_only:
            with writing(self._folder):
                for series in SERIES:
                    for stale in (self._folder / series).glob("events.out.*"):
                        stale.unlink()
        self.points = points
        self._write_event("", Event(wall_time=time.time(), summary=self._trial(hyperparameters)))
        for point in points:
            self._plot(*point)

    def add(self, series: str, tag: str, step: int, value: float | str) -> None:
        """Add one point, a number or a text. It is on disk after the next `flush`."""
        self.points.append((series, tag, step, value if isinstance(value, str) else float(value), time.time()))
        self._plot(*self.points[-1])

    def flush(self) -> None:
        for series, writer in self._writers.items():
            with writing(self._folder / series):
                writer.flush()

    def close(self) -> None:
        for series, writer in self._writers.items():
            with writing(self._folder / series):
                writer.close()

    def _trial(self, hyperparameters):
        """Return the summary for TensorBoard's hyperparameters, which take no None and no lists.

        The trial has a name, so that a resumed run stays the same trial. The name has two folders, so that runs/a/1 and
        runs/b/1 are two trials.
        """
        given = {name: _printable(value) for name, value in hyperparameters.items() if value is not None}
        return hparams_plugin.hparams_pb(given, trial_id=_printable("/".join(self._folder.resolve().parts[-2:])))

    def _plot(self, series, tag, step, value, wall_time):
        make_summary = text_pb if isinstance(value, str) else scalar_pb
        self._write_event(series, Event(wall_time=wall_time, step=step, summary=make_summary(tag, value)))

    def _write_event(self, series, event):
        if self._read_only:
            return
        with writing(self._folder / series):
            if series not in self._writers:
                self._writers[series] = self._open(self._folder / series)
            self._writers[series].write(event.SerializeToString())

    def _open(self, folder):
        """Return the writer of a new event file.

        TensorBoard's own EventFileWriter writes in a thread, where a full disk raises a traceback instead of an error here.
        """
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        writer = RecordWriter(open(folder / name, "wb"))  # noqa: SIM115 -- stays open as long as the run
        writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        return writer


def _printable(value):
    """Return a hyperparameter as TensorBoard takes it: lists as text, and no surrogates of undecodable paths."""
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
