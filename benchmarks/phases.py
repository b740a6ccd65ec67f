"""Where the time of our step goes: milliseconds of each phase, beside the least that the machine could take for it.

    python -m benchmarks.phases --model=medium --rounds=5

Each phase is the program's own code, compiled on its own, at the real shapes. What cannot be called alone is a difference
within a round: the recurrence forward is the layer's forward pass less the input products; the recurrence backward is the
layer's forward and backward pass less its forward pass and less the products that give the gradients of weights and inputs. How
far the sum of the phases is from the whole step, which is timed too, says how well that holds.
"""

import math
import statistics
import time
from typing import NamedTuple

from absl import flags

import commands
from benchmarks import limits
from benchmarks.machine import describe_machine, write_record
from benchmarks.peers import ours
from benchmarks.pieces import make_pieces
from benchmarks.workload import FORWARD_AND_BACKWARD, MODELS, Workload
from configs import CONFIGS
from ptb import devices

FLAGS = flags.FLAGS


class Phase(NamedTuple):
    """A part of the step: its seconds in each round, and the least work it must do."""

    name: str
    seconds: list
    flops: int = 0
    bytes: int = 0


def define_flags():
    flags.DEFINE_enum("model", "small", MODELS, "Shapes: see configs.py.")
    flags.DEFINE_enum("precision", "auto", devices.PRECISIONS, "Of matrix products: see ptb/devices.py.")
    flags.DEFINE_enum("rnn_mode", "auto", devices.RNN_MODES, "LSTM kernel: see ptb/kernels.py.")
    flags.DEFINE_integer("rounds", 5, "How often each phase is timed.", lower_bound=1)
    flags.DEFINE_float("turn_seconds", 0.2, "About how long each of these times takes.", lower_bound=0)
    flags.DEFINE_integer("vocab_size", 10_000, "Number of different words.", lower_bound=2)
    flags.DEFINE_string("json", None, "File to write the record to.")


def main(_):
    gpus = devices.visible_gpus()
    kernel = devices.choose_kernel(FLAGS.rnn_mode, gpus)
    precision = devices.choose_precision(FLAGS.precision, gpus)
    workload = Workload.of(CONFIGS[FLAGS.model], FLAGS.vocab_size)
    pieces = make_pieces(workload, kernel, devices.use_precision(precision))
    whole = ours.Trainer(workload, precision, kernel)
    pieces["whole step"] = whole.step
    ceiling = {what: limits.Trainer(workload, precision, what) for what in ("product", "stream")}
    seconds = time_in_turn(pieces | {what: limit.step for what, limit in ceiling.items()})
    rates = {what: limit.description["work_per_step"] / statistics.median(seconds[what]) for what, limit in ceiling.items()}
    phases = derive_phases(workload, seconds)
    print(f"{FLAGS.model}, kernel {kernel}, {precision}: large product {rates['product'] / 1e9:.0f} Gflop/s, "
          f"memory {rates['stream'] / 1e9:.0f} GB/s")  # fmt: skip
    print_phases(phases, rates)
    if FLAGS.json:
        write_record(FLAGS.json, {"machine": describe_machine(), "model": FLAGS.model, "kernel": kernel, "precision": precision,
                                  "rates": rates, "phases": [phase._asdict() for phase in phases]})  # fmt: skip


def time_in_turn(pieces):
    """Returns `{name: seconds of one call, for each round}`."""
    seconds = {name: [] for name in pieces}
    calls = {name: max(2, math.ceil(FLAGS.turn_seconds / time_calls(piece, 2))) for name, piece in pieces.items()}
    for _ in range(FLAGS.rounds):
        for name, piece in pieces.items():
            seconds[name].append(time_calls(piece, calls[name]))
    return seconds


def time_calls(piece, calls):
    """Returns the seconds of one of so many calls. The first is not counted: it compiles, or finds the caches cold."""
    limits.finish(piece())
    started = time.perf_counter()
    for _ in range(calls):
        result = piece()
    limits.finish(result)
    return (time.perf_counter() - started) / calls


def derive_phases(workload, seconds):
    """Returns the phases of a step, then their sum and the whole step."""
    layers, product_flops = workload.num_layers, workload.lstm_flops // 2  # of x W in all layers; h R takes the same
    features = 4 * workload.words_per_step * workload.hidden_size  # bytes
    weights = 4 * (layers * (8 * workload.hidden_size**2) + workload.vocab_size * workload.hidden_size)

    def rounds(whole, *parts, times=layers):
        return [times * (a - sum(b)) for a, *b in zip(seconds[whole], *[seconds[part] for part in parts])]

    has_dropout = workload.keep_prob < 1
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


def print_phases(phases, rates):
    print(f"{'phase':28}{'ms':>9}{'least ms':>10}{'share':>8}")
    for phase in phases:
        spent = 1e3 * statistics.median(phase.seconds)
        least = 1e3 * (phase.flops / rates["product"] + phase.bytes / rates["stream"])
        print(f"{phase.name:28}{spent:9.3f}{least:10.3f}{least / spent if spent else 0:8.1%}")


if __name__ == "__main__":
    commands.run(main, define_flags)
