"""A finished or unfinished run, opened for use: evaluate.py and generate.py start here."""

import dataclasses
from typing import NamedTuple

import numpy as np

from configs import DEFAULTS, Config
from ptb import devices
from ptb.model import LanguageModel
from ptb.progress import best_weights, learnt_variables, load_variables
from ptb.run import Run, RunError
from reader import EOS, Vocabulary

KINDS = {int: (int,), float: (int, float), str: (str,), bool: (bool,), str | None: (str, type(None))}  # of JSON's values
BESIDE = {"model": str, "seed": int, "precision": str, "corpus": str, "data_path": str | None}  # which train.py adds to Config


class Trained(NamedTuple):
    """The model of a run with its best weights, or its newest where it keeps no best, and what it was trained with."""

    model: LanguageModel
    vocabulary: Vocabulary
    config: Config
    run: Run
    precision: str  # of its matrix products


def load(path, rnn_mode="auto", precision="auto"):
    """Returns the `Trained` model of the run folder `path`; RunError where there is none."""
    run = Run(path)
    if run.config is None:
        raise RunError(f"{path}: holds no run (no config.json); name the --save_path of a training run")
    checkpoint = run.load_checkpoint()
    if checkpoint is None:
        raise RunError(f"{path}: holds no checkpoint yet; train it first, or let it train for longer")
    config = config_of(run)
    vocabulary = Vocabulary.load(run.vocabulary_path)
    check_sizes(checkpoint, config, vocabulary, run)
    gpus = devices.visible_gpus()
    precision = devices.choose_precision(precision, gpus)
    model = config.make_model(
        len(vocabulary),
        rnn_mode=devices.choose_kernel(rnn_mode, gpus, config.cell),
        product_dtype=devices.use_precision(precision),
    )
    weights = checkpoint._replace(arrays=best_weights(checkpoint) or checkpoint.arrays)
    load_variables(weights, learnt_variables(model))
    return Trained(model, vocabulary, config, run, precision)


def check_sizes(checkpoint, config, vocabulary, run):
    """Raises RunError where the vocabulary or the configuration are not those of the checkpoint, before a model is made."""
    shape = np.shape(checkpoint.arrays.get("weights/language_model/softmax_weights"))
    if EOS not in vocabulary.ids or shape[:1] != (len(vocabulary),):
        raise RunError(f"{run.vocabulary_path}: is not the vocabulary of {checkpoint.path.name}; restore it from a copy")
    last, beyond = (f"weights/{config.cell}_{number}/kernel" for number in (config.num_layers - 1, config.num_layers))
    if shape[1:] != (config.hidden_size,) or last not in checkpoint.arrays or beyond in checkpoint.arrays:
        raise RunError(
            f"{run.path / 'config.json'}: is not the configuration of {checkpoint.path.name}; restore it from a copy"
        )


def config_of(run):
    """Returns the `Config` in a run's `config.json`; RunError if it is not one of this version of the program."""
    config = DEFAULTS | run.config
    fields = {field.name: field.type for field in dataclasses.fields(Config)}
    kinds = fields | BESIDE
    missing, unknown = kinds.keys() - config.keys(), config.keys() - kinds.keys()
    wrong = {name for name, kind in kinds.items() if name in config and type(config[name]) not in KINDS[kind]}
    for names, what in ((missing, "lacks"), (unknown, "has"), (wrong, "has an unusable value of")):
        if names:
            raise RunError(
                f"{run.path / 'config.json'}: {what} {', '.join(sorted(names))}; it was written by another version "
                "of this program: use that one"
            )
    try:
        return Config(**{name: config[name] for name in fields})
    except ValueError as error:
        raise RunError(f"{run.path / 'config.json'}: {error}; restore it from a copy") from None
