"""Training on several devices or machines at once, through `tf.distribute`: data parallel and synchronous.

Every replica has all weights and its own rows of the batch. Within a step they exchange gradients, the sums that an epoch adds
up, and the recurrent state. So what goes into a step and comes out of it is that of the whole batch: a checkpoint does not
depend on how many replicas there were, and a run can go on with another number of them.

What a step calls does nothing where there is one replica, as there is outside a strategy.
"""

import contextlib
import hashlib
import json
import os

import tensorflow as tf

from ptb.devices import DeviceError, on_host
from ptb.signals import say

STRATEGIES = ("none", "mirrored", "multi_worker")


def make_strategy(name, batch_size):
    """Returns a `tf.distribute.Strategy`; DeviceError where its replicas cannot share a batch evenly.

    "none": TensorFlow's default, one device. "mirrored": all GPUs of this machine, or all CPUs where it has none.
    "multi_worker": all devices of all processes that the environment variable TF_CONFIG lists; waits until all are there.
    """
    tf.get_logger().setLevel("ERROR")  # or it lists devices on a stream where one line means one error
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    elif name == "multi_worker":
        say("Waiting for the other workers")
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


def is_first_worker(name):
    """Returns whether this process is the one that writes: the chief, or the first worker; DeviceError for a bad TF_CONFIG."""
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


def are_processes():
    """Returns whether the strategy in whose scope this is called has several processes."""
    return isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy)


def make_mean_of_workers():
    """Returns the function from a number to the mean of the numbers with which all workers call it, at the same step."""
    if not are_processes():
        return lambda number: number
    strategy = tf.distribute.get_strategy()

    @tf.function(autograph=False)
    def mean_of(number):
        results = strategy.run(lambda: mean([tf.identity(number)])[0])  # a copy on the replica's own device
        return strategy.experimental_local_results(results)[0]

    return lambda number: float(mean_of(tf.constant(number, tf.float64)))


def make_agreement():
    """Returns the function `agree(wish)` that all workers call at the same step, and that is true where one of them wishes."""
    mean_of_workers = make_mean_of_workers()
    return lambda wish: mean_of_workers(wish) > 0


def check_alike(beginning):
    """Raises DeviceError in all workers unless each calls this with the same dictionary, which says what it begins with."""
    if not are_processes():
        return
    strategy = tf.distribute.get_strategy()
    digest = int.from_bytes(hashlib.sha256(repr(beginning).encode()).digest()[:7], "big")

    @tf.function(autograph=False)
    def digests():
        return strategy.run(lambda: tf.distribute.get_replica_context().all_gather(tf.constant([digest], tf.int64), axis=0))

    if set(strategy.experimental_local_results(digests())[0].numpy()) != {digest}:
        described = ", ".join(f"{name} {value}" for name, value in beginning.items())
        raise DeviceError(
            "--distribute=multi_worker: the workers do not begin alike: --save_path and --data_path have to lead all of them "
            f"to the same files, and all flags to be the same; this one begins with {described}"
        )


@contextlib.contextmanager
def peers_watched():
    """Makes the error of a lost worker a DeviceError that says what to do."""
    try:
        yield
    except tf.errors.OpError as error:
        if "ollective" not in error.message:
            raise
        raise DeviceError(
            "--distribute=multi_worker: another worker has ended (its last line says why) or cannot be reached; start the "
            "same command on all workers again, it goes on from the last checkpoint"
        ) from error


def number():
    """Returns how many replicas there are."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def own_rows(tensors, axis=0):
    """Returns this replica's rows of tensors of the whole batch, whose axis `axis` is the batch."""
    if number() == 1:
        return tensors
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group

    def cut(tensor):
        size = tensor.shape[axis] // number()
        with on_host():
            begin = tf.one_hot(axis, tensor.shape.rank, replica * size, dtype=tf.int32)
        shape = [size if dimension == axis else -1 for dimension in range(tensor.shape.rank)]
        rows = tf.slice(tensor, begin, shape)
        return tf.ensure_shape(rows, [*tensor.shape[:axis], size, *tensor.shape[axis + 1 :]])

    return tf.nest.map_structure(cut, tensors)


def whole_batch(tensors):
    """Returns tensors `[rows of the batch, …]` from each replica's rows, the inverse of `own_rows`."""
    if number() == 1:
        return tensors
    parts = tf.nest.flatten(tensors)
    wholes = tf.distribute.get_replica_context().all_gather(parts, axis=0)
    shaped = [tf.ensure_shape(whole, [number() * part.shape[0], *part.shape[1:]]) for whole, part in zip(wholes, parts)]
    return tf.nest.pack_sequence_as(tensors, shaped)


def mean(tensors):
    """Returns the mean over the replicas of each tensor, or `tf.IndexedSlices`, of a list."""
    return _reduced(tf.distribute.ReduceOp.MEAN, tensors)


def total(tensor):
    """Returns the sum over the replicas."""
    return _reduced(tf.distribute.ReduceOp.SUM, [tensor])[0]


def _reduced(operation, tensors):
    return tensors if number() == 1 else tf.distribute.get_replica_context().all_reduce(operation, tensors)
