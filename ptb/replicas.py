"""Training on several devices or machines at once, through `tf.distribute`: data parallel and synchronous.

Every replica has all weights and its own rows of the batch. Within a step they exchange gradients, the sums that an epoch adds
up, and the recurrent state. So what goes into a step and comes out of it is that of the whole batch: a checkpoint does not
depend on how many replicas there were, and a run can go on with another number of them.

The functions that a step calls do nothing where there is one replica, as there is outside a strategy.
"""

import contextlib
import pathlib
import shutil
import tempfile

import tensorflow as tf

from ptb.devices import DeviceError

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
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        strategy = tf.distribute.get_strategy()
    if batch_size % strategy.num_replicas_in_sync:
        raise DeviceError(
            f"--distribute={name}: a batch of {batch_size} does not divide by {strategy.num_replicas_in_sync} replicas; "
            "use another number of devices, or change batch_size"
        )
    return strategy


@contextlib.contextmanager
def folder_of_this_worker(name, path):
    """Yields the run folder that this process is to use: `path` itself, or in a worker that is not the first a copy of it.

    So every worker resumes from the same checkpoint and does all that the first does, and what the others write is dropped at
    the end. To be entered before `make_strategy`, behind which the first worker begins to write.
    """
    if name != "multi_worker" or _is_first_worker():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, pathlib.Path(path).name)
        if pathlib.Path(path).exists():
            shutil.copytree(path, copy)
        yield copy


def _is_first_worker():
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    first = "chief" if "chief" in cluster.cluster_spec().jobs else "worker"
    return (cluster.task_type, cluster.task_id) == (first, 0)


def make_agreement(strategy):
    """Returns the function `agree(wish)` that is called by all workers at the same step, and true where one of them wishes."""

    @tf.function(autograph=False)
    def wishes(wish):
        results = strategy.run(lambda: total(tf.identity(wish)))  # a copy on the replica's own device
        return strategy.experimental_local_results(results)[0]

    return lambda wish: bool(wishes(tf.constant(float(wish))) > 0)


@contextlib.contextmanager
def peers_watched():
    """Makes the error of a lost worker a DeviceError that says what to do."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError) as error:
        if "ollective" not in error.message:
            raise
        raise DeviceError(
            "--distribute=multi_worker: another worker has ended or cannot be reached; start the same command on all workers "
            "again, it goes on from the last checkpoint"
        ) from error


def number():
    """Returns how many replicas there are; to be called, as all below, within a step."""
    return tf.distribute.get_replica_context().num_replicas_in_sync


def own_rows(tensors, axis=0):
    """Returns this replica's rows of tensors of the whole batch, whose axis `axis` is the batch."""
    if number() == 1:
        return tensors
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group

    def cut(tensor):
        size = tensor.shape[axis] // number()
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
