"""Measure what each technique of docs/techniques.md costs: milliseconds of a training step with it and without it.

    python -m benchmarks.techniques --rounds=5 --json=techniques.json

All start from one plain model and take turns in one process. A ratio compares a step with the plain one of the same round.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import flags

import cli
from benchmarks.machine import describe_machine, write_record
from benchmarks.phases import time_in_turn
from benchmarks.workload import random_windows
from configs import find_config
from ptb.config import Adam, Config, Dropout, override
from ptb.model.language_model import LanguageModel, build_model
from ptb.runtime import devices
from ptb.training.averaging import WeightAverages
from ptb.training.optimizers import make_optimizer
from ptb.training.step import Sums, make_train_step

VOCAB_SIZE = 10_000
TECHNIQUES = {
    "plain": {},
    "embedding tied to the softmax": {"tied": True},
    "projection": {"projection": "affine"},
    "sum of the layers": {"sum_layers": True},
    "capped input gate": {"cell": "capped_lstm"},
    "Mogrifier, 5 rounds of rank 84": {"cell": "mogrifier_lstm", "mogrifier_rounds": 5, "mogrifier_rank": 84},
    "mixture of 3 softmaxes": {"mixture": 3},
    "dropout of inputs, hidden and outputs": {"dropout": Dropout.everywhere(0.5)},
    "the same, locked": {"dropout": Dropout(input=0.5, hidden=0.5, output=0.5, locked=True)},
    "dropout of the state": {"dropout": Dropout(state=0.3)},
    "dropout of embedding rows": {"dropout": Dropout(embedding=0.1)},
    "DropConnect": {"dropout": Dropout(weights=0.5)},
    "AR and TAR": {"ar": 2.0, "tar": 1.0},
    "L2 in the loss": {"l2": 1e-4},
    "weight decay": {"weight_decay": 1e-6},
    "Adam": {"optimizer": Adam(clip_norm=5)},
    "two-tailed averages": {"averaging": "two_tailed"},
}


class Cost(NamedTuple):
    """Times of the training step with one technique."""

    name: str
    kernel: str
    parameters: int
    milliseconds: float  # median over the rounds
    ratio: float  # to the plain step: median, smallest and largest over the rounds
    smallest: float
    largest: float


def define_flags(values: flags.FlagValues) -> None:
    options = {"flag_values": values}
    flags.DEFINE_list("layers", ["650", "650"], "Sizes of the recurrent layers.", **options)
    flags.DEFINE_integer("batch_size", 20, "Rows of a batch.", lower_bound=1, **options)
    cli.define_precision(values, "auto")
    flags.DEFINE_integer("rounds", 5, "How often each is timed.", lower_bound=1, **options)
    flags.DEFINE_float("turn_seconds", 0.5, "Approximate duration of each timing.", lower_bound=0, **options)
    flags.DEFINE_string("json", None, "File to write the record to.", **options)


def main(values: flags.FlagValues) -> None:
    precision = devices.choose_precision(values.precision, devices.visible_gpus())
    plain = override(
        find_config("medium"), {"layers": ",".join(values.layers), "batch_size": values.batch_size, "dropout": 0.0}
    )
    costs = measure(plain, precision, values.rounds, values.turn_seconds)
    print(f"layers {','.join(values.layers)}, batch {values.batch_size} × {plain.num_steps} words, {precision}")
    print(f"{'':40}{'kernel':10}{'parameters':>12}{'ms':>9}   ÷ plain")
    for cost in costs:
        ratio = f"{cost.ratio:.2f} [{cost.smallest:.2f}, {cost.largest:.2f}]"
        print(f"{cost.name:40}{cost.kernel:10}{cost.parameters:12,}{cost.milliseconds:9.1f}   {ratio}")
    if values.json:
        record = {"machine": describe_machine(), "precision": precision, "layers": values.layers}
        record |= {"batch_size": values.batch_size, "num_steps": plain.num_steps}
        write_record(values.json, record | {"costs": [cost._asdict() for cost in costs]})


def measure(plain: Config, precision: str, rounds: int, turn_seconds: float) -> list[Cost]:
    """Return the cost of each of TECHNIQUES, added to the configuration `plain`."""
    product_dtype = devices.use_precision(precision)
    configs = {name: override(plain, changes) for name, changes in TECHNIQUES.items()}
    models = {name: build_model(config, VOCAB_SIZE, product_dtype=product_dtype) for name, config in configs.items()}
    calls = {name: make_step(models[name], config) for name, config in configs.items()}
    costs = []
    seconds = time_in_turn(calls, rounds, turn_seconds)
    for name, of_rounds in seconds.items():
        ratios = [mine / base for mine, base in zip(of_rounds, seconds["plain"])]
        model, spent = models[name], 1e3 * statistics.median(of_rounds)
        of_plain = statistics.median(ratios), min(ratios), max(ratios)
        costs.append(Cost(name, model.rnn_mode, model.count_params(), spent, *of_plain))
    return costs


def make_step(model: LanguageModel, config: Config) -> Callable:
    """Return a function that trains for one step on random words."""
    optimizer, averages = make_optimizer(config.optimizer), WeightAverages(config.averaging, model.trainable_variables)
    train_step = make_train_step(model, config, optimizer, averages)
    ((inputs, targets),) = random_windows(VOCAB_SIZE, config.batch_size, config.num_steps, count=1)
    rate, seed, state = np.float32(1e-3), np.zeros(2, np.int32), model.initial_state(config.batch_size)

    def step():
        return train_step(inputs, targets, state, Sums.zero(), rate, seed)[1]

    return step


if __name__ == "__main__":
    cli.run(main, define_flags)
