"""How the time and the memory of our training step grow with hidden size, vocabulary and batch, one of them at a time.

python -m benchmarks.growth --model=small --json=growth.json
"""

import dataclasses
import os
import statistics
import sys

from absl import flags

import commands
from benchmarks.machine import describe_machine, write_record
from benchmarks.worker import Worker, WorkerError
from benchmarks.workload import MODELS, Workload
from configs import CONFIGS
from ptb import devices

VOCAB_SIZE = 10_000
GROWTH = {
    "hidden_size": (100, 200, 400, 800, 1600),
    "vocab_size": (10_000, 50_000, 250_000, 800_000),
    "batch_size": (5, 20, 80, 320),
}

FLAGS = flags.FLAGS


def define_flags():
    flags.DEFINE_enum("model", "small", MODELS, "Shape to start from: see configs.py.")
    flags.DEFINE_enum("precision", "auto", devices.PRECISIONS, "Of matrix products: see ptb/devices.py.")
    flags.DEFINE_integer("rounds", 5, "How often each shape is timed.", lower_bound=1)
    flags.DEFINE_integer("steps", 5, "Training steps each time.", lower_bound=1)
    flags.DEFINE_multi_enum("dimension", list(GROWTH), list(GROWTH), "What grows.")
    flags.DEFINE_integer("softmax_samples", 0, "Estimate the softmax from this many draws: see configs.py.", lower_bound=0)
    flags.DEFINE_string("json", None, "File to write the record to.")


def main(_):
    precision = devices.choose_precision(FLAGS.precision, devices.visible_gpus())
    start = Workload.of(CONFIGS[FLAGS.model], VOCAB_SIZE)
    record = {
        "machine": describe_machine(),
        "model": FLAGS.model,
        "precision": precision,
        "softmax_samples": FLAGS.softmax_samples,
        "shapes": [],
    }
    print(f"{'':24}{'ms/step':>9}{'words/s':>9}{'Gflop/s':>9}{'peak MiB':>10}")
    for dimension in FLAGS.dimension:
        for size in GROWTH[dimension]:
            try:
                measured = measure(dataclasses.replace(start, **{dimension: size}), precision)
            except WorkerError as error:
                measured = {"error": str(error)}
            record["shapes"].append({dimension: size} | measured)
            print(f"{dimension:14}{size:10,}{columns(measured)}", flush=True)
            if FLAGS.json:
                write_record(FLAGS.json, record)


def columns(measured):
    """Returns what has been measured of a shape, for people."""
    if "error" in measured:
        return f"   not measured: {measured['error']}"
    flops = measured["flops_per_second"]
    return (
        f"{1e3 * measured['seconds']:9.1f}{measured['words_per_second']:9.0f}"
        f"{'-' if flops is None else format(flops / 1e9, '.0f'):>9}{measured['peak_bytes'] / 2**20:10.0f}"
    )


def measure(workload, precision):
    """Returns the median seconds of a step of this shape, what follows from them, and the peak memory of its process."""
    options = {"rnn_mode": "auto", "softmax_samples": FLAGS.softmax_samples}
    worker = Worker(
        sys.executable, dict(os.environ), module="peers.ours", workload=dataclasses.asdict(workload), precision=precision,
        options=options,
    )  # fmt: skip
    try:
        worker.wait()
        replies = [worker.train(FLAGS.steps) for _ in range(FLAGS.rounds)]
    finally:
        worker.close()
    seconds = statistics.median(reply["seconds"] for reply in replies) / FLAGS.steps
    return {
        "seconds": seconds,
        "words_per_second": workload.words_per_step / seconds,
        "flops_per_second": None if FLAGS.softmax_samples else workload.flops_per_step / seconds,
        "peak_bytes": replies[-1]["peak_bytes"],
    }


if __name__ == "__main__":
    commands.run(main, define_flags)
