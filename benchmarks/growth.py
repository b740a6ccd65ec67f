"""Measure how time and memory of our training step grow with hidden size, vocabulary and batch, each alone.

python -m benchmarks.growth --model=small --json=growth.json
"""

import dataclasses
import os
import statistics
import sys

from absl import flags

import cli
from benchmarks.machine import describe_machine, write_record
from benchmarks.worker import Worker, WorkerError
from benchmarks.workload import MODELS, Workload
from configs import find_config
from ptb.runtime import devices

VOCAB_SIZE = 10_000
GROWTH = {
    "hidden_size": (100, 200, 400, 800, 1600),
    "vocab_size": (10_000, 50_000, 250_000, 800_000),
    "batch_size": (5, 20, 80, 320),
}


def define_flags(values: flags.FlagValues) -> None:
    options = {"flag_values": values}
    flags.DEFINE_enum("model", "small", MODELS, "Configuration to start from; see configs.py.", **options)
    cli.define_precision(values, "auto")
    flags.DEFINE_integer("rounds", 5, "How often each shape is timed.", lower_bound=1, **options)
    flags.DEFINE_integer("steps", 5, "Training steps each time.", lower_bound=1, **options)
    flags.DEFINE_multi_enum("dimension", list(GROWTH), list(GROWTH), "What grows.", **options)
    help = "Estimate the softmax from this many draws (0: exact softmax)."
    flags.DEFINE_integer("softmax_samples", 0, help, lower_bound=0, **options)
    flags.DEFINE_string("json", None, "File to write the record to.", **options)


def main(values: flags.FlagValues) -> None:
    precision, samples = devices.choose_precision(values.precision, devices.visible_gpus()), values.softmax_samples
    start = Workload.of(find_config(values.model), VOCAB_SIZE)
    record = {
        "machine": describe_machine(),
        "model": values.model,
        "precision": precision,
        "softmax_samples": samples,
        "shapes": [],
    }
    print(f"{'':24}{'ms/step':>9}{'words/s':>9}{'Gflop/s':>9}{'peak MiB':>10}")
    for dimension in values.dimension:
        for size in GROWTH[dimension]:
            workload = dataclasses.replace(start, **{dimension: size})
            try:
                measured = measure(workload, precision, samples, values.rounds, values.steps)
            except WorkerError as error:
                measured = {"error": str(error)}
            record["shapes"].append({dimension: size} | measured)
            print(f"{dimension:14}{size:10,}{columns(measured)}", flush=True)
            if values.json:
                write_record(values.json, record)


def columns(measured: dict) -> str:
    """Return the measurements of one shape as columns of the table."""
    if "error" in measured:
        return f"   not measured: {measured['error']}"
    flops = measured["flops_per_second"]
    return (
        f"{1e3 * measured['seconds']:9.1f}{measured['words_per_second']:9.0f}"
        f"{'-' if flops is None else format(flops / 1e9, '.0f'):>9}{measured['peak_bytes'] / 2**20:10.0f}"
    )


def measure(workload: Workload, precision: str, samples: int, rounds: int, steps: int) -> dict:
    """Return the median seconds of a step, the rates that follow from it, and the peak memory of its process.

    Raises WorkerError if the process fails.
    """
    worker = Worker(
        sys.executable,
        dict(os.environ),
        module="peers.ours",
        workload=dataclasses.asdict(workload),
        precision=precision,
        options={"rnn_mode": "auto", "softmax_samples": samples},
    )
    try:
        worker.wait()
        replies = [worker.train(steps) for _ in range(rounds)]
    finally:
        worker.close()
    seconds = statistics.median(reply["seconds"] for reply in replies) / steps
    return {
        "seconds": seconds,
        "words_per_second": workload.words_per_step / seconds,
        "flops_per_second": None if samples else workload.flops_per_step / seconds,
        "peak_bytes": replies[-1]["peak_bytes"],
    }


if __name__ == "__main__":
    cli.run(main, define_flags)
