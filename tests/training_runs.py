"""Trainings within the test's own process, where a test looks at the model and the progress."""

import dataclasses

import train
from fuzz.targets import RECORDED
from ptb.run import Run
from ptb.signals import StopRequest


def begin(config, corpus, folder, stop=None, precision="float32", **watching):
    """Trains a configuration in a folder, as train.py does. Returns the model and the progress."""
    run = Run(folder)
    run.begin(dataclasses.asdict(config) | RECORDED)
    run.write_vocabulary(corpus.vocabulary)
    setting = {"seed": 1, "precision": precision}
    model = config.make_model(len(corpus.vocabulary), seed=1)
    with StopRequest("") as request:
        return model, train.train(config, corpus, run, model, setting, stop or request, train.Watching(**watching))
