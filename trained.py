"""A finished or unfinished run, opened for use: evaluate.py and generate.py start here."""

import dataclasses
from typing import NamedTuple

from configs import Config
from ptb import devices
from ptb.model import LanguageModel
from ptb.progress import load_weights
from ptb.run import Run, RunError
from reader import Vocabulary


class Trained(NamedTuple):
    """The model of a run with its newest weights, and the vocabulary that it was trained with."""

    model: LanguageModel
    vocabulary: Vocabulary
    run: Run


def load(path, rnn_mode="auto", precision="auto"):
    """Returns the `Trained` model of the run folder `path`; RunError where there is none."""
    run = Run(path)
    if run.config is None:
        raise RunError(f"{path}: holds no run (no config.json); name the --save_path of a training run")
    checkpoint = run.load_checkpoint()
    if checkpoint is None:
        raise RunError(f"{path}: holds no checkpoint yet; train it first, or let it train for longer")
    try:
        config = Config(**{field.name: run.config[field.name] for field in dataclasses.fields(Config)})
    except KeyError as error:
        raise RunError(
            f"{run.path / 'config.json'}: has no {error}; it was written by another version of this program"
        ) from None
    vocabulary = Vocabulary.load(run.vocabulary_path)
    gpus = devices.visible_gpus()
    model = config.make_model(
        len(vocabulary),
        rnn_mode=devices.choose_kernel(rnn_mode, gpus),
        product_dtype=devices.product_dtype(devices.choose_precision(precision, gpus)),
    )
    load_weights(checkpoint[0], model)
    return Trained(model, vocabulary, run)
