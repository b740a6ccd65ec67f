"""Measure the phases of our training step: milliseconds of each, beside the least that this machine could take.

    python -m benchmarks.phases --model=medium --rounds=5

Each phase is the program's own code, compiled separately, with the real shapes. Two phases cannot be called separately. They
are differences within a round:

    recurrence forward  = layer forward - input products
    recurrence backward = layer forward and backward - layer forward - products for the gradients of weights and inputs

The whole step is timed too. The difference between it and the sum of the phases shows how accurate this division is.
"""

import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from absl import flags

import cli
from benchmarks import limits
from benchmarks.machine import describe_machine, write_record
from benchmarks.peers import ours
from benchmarks.pieces import make_pieces
from benchmarks.workload import FORWARD_AND_BACKWARD, MODELS, Workload
from configs import find_config
from ptb.runtime import devices


class Phase(NamedTuple):
    """A part of the step: its seconds in each round, and the least work that it needs."""

    name: str
    seconds: list
    flops: int = 0
    bytes: int = 0


def define_flags(values: flags.FlagValues) -> None:
    options = {"flag_values": values}
    flags.DEFINE_enum("model", "small", MODELS, "Configuration with the shapes; see configs.py.", **options)
    cli.define_precision(values, "auto")
    cli.define_rnn_mode(values)
    flags.DEFINE_integer("rounds", 5, "How often each phase is timed.", lower_bound=1, **options)
    flags.DEFINE_float("turn_seconds", 0.2, "Approximate duration of each timing.", lower_bound=0, **options)
    flags.DEFINE_integer("vocab_size", 10_000, "Number of different words.", lower_bound=2, **options)
    flags.DEFINE_string("json", None, "File to write the record to.", **options)


def main(values: flags.FlagValues) -> None:
    gpus = devices.visible_gpus()
    kernel = devices.choose_kernel(values.rnn_mode, gpus)
    precision = devices.choose_precision(values.precision, gpus)
    workload = Workload.of(find_config(values.model), values.vocab_size)
    pieces = make_pieces(workload, kernel, devices.use_precision(precision))
    whole = ours.Trainer(workload, precision, kernel)
    pieces["whole step"] = whole.step
    measured_limits = {what: limits.Trainer(workload, precision, what) for what in ("product", "stream")}
    pieces |= {what: limit.step for what, limit in measured_limits.items()}
    seconds = time_in_turn(pieces, values.rounds, values.turn_seconds)
    rates = {
        what: limit.description["work_per_step"] / statistics.median(seconds[what]) for what, limit in measured_limits.items()
    }
    phases = derive_phases(workload, seconds)
    print(
        f"{values.model}, kernel {kernel}, {precision}: large product {rates['product'] / 1e9:.0f} Gflop/s, "
        f"memory {rates['stream'] / 1e9:.0f} GB/s"
    )
    print_phases(phases, rates)
    if values.json:
        record = {"machine": describe_machine(), "model": values.model, "kernel": kernel, "precision": precision}
        write_record(values.json, record | {"rates": rates, "phases": [phase._asdict() for phase in phases]})


def time_in_turn(pieces: dict[str, Callable], rounds: int, turn_seconds: float) -> dict[str, list[float]]:
    """Return the seconds of one call of each piece, one value per round. A timing takes about `turn_seconds`."""
    seconds = {name: [] for name in pieces}
    calls = {name: max(2, math.ceil(turn_seconds / time_calls(piece, 2))) for name, piece in pieces.items()}
    for _ in range(rounds):
        for name, piece in pieces.items():
            seconds[name].append(time_calls(piece, calls[name]))
    return seconds


def time_calls(piece: Callable, calls: int) -> float:
    """Return the mean seconds of `calls` calls. One call before them is not timed: it compiles, or fills the caches."""
    limits.finish(piece())
    started = time.perf_counter()
    for _ in range(calls):
        result = piece()
    limits.finish(result)
    return (time.perf_counter() - started) / calls


def derive_phases(workload: Workload, seconds: dict[str, list[float]]) -> list[Phase]:
    """Return the phases of a step, then their sum, then the whole step."""
    layers, product_flops = workload.num_layers, workload.lstm_flops // 2  # of x W in all layers; h R takes the same
    features = 4 * workload.words_per_step * workload.hidden_size  # bytes
    weights = 4 * (layers * (8 * workload.hidden_size**2) + workload.vocab_size * workload.hidden_size)

    def rounds(whole, *parts, times=layers):
        return [times * (a - sum(b)) for a, *b in zip(seconds[whole], *[seconds[part] for part in parts])]

    has_dropout = workload.dropout > 0
    phases = [
        Phase("embedding", rounds("embedding", times=1), bytes=4 * features),  # rows and their gradient, read and written
        Phase("dropout after layers", rounds("dropout_after_layer", times=layers * has_dropout),
              bytes=4 * layers * features * has_dropout),
        Phase("input products", rounds("input_products"), product_flops),
        Phase("recurrence forward", rounds("layer_forward", "input_products"), product_flops),
        Phase("recurrence backward", rounds("layer_forward_backward", "layer_forward", "gradient_products"), product_flops),
        Phase("weight and input gradients", rounds("gradient_products"), 3 * product_flops),
        Phase("softmax and loss", rounds("softmax_and_loss", times=1), FORWARD_AND_BACKWARD * workload.softmax_flops),
        Phase("clip and update", rounds("clip_and_update", times=1), bytes=4 * weights),  # gradient twice, weights in and out
    ]  # fmt: skip
    total = [sum(values) for values in zip(*[phase.seconds for phase in phases])]
    flops, moved = workload.flops_per_step, sum(phase.bytes for phase in phases)
    return [*phases, Phase("sum", total, flops, moved), Phase("whole step", seconds["whole step"], flops, moved)]


def print_phases(phases: list[Phase], rates: dict[str, float]) -> None:
    """Print a table: median milliseconds, the least possible at these `rates`, and their quotient."""
    print(f"{'phase':28}{'ms':>9}{'least ms':>10}{'share':>8}")
    for phase in phases:
        spent = 1e3 * statistics.median(phase.seconds)
        least = 1e3 * (phase.flops / rates["product"] + phase.bytes / rates["stream"])
        print(f"{phase.name:28}{spent:9.3f}{least:10.3f}{least / spent if spent else 0:8.1%}")


if __name__ == "__main__":
    cli.run(main, define_flags)
