"""A run's curves for TensorBoard: points that travel in the checkpoints, and event files that are made from them."""

import os
import socket
import time

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import api as hparams_plugin
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from ptb.run import writing

SERIES = ("", "train", "valid")  # folders below that of the run; "" is that itself


def printable(value):
    """Returns a hyperparameter with what is not UTF-8 in a path escaped: no protocol buffer would take it."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


class Curves:
    """Writes points to event files below a run's folder, one of `SERIES` a folder.

    It begins with fresh files that hold the `points` of a resumed run: what a crashed one wrote after its last
    checkpoint is dropped, so that curves never overlap. New points join this list, which is the checkpoint's.
    """

    def __init__(self, run, points, hyperparameters):
        self._folder, self._read_only = run.path, run.read_only
        self._writers = {}
        if not self._read_only:
            with writing(self._folder):
                for series in SERIES:
                    for stale in (self._folder / series).glob("events.out.*"):
                        stale.unlink()
        self.points = points
        # Given a name, a resumed run stays the same trial in TensorBoard's hyperparameters, which take no None; that of its
        # folder alone would make one trial of runs/a/1 and runs/b/1.
        given = {name: printable(value) for name, value in (hyperparameters or {}).items() if value is not None}
        trial = hparams_plugin.hparams_pb(given, trial_id=printable("/".join(self._folder.resolve().parts[-2:])))
        self._write_event("", Event(wall_time=time.time(), summary=trial))
        for point in points:
            self._plot(*point)

    def add(self, series, tag, step, value):
        """Adds one point, a number or a text; it is on disk when the next `flush` returns."""
        self.points.append((series, tag, step, value if isinstance(value, str) else float(value), time.time()))
        self._plot(*self.points[-1])

    def flush(self):
        for series, writer in self._writers.items():
            with writing(self._folder / series):
                writer.flush()

    def close(self):
        for series, writer in self._writers.items():
            with writing(self._folder / series):
                writer.close()

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
        """Returns the writer of a fresh event file.

        TensorBoard's own EventFileWriter writes from a thread, where a full disk is not an error of the training's but a
        traceback.
        """
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        writer = RecordWriter(open(folder / name, "wb"))  # noqa: SIM115 -- stays open as long as the run
        writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        return writer
