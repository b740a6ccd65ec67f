"""Two and four replicas, in one process or several, train to the result of one; if one is lost, the others end soon."""

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

import ptb.evaluation.score
from helpers import processes, run_files
from ptb.runs.folder import FILES, RunFolder
from ptb.runtime import replicas
from ptb.runtime.devices import DeviceError
from ptb.runtime.signals import PERIOD

STEPS, BATCH_SIZE, NUM_STEPS = 80, 8, 5
SETTINGS = ("layers=16,16", f"batch_size={BATCH_SIZE}", f"num_steps={NUM_STEPS}", "dropout=0.5", "num_epochs=1")


@dataclasses.dataclass
class Machine:
    """Called in a process before train.py: gives it a number of devices and a place in a cluster, and disturbs it."""

    devices: int = 1
    cluster: dict | None = None
    interruption: int | None = None  # a signal that the process sends to itself when it has saved step 10
    drift: float = 1.0  # the n-th score's loss is multiplied by drift ** n

    def __call__(self):
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * self.devices)
        if self.cluster:
            os.environ["TF_CONFIG"] = json.dumps(self.cluster)
        if self.interruption:
            RunFolder.save = self.interrupted(RunFolder.save)
        ptb.evaluation.score.score = self.drifting(ptb.evaluation.score.score)

    def interrupted(self, save):
        def save_and_interrupt(run, state):
            save(run, state)
            if state.step == 10:
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
    window = BATCH_SIZE * NUM_STEPS
    for split, count in (("train", STEPS * window + BATCH_SIZE), ("valid", 3 * window), ("test", 100)):
        lines = [" ".join(rng.choice(words, 7)) + "\n" for _ in range(count // 8)]
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def test_the_chief_writes_or_else_the_first_worker(monkeypatch):
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
def test_a_cluster_without_this_process_is_an_error(description, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", description)
    with pytest.raises(DeviceError, match="--distribute=multi_worker.*TF_CONFIG"):
        replicas.is_first_worker("multi_worker")


def test_one_replica_changes_nothing():
    tensors = [tf.constant([1.0, 2.0]), tf.constant([[3.0]])]
    assert replicas.num_replicas() == 1
    assert not replicas.has_many_workers()
    assert replicas.local_shard(tensors) is replicas.gather_batch(tensors) is replicas.mean(tensors) is tensors
    assert replicas.total(tensors[0]) is tensors[0]
    assert replicas.make_mean_of_workers()(3.0) == 3.0
    assert [replicas.make_agreement()(wish) for wish in (False, True)] == [False, True]
    replicas.assert_workers_agree({"step": 1})


def start(folder, corpus, save_path, distribute, before, *arguments, settings=()):
    folder.mkdir()
    # In bfloat16 a share of a batch is not rounded as the whole batch is.
    flags = ["--model=small", "--precision=float32", *(f"--set={setting}" for setting in (*SETTINGS, *settings))]
    flags += [f"--data_path={corpus}", f"--save_path={save_path}", f"--distribute={distribute}"]
    return processes.start("train.py", *flags, *arguments, folder=folder, before=before)


def free_port():
    """Return a free port, outside the range that the system assigns to whoever asks for any (32768 to 60999)."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("localhost", random.randrange(15_000, 32_000))) as server:
            return server.getsockname()[1]


def start_workers(folder, corpus, save_path, *arguments, of_the_second=(), machines=TWO, settings=()):
    """Start two workers that find each other on the loopback interface."""
    addresses = [f"localhost:{free_port()}" for _ in range(2)]
    folder.mkdir(exist_ok=True)
    workers = []
    for index, machine in enumerate(machines):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        machine, own = dataclasses.replace(machine, cluster=cluster), of_the_second if index else ()
        flags = [*arguments, *own]
        workers.append(start(folder / str(index), corpus, save_path, "multi_worker", machine, *flags, settings=settings))
    return workers


def finish(*started, folder):
    """Wait for processes, which must succeed."""
    for process in started:
        process.join(120)
        assert process.exitcode == 0, [path.read_text() for path in folder.rglob("stderr")]


def result(run):
    return json.loads((run / "result.json").read_text())


def saved_step(run):
    return RunFolder(run).checkpoints.load().record["step"]


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """The run of one process on one device."""
    folder = tmp_path_factory.mktemp("alone")
    finish(start(folder / "process", corpus, folder / "run", "none", Machine()), folder=folder)
    return folder / "run"


def assert_equal_within_rounding(run, alone, tolerance=1e-5):
    reached, expected = run_files.weights(run), run_files.weights(alone)
    assert reached.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(reached[name], array, atol=tolerance * np.abs(array).max(), rtol=0)
    (ours,), (theirs,) = run_files.history(run), run_files.history(alone)
    for name in ("train_perplexity", "valid_perplexity", "mean_gradient_norm"):
        assert ours[name] == pytest.approx(theirs[name], rel=tolerance)
    assert result(run)["test_perplexity"] == pytest.approx(result(alone)["test_perplexity"], rel=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_devices_of_one_machine_train_like_one(count, alone, corpus, tmp_path):
    finish(start(tmp_path / "process", corpus, tmp_path / "run", "mirrored", Machine(count)), folder=tmp_path)
    assert result(tmp_path / "run")["replicas"] == count
    assert (tmp_path / "process" / "stderr").read_text() == ""
    assert_equal_within_rounding(tmp_path / "run", alone)


OPTIONS = {
    "RMSprop": ("optimizer=RMSprop", "learning_rate=0.002"),
    "mean and unit clip": ("reduction=mean", "clip=unit", "clip_norm=1"),
    "element clip": ("clip=element", "clip_norm=0.02"),
    "burn-in": ("num_steps=3", "bptt_steps=8"),
    "sampled softmax": ("softmax_samples=20",),
    "GRU, one-hot": ("cell=gru", "one_hot_input=true", "learning_rate=0.1"),
    "decay of the softmax weights": ("softmax_l2=0.001",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_two_devices_train_like_one_with_every_option(name, corpus, tmp_path):
    """Rounding errors grow if a gradient is divided by its own size, as in RMSprop, and with a high learning rate."""
    for folder, distribute, count in (("one", "none", 1), ("two", "mirrored", 2)):
        run, settings = tmp_path / f"run-{folder}", OPTIONS[name]
        finish(start(tmp_path / folder, corpus, run, distribute, Machine(count), settings=settings), folder=tmp_path)
    assert_equal_within_rounding(tmp_path / "run-two", tmp_path / "run-one", 1e-4 if name == "RMSprop" else 1e-5)


@pytest.mark.slow
def test_two_processes_train_like_one_and_the_first_writes(alone, corpus, tmp_path):
    workers = start_workers(tmp_path / "workers", corpus, tmp_path / "run")
    finish(*workers, folder=tmp_path)
    assert_equal_within_rounding(tmp_path / "run", alone)
    assert len(list((tmp_path / "run").glob("events.out.*"))) == 1
    assert (tmp_path / "run" / "lock").read_text() == str(workers[0].pid)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_worker_ends_the_other_and_one_process_can_resume(victim, alone, corpus, tmp_path):
    run = tmp_path / "run"
    machines = [Machine(interruption=signal.SIGKILL if index == victim else None) for index in range(2)]
    workers = start_workers(tmp_path / "workers", corpus, run, "--checkpoint_minutes=0", machines=machines)
    survivor = workers[1 - victim]
    survivor.join(60)
    assert survivor.exitcode == 1
    message = (tmp_path / "workers" / str(1 - victim) / "stderr").read_text()
    assert "--distribute=multi_worker" in message
    assert message.count("\n") == 1
    assert 0 < saved_step(run) < STEPS
    finish(start(tmp_path / "process", corpus, run, "none", Machine()), folder=tmp_path)
    assert_equal_within_rounding(run, alone)


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_both_at_the_same_step_and_both_resume(alone, corpus, tmp_path):
    run = tmp_path / "run"
    machines = (Machine(), Machine(interruption=signal.SIGTERM))
    workers = start_workers(tmp_path / "first", corpus, run, "--checkpoint_minutes=0", machines=machines)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 128 + signal.SIGTERM
    step = saved_step(run)
    assert 10 < step <= 10 + PERIOD
    finish(*start_workers(tmp_path / "second", corpus, run), folder=tmp_path)
    for worker in ("0", "1"):
        assert f"step {step}\n" in (tmp_path / "second" / worker / "stdout").read_text()
    assert_equal_within_rounding(run, alone)


@pytest.mark.slow
def test_workers_that_score_differently_run_out_of_patience_together(corpus, tmp_path):
    """The second worker finds each validation worse than the one before; the first finds most of them better."""
    settings = ("patience=2", "validate_every=20")
    machines = Machine(), Machine(drift=1.02)
    finish(
        *start_workers(tmp_path / "workers", corpus, tmp_path / "run", machines=machines, settings=settings), folder=tmp_path
    )
    first, second = ((tmp_path / "workers" / str(index) / "stdout").read_text() for index in range(2))
    stop = f"step {result(tmp_path / 'run')['best_step']}, the best"
    assert stop in first
    assert stop in second
    assert saved_step(tmp_path / "run") < STEPS


@pytest.mark.parametrize("difference", ["seed", "place", pytest.param("text", marks=pytest.mark.slow)])
def test_workers_that_do_not_start_alike_are_rejected(difference, alone, corpus, tmp_path):
    """With "place", only one worker has a run in its folder: the workers do not share a disk."""
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
        assert "--distribute=multi_worker" in message
        assert message.count("\n") == 1
    assert any("alike" in path.read_text() for path in tmp_path.rglob("stderr"))
    assert contents(run) == before


def contents(run):
    """Return the files of a run that hold what was learnt and recorded."""
    return {path.name: path.read_bytes() for pattern in FILES for path in run.glob(pattern)}


def test_a_batch_that_replicas_cannot_share_evenly_is_an_error(corpus, tmp_path):
    process = start(tmp_path / "process", corpus, tmp_path / "run", "mirrored", Machine(3))
    process.join(60)
    assert process.exitcode == 1
    message = (tmp_path / "process" / "stderr").read_text()
    assert "--distribute=mirrored" in message
    assert "batch_size" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()
