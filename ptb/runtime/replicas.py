"""Train on several devices or machines at once with `tf.distribute`: data-parallel and synchronous.

Every replica has all the weights and its own rows of the batch. Within a step, replicas exchange gradients, the epoch's sums
and the recurrent state. The inputs and results of a step are therefore those of the whole batch: a checkpoint does not depend
on the number of replicas, and a run can resume with a different number.

With one replica, and outside a strategy, the functions that a step calls return their argument unchanged.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from ptb.runtime import environment  # noqa: F401 -- must run before TensorFlow is imported

# isort: split
import tensorflow as tf

from ptb.runtime.devices import DeviceError, on_host
from ptb.runtime.signals import print_line

STRATEGIES = ("none", "mirrored", "multi_worker")


def make_strategy(name: str, batch_size: int) -> tf.distribute.Strategy:
    """Return the strategy of this name.

    - "none": one device, TensorFlow's default strategy.
    - "mirrored": all GPUs of this machine, or all its logical CPUs if it has no GPU.
    - "multi_worker": all devices of all processes listed in the environment variable TF_CONFIG; waits for all of them.

    Raises DeviceError if the replicas cannot share `batch_size` evenly, or if TF_CONFIG is wrong.
    """
    tf.get_logger().setLevel("ERROR")  # otherwise it lists the devices on standard error, which is for errors only
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    elif name == "multi_worker":
        print_line("Waiting for the other workers")
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (ValueError, TypeError, RuntimeError, tf.errors.OpError) as error:
            raise DeviceError(f"--distribute=multi_worker: {error}; check the cluster in TF_CONFIG") from error
    else:
        strategy = tf.distribute.get_strategy()
    if batch_size % strategy.num_replicas_in_sync:
        raise DeviceError(
            f"--distribute={name}: a batch of {batch_size} does not divide by {strategy.num_replicas_in_sync} replicas; "
            "use another number of devices, or change batch_size"
        )
    return strategy


def is_first_worker(name: str) -> bool:
    """Return whether this process writes the run's files: it is the chief or the first worker, or the only process.

    Raises DeviceError if `name` is "multi_worker" and TF_CONFIG does not describe a cluster that contains this process.
    """
    if name != "multi_worker":
        return True
    try:
        config = json.loads(os.environ.get("TF_CONFIG", ""))
        workers = [(kind, index) for kind in ("chief", "worker") for index, _ in enumerate(config["cluster"].get(kind, []))]
        task = (config["task"]["type"], int(config["task"]["index"]))
        if not isinstance(config["cluster"].get(task[0]), list) or task not in workers:
            raise ValueError("this process is not in it")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise DeviceError(
            "--distribute=multi_worker: the environment variable TF_CONFIG names no cluster with this process in it; "
            "see docs/scaling.md for examples"
        ) from None
    return task == workers[0]


def has_many_workers() -> bool:
    """Return whether the current strategy has several processes. Call it in the strategy's scope."""
    return isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)


def make_mean_of_workers() -> Callable[[float], float]:
    """Return a function that all workers call at the same step, each with a number. It returns the mean of the numbers."""
    if not has_many_workers():
        return lambda number: number
    strategy = tf.distribute.get_strategy()

    @tf.function(autograph=False)
    def mean_of(number):
        results = strategy.run(lambda: mean([tf.identity(number)])[0])  # identity copies it to the replica's own device
        return strategy.experimental_local_results(results)[0]

    return lambda number: float(mean_of(tf.constant(number, tf.float64)))


def make_agreement() -> Callable[[bool], bool]:
    """Return a function that all workers call at the same step, each with a bool. It returns whether any bool was true."""
    mean_of_workers = make_mean_of_workers()
    return lambda wish: mean_of_workers(wish) > 0


def assert_workers_agree(start: dict[str, Any]) -> None:
    """Compare `start`, the facts that a run starts from, across the workers.

    Raises DeviceError in all workers if any two of them differ.
    """
    if not has_many_workers():
        return
    strategy = tf.distribute.get_strategy()
    digest = int.from_bytes(hashlib.sha256(repr(start).encode()).digest()[:7], "big")

    @tf.function(autograph=False)
    def digests():
        return strategy.run(lambda: tf.distribute.get_replica_context().all_gather(tf.constant([digest], tf.int64), axis=0))

    if set(strategy.experimental_local_results(digests())[0].numpy()) != {digest}:
        described = ", ".join(f"{name} {value}" for name, value in start.items())
        raise DeviceError(
            "--distribute=multi_worker: the workers do not start alike; give all of them the same flags, and a --save_path "
            f"and a --data_path that lead to the same files. This worker starts with {described}"
        )


@contextlib.contextmanager
def report_lost_workers() -> Iterator[None]:
    """Turn TensorFlow's error about a lost worker into a DeviceError that says what to do."""
    try:
        yield
    except tf.errors.OpError as error:
        if "ollective" not in error.message:
            raise
        raise DeviceError(
            "--distribute=multi_worker: another worker has ended (its last line says why) or cannot be reached; start the "
            "same command on all workers again, and training resumes from the last checkpoint"
        ) from error


def num_replicas() -> int:
    """Return the number of replicas of the current strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def local_shard(tensors: Any, axis: int = 0) -> Any:
    """Return this replica's rows of tensors of the whole batch. `axis` is the batch axis."""
    if num_replicas() == 1:
        return tensors
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group

    def shard(tensor):
        size = tensor.shape[axis] // num_replicas()
        with on_host():
            begin = tf.one_hot(axis, tensor.shape.rank, replica * size, dtype=tf.int32)
        shape = [size if dimension == axis else -1 for dimension in range(tensor.shape.rank)]
        rows = tf.slice(tensor, begin, shape)
        return tf.ensure_shape(rows, [*tensor.shape[:axis], size, *tensor.shape[axis + 1 :]])

    return tf.nest.map_structure(shard, tensors)


def gather_batch(tensors: Any) -> Any:
    """Return tensors `[batch, ...]` from each replica's rows `[batch / replicas, ...]`: the inverse of `local_shard`."""
    if num_replicas() == 1:
        return tensors
    parts = tf.nest.flatten(tensors)
    wholes = tf.distribute.get_replica_context().all_gather(parts, axis=0)
    shaped = [tf.ensure_shape(whole, [num_replicas() * part.shape[0], *part.shape[1:]]) for whole, part in zip(wholes, parts)]
    return tf.nest.pack_sequence_as(tensors, shaped)


def mean(tensors: list) -> list:
    """Return the mean over the replicas of each tensor or `tf.IndexedSlices` in a list."""
    return _reduce(tf.distribute.ReduceOp.MEAN, tensors)


def total(tensor: tf.Tensor) -> tf.Tensor:
    """Return the sum of a tensor over the replicas."""
    return _reduce(tf.distribute.ReduceOp.SUM, [tensor])[0]


def _reduce(operation: tf.distribute.ReduceOp, tensors: list) -> list:
    return tensors if num_replicas() == 1 else tf.distribute.get_replica_context().all_reduce(operation, tensors)
