"""One, two and four replicas, devices of one process or processes, end in the same place; none outlives another for long."""

import contextlib
import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import socket

import numpy as np
import pytest
import tensorflow as tf

import configs
import processes
import runs
from ptb import evaluation, replicas
from ptb.devices import DeviceError
from ptb.run import FILES, Run
from ptb.signals import PERIOD

STEPS = 200
CONFIG = dataclasses.replace(configs.SMALL, hidden_size=16, batch_size=8, num_steps=5, keep_prob=0.5, num_epochs=1)


@dataclasses.dataclass
class Machine:
    """Called in a process before train.py: brings in the configuration, and a machine of so many devices in a cluster."""

    devices: int = 1
    cluster: dict | None = None
    interruption: int | None = None  # a signal that the process sends itself when it has saved step 10
    options: dict = dataclasses.field(default_factory=dict)  # of the configuration
    drift: float = 1.0  # what the loss of each score is multiplied by, besides what that of the one before was

    def __call__(self):
        configs.CONFIGS["shared"] = dataclasses.replace(CONFIG, **self.options)
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * self.devices)
        if self.cluster:
            os.environ["TF_CONFIG"] = json.dumps(self.cluster)
        if self.interruption:
            Run.save_checkpoint = self.interrupted(Run.save_checkpoint)
        evaluation.score = self.drifting(evaluation.score)

    def interrupted(self, save_checkpoint):
        def save_and_interrupt(run, step, *arguments, **options):
            save_checkpoint(run, step, *arguments, **options)
            if step == 10:
                os.kill(os.getpid(), self.interruption)

        return save_and_interrupt

    def drifting(self, score):
        scores = itertools.count()

        def drifted(*arguments):
            found = score(*arguments)
            return found._replace(loss=found.loss * self.drift ** next(scores))

        return drifted


