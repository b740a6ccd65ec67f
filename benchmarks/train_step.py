"""Times a training step of ours against those of our peers, side by side on this machine.

    python -m benchmarks.train_step --models=small,medium --rounds=5 --json=record.json

Every contestant lives in a process of its own (benchmarks/worker.py). In each round they train in turn, in the opposite order
every other round, so that what slows the machine for a while slows all of them; ratios are taken within a round.
"""

import dataclasses
import itertools
import math
import os
import sys
import time
from typing import NamedTuple

from absl import flags

import commands
from benchmarks.machine import describe_machine, write_record
from benchmarks.tables import OURS, print_summary, summarise
from benchmarks.worker import Worker, WorkerError
from benchmarks.workload import MODELS, Workload
from configs import CONFIGS
from ptb import devices

FLAGS = flags.FLAGS

EVERYWHERE = ("CPU", "GPU")
PRECISIONS = {"CPU": ("float32", "bfloat16"), "GPU": ("float32", "tf32", "bfloat16")}
PAUSE_SECONDS = 0.3  # between turns: OpenMP's threads go on spinning for 0.2 s after their work, at the cost of who comes next


class Contestant(NamedTuple):
    """A way of training: a module with a `Trainer`, what that is told, and where it can run."""

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
    Contestant("ours_basic", "peers.ours", {"rnn_mode": "basic"}),
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
    """A contestant in one precision, and what has been measured of it."""

    name: str
    precision: str
    description: dict = None  # from its trainer
    steps_per_turn: int = None
    step_seconds: list = dataclasses.field(default_factory=list)  # one for each round
    loss: float = None  # nats for each row of the batch, near num_steps · log vocab_size: the words are random
    peak_bytes: int = None
    gpu_peak_bytes: int = None
    error: str = None


class Entrant:
    """An entry and the worker behind it. After an error it stands aside."""

    def __init__(self, contestant, precision, workload):
        self.entry = Entry(contestant.name, precision)
        self._contestant, self._workload, self._worker = contestant, workload, None

    def attempt(self, stage):
        """Does one of the stages below, unless there was an error before."""
        if self.entry.error is None:
            try:
                stage(self)
            except WorkerError as error:
                self.entry.error = str(error)

    def start(self):
        python, environment = interpreter(self._contestant)
        self._worker = Worker(python, environment, module=self._contestant.module, workload=dataclasses.asdict(self._workload),
                              precision=self.entry.precision, options=self._contestant.options)  # fmt: skip

    def wait(self):
        self.entry.description = self._worker.wait()

    def calibrate(self):
        seconds = min(self._train(3)["seconds"] / 3 for _ in range(2))  # the first may still have compiled
        self.entry.steps_per_turn = max(2, math.ceil(FLAGS.turn_seconds / seconds))

    def take_turn(self):
        reply = self._train(self.entry.steps_per_turn)
        self.entry.step_seconds.append(reply["seconds"] / self.entry.steps_per_turn)
        for measured in ("loss", "peak_bytes", "gpu_peak_bytes"):
            setattr(self.entry, measured, reply[measured])

    def _train(self, steps):
        time.sleep(PAUSE_SECONDS)
        return self._worker.train(steps)

    def close(self):
        if self._worker:
            self._worker.close()


def define_flags():
    flags.DEFINE_list("models", ["small", "medium"], "Shapes, by the names of their configurations in configs.py.")
    flags.DEFINE_list("precisions", None, "float32, tf32, bfloat16 (default: those that this machine computes fast).")
    flags.DEFINE_list("peers", None, "Contestants beside ours (default: all that run on this device).")
    flags.DEFINE_integer("rounds", 5, "How often each contestant has its turn.", lower_bound=1)
    flags.DEFINE_float("turn_seconds", 1.0, "About how long a turn takes; never less than two steps.", lower_bound=0)
    flags.DEFINE_integer("vocab_size", 10_000, "Number of different words.", lower_bound=2)
    flags.DEFINE_string("json", None, "File to write the record to.")
    flags.DEFINE_string("torch_python", None, "Python that has PyTorch, if not this one. It is started without PYTHONPATH and "
                        "LD_LIBRARY_PATH, so that libraries meant for TensorFlow stay out of it.")  # fmt: skip


def main(_):
    gpus = devices.visible_gpus()
    device = "GPU" if gpus else "CPU"
    models = chosen("models", FLAGS.models, {name: CONFIGS[name] for name in MODELS})
    precisions = chosen("precisions", FLAGS.precisions or fast_precisions(gpus), dict.fromkeys(PRECISIONS[device]))
    peers = chosen("peers", FLAGS.peers, {peer.name: peer for peer in PEERS if device in peer.devices})
    limits = [limit for limit in LIMITS if device in limit.devices]
    contestants = [*limits, Contestant(OURS, "peers.ours", {"rnn_mode": "auto"}), *peers.values()]
    record = {"machine": describe_machine(), "rounds": FLAGS.rounds, "turn_seconds": FLAGS.turn_seconds, "models": {}}
    for name, config in models.items():
        workload = Workload.of(config, FLAGS.vocab_size)
        entries = compete(
            [(c, precision) for c in contestants for precision in precisions if precision in c.precisions], workload
        )
        record["models"][name] = summarise(workload, [dataclasses.asdict(entry) for entry in entries])
        print_summary(name, record["models"][name])
        if FLAGS.json:
            write_record(FLAGS.json, record)  # after each model: what has been measured outlives a crash


def chosen(flag, names, available):
    """Returns `{name: available[name]}` of the names, or all if there are none. Raises flags.Error for an unknown one."""
    for name in names or ():
        if name not in available:
            raise flags.Error(f"--{flag}={name}: not available here; choose from {', '.join(available)}")
    return {name: available[name] for name in names or available}


def fast_precisions(gpus):
    if gpus:
        return PRECISIONS["GPU"]
    return PRECISIONS["CPU"] if devices.choose_precision("auto", gpus) == "bfloat16" else ("float32",)


def interpreter(contestant):
    """Returns the Python that runs a contestant, and its environment."""
    if contestant.module == "peers.pytorch" and FLAGS.torch_python:
        left_out = ("PYTHONPATH", "LD_LIBRARY_PATH")
        return FLAGS.torch_python, {name: value for name, value in os.environ.items() if name not in left_out}
    return sys.executable, dict(os.environ)


def compete(field, workload):
    """Returns the entries of a field of (contestant, precision) after all rounds.

    They set up at the same time. From then on one computes at a time.
    """
    entrants = [Entrant(contestant, precision, workload) for contestant, precision in field]
    try:
        for stage in (Entrant.start, Entrant.wait, Entrant.calibrate):
            for entrant in entrants:
                entrant.attempt(stage)
        for order in itertools.islice(itertools.cycle((entrants, entrants[::-1])), FLAGS.rounds):
            for entrant in order:
                entrant.attempt(Entrant.take_turn)
    finally:
        for entrant in entrants:
            entrant.close()
    return [entrant.entry for entrant in entrants]


if __name__ == "__main__":
    commands.run(main, define_flags)
