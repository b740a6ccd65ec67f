"""Time our training step and those of our peers side by side on this machine.

    python -m benchmarks.train_step --models=small,medium --rounds=5 --json=record.json

Every contestant has a process of its own (benchmarks/worker.py). They train in turn, and the order is reversed every other
round. So a slow phase of the machine affects all of them. Ratios compare times of the same round.
"""

import dataclasses
import itertools
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from absl import flags

import cli
from benchmarks.machine import describe_machine, write_record
from benchmarks.tables import OURS, print_summary, summarise
from benchmarks.worker import Worker, WorkerError
from benchmarks.workload import MODELS, Workload
from configs import find_config
from ptb.runtime import devices

EVERYWHERE = ("CPU", "GPU")
PRECISIONS = {"CPU": ("float32", "bfloat16"), "GPU": ("float32", "tf32", "bfloat16")}
PAUSE_SECONDS = 0.3  # before each turn: OpenMP's threads keep spinning for 0.2 s after their work and would slow the next turn


class Contestant(NamedTuple):
    """A way of training: a module with a `Trainer`, the options of that, and where it can run."""

    name: str
    module: str
    options: dict = {}
    devices: tuple = EVERYWHERE
    precisions: tuple = PRECISIONS["GPU"]


LIMITS = (
    Contestant("product", "limits", {"what": "product"}),
    Contestant("stream", "limits", {"what": "stream"}, devices=("GPU",), precisions=("float32",)),
)
PEERS = (
    Contestant("ours_stepwise", "peers.ours", {"rnn_mode": "stepwise"}, devices=("GPU",)),
    Contestant("ours_xla", "peers.ours", {"rnn_mode": "auto", "xla": True}, devices=("GPU",)),
    Contestant("pytorch", "peers.pytorch"),
    Contestant("keras", "peers.stock_keras"),
    Contestant("keras_unrolled", "peers.stock_keras", {"unroll": True}, devices=("CPU",)),
    Contestant("keras_no_xla", "peers.stock_keras", {"jit_compile": False}, devices=("CPU",)),
    Contestant("keras_unrolled_no_xla", "peers.stock_keras", {"unroll": True, "jit_compile": False}, devices=("CPU",)),
    Contestant("tutorial", "peers.plain_tensorflow", {"layer": "unrolled_cell"}),
    Contestant("block_lstm", "peers.plain_tensorflow", {"layer": "block_lstm"}, devices=("CPU",), precisions=("float32",)),
)


@dataclasses.dataclass
class Entry:
    """The measurements of a contestant in one precision."""

    name: str
    precision: str
    description: dict | None = None  # given by its trainer
    steps_per_turn: int | None = None
    step_seconds: list = dataclasses.field(default_factory=list)  # one value per round
    loss: float | None = None  # nats per row of the batch; near num_steps · log vocab_size, because the words are random
    peak_bytes: int | None = None
    gpu_peak_bytes: int | None = None
    error: str | None = None


class Entrant:
    """An entry and the worker that is measured. After an error it takes no further part."""

    def __init__(
        self, contestant: Contestant, precision: str, workload: Workload, torch_python: str | None, turn_seconds: float
    ):
        self.entry = Entry(contestant.name, precision)
        self._contestant, self._workload, self._worker = contestant, workload, None
        self._torch_python, self._turn_seconds = torch_python, turn_seconds

    def attempt(self, stage: Callable) -> None:
        """Run one of the stages below, unless there was an error before."""
        if self.entry.error is None:
            try:
                stage(self)
            except WorkerError as error:
                self.entry.error = str(error)

    def start(self) -> None:
        python, environment = interpreter(self._contestant, self._torch_python)
        self._worker = Worker(
            python,
            environment,
            module=self._contestant.module,
            workload=dataclasses.asdict(self._workload),
            precision=self.entry.precision,
            options=self._contestant.options,
        )

    def wait(self) -> None:
        self.entry.description = self._worker.wait()

    def calibrate(self) -> None:
        seconds = min(self._train(3)["seconds"] / 3 for _ in range(2))  # the first three may still compile
        self.entry.steps_per_turn = max(2, math.ceil(self._turn_seconds / seconds))

    def take_turn(self) -> None:
        reply = self._train(self.entry.steps_per_turn)
        self.entry.step_seconds.append(reply["seconds"] / self.entry.steps_per_turn)
        for measured in ("loss", "peak_bytes", "gpu_peak_bytes"):
            setattr(self.entry, measured, reply[measured])

    def close(self) -> None:
        if self._worker:
            self._worker.close()

    def _train(self, steps):
        time.sleep(PAUSE_SECONDS)
        return self._worker.train(steps)