TWO = Machine(), Machine()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    words = [f"w{index}" for index in range(50)]
    window = CONFIG.batch_size * CONFIG.num_steps
    for split, count in (("train", STEPS * window + CONFIG.batch_size), ("valid", 3 * window), ("test", 100)):
        lines = [" ".join(rng.choice(words, 7)) + "\n" for _ in range(count // 8)]
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def test_the_chief_writes_where_there_is_one(monkeypatch):
    for cluster, first in (({"chief": ["a:1"], "worker": ["b:1"]}, "chief"), ({"worker": ["a:1", "b:1"]}, "worker")):
        for kind, hosts in cluster.items():
            for index in range(len(hosts)):
                monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
                assert replicas.is_first_worker("multi_worker") == ((kind, index) == (first, 0))


@pytest.mark.parametrize(
    "description",
    [
        "",
        "worker:2222",
        "[]",
        '{"cluster": {"worker": ["localhost:2222"]}}',
        '{"cluster": {"worker": ["localhost:2222"]}, "task": {"type": "worker", "index": 3}}',
        '{"cluster": {"worker": "localhost:2222"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "evaluator": ["b:1"]}, "task": {"type": "evaluator", "index": 0}}',
    ],
)
def test_what_describes_no_cluster_with_this_process_in_it(description, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", description)
    with pytest.raises(DeviceError, match="--distribute=multi_worker: .*TF_CONFIG"):
        replicas.is_first_worker("multi_worker")


def start(folder, corpus, save_path, distribute, before, *arguments):
    folder.mkdir()
    arguments = [f"--data_path={corpus}", f"--save_path={save_path}", f"--distribute={distribute}", *arguments]
    # Of bfloat16 not even two shares of a batch are rounded as the whole is.
    arguments = ["--model=shared", "--precision=float32", *arguments]
    return processes.start("train.py", *arguments, folder=folder, before=before)


def free_port():
    """A port that is free, and not one of those that the system gives to whoever asks for any (32768 to 60999)."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("localhost", random.randrange(15_000, 32_000))) as server:
            return server.getsockname()[1]


def start_workers(folder, corpus, save_path, *arguments, of_the_second=(), machines=TWO):
    """Starts two workers that find each other on the loopback interface."""
    addresses = [f"localhost:{free_port()}" for _ in range(2)]
    folder.mkdir(exist_ok=True)
    workers = []
    for index, machine in enumerate(machines):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        machine, own = dataclasses.replace(machine, cluster=cluster), of_the_second if index else ()
        workers.append(start(folder / str(index), corpus, save_path, "multi_worker", machine, *arguments, *own))
    return workers


def finish(*started, folder):
    """Waits for processes that are to succeed."""
    for process in started:
        process.join(120)
        assert process.exitcode == 0, [path.read_text() for path in folder.rglob("stderr")]


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """The run of one process on one device."""
    folder = tmp_path_factory.mktemp("alone")
    finish(start(folder / "process", corpus, folder / "run", "none", Machine()), folder=folder)
    return folder / "run"


def assert_equal_within_rounding(run, alone, tolerance=1e-5):
    reached, expected = runs.weights(run), runs.weights(alone)
    assert reached.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(reached[name], array, atol=tolerance * np.abs(array).max(), rtol=0)
    (ours,), (theirs,) = runs.history(run), runs.history(alone)
    for name in ("train_perplexity", "valid_perplexity", "mean_gradient_norm"):
        assert ours[name] == pytest.approx(theirs[name], rel=tolerance)
    results = [json.loads((path / "result.json").read_text()) for path in (run, alone)]
    assert results[0]["test_perplexity"] == pytest.approx(results[1]["test_perplexity"], rel=tolerance)


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_devices_of_one_machine_do_what_one_does(count, alone, corpus, tmp_path):
    finish(start(tmp_path / "process", corpus, tmp_path / "run", "mirrored", Machine(count)), folder=tmp_path)
    assert f"Device: CPU × {count}" in (tmp_path / "process" / "stdout").read_text()
    assert (tmp_path / "process" / "stderr").read_text() == ""
    assert_equal_within_rounding(tmp_path / "run", alone)


OPTIONS = {
    "RMSprop": {"optimizer": "rmsprop", "learning_rate": 0.002},
    "mean and unit clip": {"reduction": "mean", "clip": "unit", "max_grad_norm": 1},
    "element clip": {"clip": "element", "max_grad_norm": 0.02},
    "repeats apart, clipped": {"norm_of_repeats": "apart", "max_grad_norm": 0.5},
    "reaching further back": {"num_steps": 3, "bptt_steps": 8},
    "sampled softmax": {"softmax_samples": 20},
    "GRU, one-hot": {"cell": "gru", "one_hot_input": True, "learning_rate": 0.1},
    "decay of the softmax weights": {"softmax_l2": 0.001},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_two_devices_do_what_one_does_with_every_option(name, corpus, tmp_path):
    """Dividing by a gradient's own size, as RMSprop does, makes more of rounding, and so does a high rate."""
    for folder, distribute, devices in (("one", "none", 1), ("two", "mirrored", 2)):
        machine = Machine(devices, options=OPTIONS[name])
        finish(start(tmp_path / folder, corpus, tmp_path / f"run-{folder}", distribute, machine), folder=tmp_path)
    assert_equal_within_rounding(tmp_path / "run-two", tmp_path / "run-one", 1e-4 if "optimizer" in OPTIONS[name] else 1e-5)


def test_two_processes_do_what_one_does_and_the_first_keeps_the_run(alone, corpus, tmp_path):
    workers = start_workers(tmp_path / "workers", corpus, tmp_path / "run")
    finish(*workers, folder=tmp_path)
    assert_equal_within_rounding(tmp_path / "run", alone)
    assert len(list((tmp_path / "run").glob("events.out.*"))) == 1
    assert (tmp_path / "run" / "lock").read_text() == str(workers[0].pid)


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_lost_worker_ends_the_other_and_one_process_can_go_on(victim, alone, corpus, tmp_path):
    run = tmp_path / "run"
    machines = [Machine(interruption=signal.SIGKILL if index == victim else None) for index in range(2)]
    workers = start_workers(tmp_path / "workers", corpus, run, "--checkpoint_minutes=0", machines=machines)
    survivor = workers[1 - victim]
    survivor.join(60)
    assert survivor.exitcode == 1
    message = (tmp_path / "workers" / str(1 - victim) / "stderr").read_text()
    assert "another worker has ended (its last line says why) or cannot be reached; start the same command" in message
    assert message.count("\n") == 1
    finish(start(tmp_path / "process", corpus, run, "none", Machine()), folder=tmp_path)
    assert "Resuming" in (tmp_path / "process" / "stdout").read_text()
    assert_equal_within_rounding(run, alone)


def test_a_signal_to_one_worker_stops_both_at_the_same_step_and_both_resume(alone, corpus, tmp_path):
    run = tmp_path / "run"
    machines = (Machine(), Machine(interruption=signal.SIGTERM))
    workers = start_workers(tmp_path / "first", corpus, run, "--checkpoint_minutes=0", machines=machines)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 128 + signal.SIGTERM
    step = Run(run).load_checkpoint().record["step"]
    assert 10 < step <= 10 + PERIOD
    finish(*start_workers(tmp_path / "second", corpus, run), folder=tmp_path)
    for worker in ("0", "1"):
        assert f"Resuming {run} after step {step}\n" in (tmp_path / "second" / worker / "stdout").read_text()
    assert_equal_within_rounding(run, alone)


@pytest.mark.slow
def test_workers_that_score_differently_lose_patience_together(corpus, tmp_path):
    """The second finds each validation worse than the one before, the first most of them better."""
    options = {"patience": 2, "validate_every": 20}
    machines = Machine(options=options), Machine(options=options, drift=1.1)
    finish(*start_workers(tmp_path / "workers", corpus, tmp_path / "run", machines=machines), folder=tmp_path)
    first, second = ((tmp_path / "workers" / str(index) / "stdout").read_text() for index in range(2))
    stop = f"These are the weights of step {json.loads((tmp_path / 'run' / 'result.json').read_text())['best_step']}"
    assert stop in first
    assert stop in second
    assert Run(tmp_path / "run").load_checkpoint().record["step"] < STEPS


@pytest.mark.parametrize("difference", ["seed", "place", pytest.param("text", marks=pytest.mark.slow)])
def test_workers_that_do_not_begin_alike_are_refused(difference, alone, corpus, tmp_path):
    """Of place: one has a run that has gone on already in its folder, the other none: the disk is not shared."""
    text, run = shutil.copytree(corpus, tmp_path / "text"), tmp_path / "run"
    with open(text / "valid.txt", "a") as file:
        file.write("w1 w2\n")
    if difference == "place":
        shutil.copytree(alone, run, ignore=shutil.ignore_patterns("result.json"))
    before = contents(run)
    own = {"seed": "--seed=2", "text": f"--data_path={text}", "place": f"--save_path={tmp_path / 'elsewhere'}"}[difference]
    workers = start_workers(tmp_path / "workers", corpus, run, of_the_second=[own])
    for index, worker in enumerate(workers):
        worker.join(60)
        assert worker.exitcode == 1
        message = (tmp_path / "workers" / str(index) / "stderr").read_text()
        assert "--distribute=multi_worker: " in message
        assert message.count("\n") == 1
    assert any("do not begin alike" in path.read_text() for path in tmp_path.rglob("stderr"))
    assert contents(run) == before


def contents(run):
    """Returns what has been learnt and recorded in a run's folder."""
    return {path.name: path.read_bytes() for pattern in FILES for path in run.glob(pattern)}


def test_a_batch_that_cannot_be_shared_evenly_is_an_error(corpus, tmp_path):
    process = start(tmp_path / "process", corpus, tmp_path / "run", "mirrored", Machine(3))
    process.join(60)
    assert process.exitcode == 1
    message = (tmp_path / "process" / "stderr").read_text()
    assert "--distribute=mirrored: a batch of 8 does not divide by 3 replicas" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()
