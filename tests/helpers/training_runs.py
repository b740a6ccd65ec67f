"""Trainings in the test's own process, for tests that look at the model and the state."""

import train
from helpers.run_files import record_of
from ptb.model.language_model import build_model
from ptb.runs.folder import RunFolder
from ptb.runs.progress import Monitoring, Progress
from ptb.runtime.signals import StopRequest

NEVER = 1_000_000_000


def settings(changes):
    """Return the --set flags of an `override`."""
    return [f"--set={name}={train.value_text(value)}" for name, value in changes.items()]


class StopAt:
    """A `StopRequest` that comes after `count` questions for one."""

    def __init__(self, count=NEVER):
        self.count, self.hint = count, ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

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


def begin(config, corpus, folder, stop=None, precision="float32", **monitoring):
    """Train a configuration in a folder to its end, but do not score the test text. Return the model and the state."""
    run = RunFolder(folder)
    run.begin(record_of(config, corpus.fingerprint()), corpus.vocabulary)
    model = build_model(config, len(corpus.vocabulary), seed=1)
    setting = {"seed": 1, "precision": precision}
    with StopRequest() as request, Progress(run, config, {}, Monitoring(**monitoring)) as shown:
        return model, train.train_epochs(config, corpus, run, model, setting, stop or request, shown)
