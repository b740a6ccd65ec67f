"""Predict where a graph's operations would run on a machine with a GPU, from the kernels that this TensorFlow has."""

import functools

import tensorflow as tf
from tensorflow.python.framework import kernels, op_def_registry


def knows_gpus():
    """Return whether this TensorFlow was built with GPU kernels."""
    return any(kernel.device_type == "GPU" for kernel in _kernels("MatMul"))


def returns_to_host(graph):
    """Return the edges `(producer, consumer)` over which data on the GPU would be copied back to the host.

    An operation runs on the GPU if a kernel accepts its types and the graph names no device for it. A kernel declares which of
    its inputs and outputs are in host memory all the same. Of the graph's arguments, integers and variable handles are on the
    host, everything else on the GPU.
    """
    nodes = {node.name: node for node in graph.as_graph_def().node}
    edges = [edge for function in graph._functions.values() for edge in returns_to_host(function.graph)]
    for node in nodes.values():
        inputs = [name for name in node.input if not name.startswith("^")]
        for name, reads_on_host in zip(inputs, _on_host(node, "input_arg"), strict=True):
            producer, _, index = name.partition(":")
            if reads_on_host and not _on_host(nodes[producer], "output_arg")[int(index or 0)]:
                edges.append((producer, node.name))
    return edges


def _on_host(node, side):
    """Return for each input or output of a node whether it is in host memory."""
    names = [name for argument in getattr(op_def_registry.get(node.op), side) for name in _names(argument, node)]
    if node.op == "Placeholder":
        dtype = tf.as_dtype(node.attr["dtype"].type)
        return [dtype.is_integer or dtype == tf.resource for _ in names]
    kernel = None if "CPU" in node.device or node.op == "Const" else _gpu_kernel(node)
    return [kernel is None or name in kernel.host_memory_arg for name in names]


def _names(argument, node):
    """Return an argument's name, once for each input or output of the node that it stands for."""
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
