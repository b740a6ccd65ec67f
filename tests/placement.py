"""What a graph would do on a machine with a GPU, by the kernels that this TensorFlow was built with."""

import functools

import tensorflow as tf
from tensorflow.python.framework import kernels, op_def_registry


def knows_gpus():
    """Returns whether this TensorFlow has kernels for GPUs at all."""
    return any(kernel.device_type == "GPU" for kernel in _kernels("MatMul"))


def returns_to_host(graph):
    """Returns the edges, `(operation, operation)`, over which what the GPU has would have to come back to the host.

    An operation goes to the GPU where a kernel takes its types and no device has been named for it. A kernel tells which of
    its inputs and outputs are in the host's memory all the same. Of the arguments integers and handles of variables are on the
    host, all else on the GPU.
    """
    nodes = {node.name: node for node in graph.as_graph_def().node}
    edges = [edge for function in graph._functions.values() for edge in returns_to_host(function.graph)]
    for node in nodes.values():
        inputs = [name for name in node.input if not name.startswith("^")]
        for name, is_read_on_host in zip(inputs, _on_host(node, "input_arg"), strict=True):
            maker, _, index = name.partition(":")
            if is_read_on_host and not _on_host(nodes[maker], "output_arg")[int(index or 0)]:
                edges.append((maker, node.name))
    return edges


def _on_host(node, side):
    """Returns for each of a node's inputs or outputs whether it is in the host's memory."""
    names = [name for argument in getattr(op_def_registry.get(node.op), side) for name in _names(argument, node)]
    if node.op == "Placeholder":
        dtype = tf.as_dtype(node.attr["dtype"].type)
        return [dtype.is_integer or dtype == tf.resource for _ in names]
    kernel = None if "CPU" in node.device or node.op == "Const" else _gpu_kernel(node)
    return [kernel is None or name in kernel.host_memory_arg for name in names]


def _names(argument, node):
    """Returns the name of an operation's argument as often as it stands for an input or output of the node."""
    if argument.number_attr:
        return [argument.name] * node.attr[argument.number_attr].i
    if argument.type_list_attr:
        return [argument.name] * len(node.attr[argument.type_list_attr].list.type)
    return [argument.name]


def _gpu_kernel(node):
    def takes(kernel):
        return all(node.attr[c.name].type in c.allowed_values.list.type for c in kernel.constraint if node.attr[c.name].type)

    return next((k for k in _kernels(node.op) if k.device_type in ("GPU", "DEFAULT") and takes(k)), None)


@functools.cache
def _kernels(op):
    return list(kernels.get_registered_kernels_for_op(op).kernel)
