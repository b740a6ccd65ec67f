"""Trainings within the test's own process, where a test looks at the model and the progress."""

import dataclasses

import train
from fuzz.targets import RECORDED
from ptb.run import Run
from ptb.signals import StopRequest


class StopAt:
    """A request to stop that comes after `count` questions for one."""

    def __init__(self, count):
        self.count, self.hint = count, ""

    def requested(self):
        self.count -= 1
        return self.count < 0

    def watch(self, windows):
        for window in windows:
            if self.requested():
                self.exit()
            yield window

    def exit(self):
        raise SystemExit(143)


def begin(config, corpus, folder, stop=None, precision="float32", rewinds=False, **watching):
    """Trains a configuration in a folder, as train.py does. Returns the model and the progress."""
    run = Run(folder)
    run.begin(dataclasses.asdict(config) | RECORDED)
    run.write_vocabulary(corpus.vocabulary)
    setting = {"seed": 1, "precision": precision}
    model = config.make_model(len(corpus.vocabulary), seed=1)
    with StopRequest() as request:
        watching = train.Watching(**watching)
        return model, train.train(config, corpus, run, model, setting, stop or request, watching, rewinds)
