"""The parameters and the matrix products of a configuration's model, by its shapes."""

import itertools
import math

from ptb.config import Config
from ptb.model.cells import CELLS

VOCAB_SIZE = 10_000  # of PTB


def count_parameters(config: Config, vocab_size: int) -> int:
    """Return the number of trainable parameters of a configuration's model."""
    model, cell, features = config.model, CELLS[config.model.cell], config.model.features_size
    sizes = [vocab_size if model.one_hot_input else model.input_size, *model.layers]
    total = 0 if model.one_hot_input else vocab_size * model.input_size
    for before, units in itertools.pairwise(sizes):
        total += units * cell.num_gates * (before + units + 1 + model.two_biases)
        extra = cell.extra_weights(before, units, model.mogrifier_rounds, model.mogrifier_rank)
        total += sum(math.prod(weight.shape) for weight in extra)
    if model.projection != "none":
        total += (sizes[-1] + (model.projection == "affine")) * features
    if model.mixture:
        total += model.mixture * ((sizes[-1] + 1) * features + sizes[-1])
    return total + (1 if model.tied else features + 1) * vocab_size


def products_per_token(config: Config, vocab_size: int = VOCAB_SIZE) -> int:
    """Return the multiplications and additions of one token's forward pass in matrix products, each pair counted once."""
    model, cell, total = config.model, CELLS[config.model.cell], 0
    sizes = [model.input_size, *model.layers]
    for before, units in itertools.pairwise(sizes):
        total += cell.num_gates * units * (before + units)
        if cell.reads_raw_input:
            extra = cell.extra_weights(before, units, model.mogrifier_rounds, model.mogrifier_rank)
            total += sum(math.prod(weight.shape) for weight in extra if len(weight.shape) == 2)  # the others are biases
    softmaxes = max(model.mixture, 1)
    if model.mixture or model.projection != "none":
        total += softmaxes * sizes[-1] * model.features_size
    return total + softmaxes * model.features_size * vocab_size
