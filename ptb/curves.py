"""A run's curves for TensorBoard: points that travel in the checkpoints, and event files that are made from them."""

import pathlib
import time

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import api as hparams_plugin
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class Curves:
    """Writes points to event files below `folder`, one series ("" itself, "train", "valid") a folder.

    It begins with fresh files that hold the `points` of a resumed run: what a crashed one wrote after its last
    checkpoint is dropped, so that curves never overlap.
    """

    def __init__(self, folder, points, hyperparameters):
        self._folder = pathlib.Path(folder)
        self._writers = {}
        for stale in [*self._folder.glob("events.out.*"), *self._folder.glob("*/events.out.*")]:
            stale.unlink()
        self.points = []
        # Given a name of its own, a resumed run stays the same trial in TensorBoard's table of hyperparameters.
        trial = hparams_plugin.hparams_pb(hyperparameters, trial_id=self._folder.name)
        self._writer("").add_event(Event(wall_time=time.time(), summary=trial))
        for point in points:
            self._write(*point)

    def add(self, series, tag, step, value):
        """Adds one point; it is on disk when the next `flush` returns."""
        self._write(series, tag, step, float(value), time.time())

    def flush(self):
        for writer in self._writers.values():
            writer.flush()

    def close(self):
        for writer in self._writers.values():
            writer.close()

    def _write(self, series, tag, step, value, wall_time):
        self.points.append((series, tag, step, value, wall_time))
        self._writer(series).add_event(Event(wall_time=wall_time, step=step, summary=scalar_pb(tag, value)))

    def _writer(self, series):
        if series not in self._writers:
            self._writers[series] = EventFileWriter(str(self._folder / series))
        return self._writers[series]
