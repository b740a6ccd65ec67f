"""A finished or unfinished run, opened for use: evaluate.py and generate.py start here."""

import dataclasses

import numpy as np

from configs import DEFAULTS, Config
from ptb import devices
from ptb.progress import best_weights, learnt_variables, load_variables
from ptb.run import Run, RunError
from reader import EOS, Vocabulary

KINDS = {int: (int,), float: (int, float), str: (str,), bool: (bool,), str | None: (str, type(None))}  # of JSON's values
BESIDE = {"model": str, "seed": int, "precision": str, "corpus": str, "data_path": str | None}  # which train.py adds to Config


class Trained:
    """What a run was trained with, and the way to its model; RunError or DataError where the folder `path` holds none."""

    def __init__(self, path):
        self.run = Run(path)
        if self.run.config is None:
            raise RunError(f"{path}: holds no run (no config.json); name the --save_path of a training run")
        if not self.run.checkpoints():
            raise RunError(f"{path}: holds no checkpoint yet; train it first, or let it train for longer")
        self.config = config_of(self.run)
        self.vocabulary = Vocabulary.load(self.run.vocabulary_path)

    def load_model(self, rnn_mode="auto", precision="float32", into=None):
        """Returns the model with the run's best weights, or its newest where it keeps no best; RunError if they do not fit.

        `precision` is what `devices.choose_precision` gave. A model that another run of the same configuration and vocabulary
        has made may be passed as `into`: it gets the weights, and what was compiled for it still serves.
        """
        checkpoint = self.run.load_checkpoint()
        if checkpoint is None:
            raise RunError(f"{self.run.path}: its checkpoints have gone since it was opened; restore them from a copy")
        check_sizes(checkpoint, self.config, self.vocabulary, self.run)
        model = self._make_model(rnn_mode, precision) if into is None else into
        weights = checkpoint._replace(arrays=best_weights(checkpoint) or checkpoint.arrays)
        load_variables(weights, learnt_variables(model))
        return model

    def _make_model(self, rnn_mode, precision):
        kernel = devices.choose_kernel(rnn_mode, devices.visible_gpus(), self.config.cell)
        return self.config.make_model(len(self.vocabulary), rnn_mode=kernel, product_dtype=devices.use_precision(precision))


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