def define_flags(values: flags.FlagValues) -> None:
    options = {"flag_values": values}
    flags.DEFINE_list("models", ["small", "medium"], "Configurations with the shapes; see configs.py.", **options)
    help = "float32, tf32, bfloat16 (default: those for which this machine has units)."
    flags.DEFINE_list("precisions", None, help, **options)
    flags.DEFINE_list("peers", None, "Contestants besides ours (default: all that run on this device).", **options)
    flags.DEFINE_integer("rounds", 5, "Number of turns of each contestant.", lower_bound=1, **options)
    help = "Approximate duration of a turn; a turn has at least two steps."
    flags.DEFINE_float("turn_seconds", 1.0, help, lower_bound=0, **options)
    flags.DEFINE_integer("vocab_size", 10_000, "Number of different words.", lower_bound=2, **options)
    flags.DEFINE_string("json", None, "File to write the record to.", **options)
    help = (
        "Python that has PyTorch, if this one has not. It is started without PYTHONPATH and LD_LIBRARY_PATH, so that it does "
        "not find the libraries of TensorFlow."
    )
    flags.DEFINE_string("torch_python", None, help, **options)


def main(values: flags.FlagValues) -> None:
    gpus = devices.visible_gpus()
    device = "GPU" if gpus else "CPU"
    models = choose("models", values.models, {name: find_config(name) for name in MODELS})
    precisions = choose("precisions", values.precisions or fast_precisions(gpus), dict.fromkeys(PRECISIONS[device]))
    peers = choose("peers", values.peers, {peer.name: peer for peer in PEERS if device in peer.devices})
    limits = [limit for limit in LIMITS if device in limit.devices]
    contestants = [*limits, Contestant(OURS, "peers.ours", {"rnn_mode": "auto"}), *peers.values()]
    record = {"machine": describe_machine(), "rounds": values.rounds, "turn_seconds": values.turn_seconds, "models": {}}
    for name, config in models.items():
        workload = Workload.of(config, values.vocab_size)
        entrants = [
            Entrant(contestant, precision, workload, values.torch_python, values.turn_seconds)
            for contestant in contestants
            for precision in precisions
            if precision in contestant.precisions
        ]
        compete(entrants, values.rounds)
        record["models"][name] = summarise(workload, [dataclasses.asdict(entrant.entry) for entrant in entrants])
        print_summary(name, record["models"][name])
        if values.json:
            write_record(values.json, record)  # after each model: a crash loses only the model that was being measured


def choose(flag: str, names: Iterable[str] | None, available: dict) -> dict:
    """Return `{name: available[name]}` for the names, or for all if there are none. Raises flags.Error for an unknown name."""
    for name in names or ():
        if name not in available:
            raise flags.Error(f"--{flag}={name}: not available here; choose from {', '.join(available)}")
    return {name: available[name] for name in names or available}


def fast_precisions(gpus) -> tuple[str, ...]:
    """Return the precisions that this machine has units for."""
    if gpus:
        return PRECISIONS["GPU"]
    return PRECISIONS["CPU"] if devices.choose_precision("auto", gpus) == "bfloat16" else ("float32",)


def interpreter(contestant: Contestant, torch_python: str | None) -> tuple[str, dict]:
    """Return the Python that runs a contestant, and its environment."""
    if contestant.module == "peers.pytorch" and torch_python:
        left_out = ("PYTHONPATH", "LD_LIBRARY_PATH")
        return torch_python, {name: value for name, value in os.environ.items() if name not in left_out}
    return sys.executable, dict(os.environ)


def compete(entrants: list[Entrant], rounds: int) -> None:
    """Measure all entrants in all rounds. They set up at the same time; after that only one of them computes at a time."""
    try:
        for stage in (Entrant.start, Entrant.wait, Entrant.calibrate):
            for entrant in entrants:
                entrant.attempt(stage)
        for order in itertools.islice(itertools.cycle((entrants, entrants[::-1])), rounds):
            for entrant in order:
                entrant.attempt(Entrant.take_turn)
    finally:
        for entrant in entrants:
            entrant.close()


if __name__ == "__main__":
    cli.run(main, define_flags)
