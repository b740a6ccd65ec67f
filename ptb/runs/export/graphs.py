"""Formats that hold a computation: Keras, SavedModel, TensorFlow Lite, ONNX.

All but Keras have the same function, `next_word`: `ids [batch, steps]` and a state give the log probabilities
`[batch, steps, vocab]` of the word after each id, and the new state. A text begins with `<eos>` and a state of zeros.
"""

import pathlib
import tempfile
import warnings

import keras
import numpy as np
import tensorflow as tf

from ptb.runs.export.source import ExportError, Source, largest_difference

OPSET = 17  # of ONNX


def write_keras(source: Source, path: pathlib.Path) -> None:
    source.model.save(path)


def keras_difference(source: Source, path: pathlib.Path) -> float:
    model = keras.models.load_model(path)
    logits, state = model(source.ids, model.initial_state(len(source.ids)))
    return source.difference(tf.nn.log_softmax(logits).numpy(), [tensor.numpy() for tensor in tf.nest.flatten(state)])


class Served(tf.Module):
    """The functions of a SavedModel, and the variables that they use."""

    def __init__(self, source: Source, batch_size: int | None = None, num_steps: int | None = None):
        super().__init__()
        self.variables_of_model = [variable.value for variable in source.model.variables]
        self.next_word = make_next_word(source, batch_size, num_steps)


def make_next_word(source: Source, batch_size: int | None = None, num_steps: int | None = None):
    """Return `next_word(ids, *state) -> {"log_probabilities", "new_state_…"}`; a size of None may be any."""
    model, names = source.model, source.state_names()
    zeros = source.initial_state(1)
    specs = [tf.TensorSpec([batch_size, array.shape[1]], array.dtype, name) for name, array in zip(names, zeros)]

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([batch_size, num_steps], tf.int32, "ids"), *specs])
    def next_word(ids, *state):
        logits, state = model(ids, tf.nest.pack_sequence_as(model.initial_state(1), state))
        new_state = {f"new_{name}": tensor for name, tensor in zip(names, tf.nest.flatten(state))}
        return {"log_probabilities": tf.nn.log_softmax(logits)} | new_state

    return next_word


def make_score(model):
    """Return `score(ids [batch, steps], lengths [batch]) -> {"log_probabilities" [batch, steps - 1], "total" [batch]}`.

    A row has `<eos>`, a sentence and `<eos>`, and then anything: `lengths` says how many ids count. What follows scores 0.
    """
    ids, lengths = tf.TensorSpec([None, None], tf.int32, "ids"), tf.TensorSpec([None], tf.int32, "lengths")

    @tf.function(autograph=False, input_signature=[ids, lengths])
    def score(ids, lengths):
        outputs, _ = model.outputs(ids[:, :-1], model.initial_state(tf.shape(ids)[0]))
        counted = tf.sequence_mask(lengths - 1, tf.shape(ids)[1] - 1)
        losses = model.head.losses(outputs.features, ids[:, 1:])
        log_probabilities = tf.where(counted, -losses, tf.zeros_like(losses))
        return {"log_probabilities": log_probabilities, "total": tf.reduce_sum(log_probabilities, 1)}

    return score


def write_saved_model(source: Source, path: pathlib.Path) -> None:
    served = Served(source)
    served.score = make_score(source.model)
    tf.saved_model.save(served, str(path), signatures={"score": served.score, "next_word": served.next_word})


def saved_model_difference(source: Source, path: pathlib.Path) -> float:
    signatures = tf.saved_model.load(str(path)).signatures
    differences = [
        _signature_difference(source, signatures["next_word"], source.ids, [source.log_probabilities, *source.state])
    ]
    lengths = np.arange(len(source.ids)) + 2
    found = signatures["score"](ids=tf.constant(source.ids), lengths=tf.constant(lengths, tf.int32))
    expected = np.take_along_axis(source.log_probabilities[:, :-1], source.ids[:, 1:, np.newaxis], 2)[..., 0]
    expected = np.where(np.arange(expected.shape[1]) < lengths[:, np.newaxis] - 1, expected, 0)
    differences += [largest_difference(found["log_probabilities"].numpy(), expected)]
    return max(*differences, largest_difference(found["total"].numpy(), expected.sum(1)))


def write_tflite(source: Source, path: pathlib.Path) -> None:
    """Write `next_word` for one text and one id at a time.

    The converter freezes the variables of a SavedModel. From a function alone it leaves them out, without an error.
    """
    served = Served(source, 1, 1)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(served, folder, signatures={"next_word": served.next_word})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["next_word"])
        path.write_bytes(_converted(converter.convert, path))


def tflite_difference(source: Source, path: pathlib.Path) -> float:
    """Return the largest difference at each of the first row's ids, read one after the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf.lite.Interpreter will move to another package
        without_delegates = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = tf.lite.Interpreter(str(path), experimental_op_resolver_type=without_delegates)
    next_word = interpreter.get_signature_runner("next_word")
    names, state, log_probabilities = source.state_names(), source.initial_state(1), []
    for token in source.ids[0]:
        found = next_word(ids=np.array([[token]], np.int32), **dict(zip(names, state)))
        state = [found[f"new_{name}"] for name in names]
        log_probabilities.append(found["log_probabilities"][0])
    expected = [source.log_probabilities[0], *[tensor[:1] for tensor in source.state]]
    return max(map(largest_difference, [np.concatenate(log_probabilities), *state], expected))


def write_onnx(source: Source, path: pathlib.Path) -> None:
    import tf2onnx

    function = make_next_word(source)
    proto, _ = _converted(
        lambda: tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET), path
    )
    inputs, outputs = ["ids", *source.state_names()], sorted(function.get_concrete_function().structured_outputs)
    _rename(proto.graph, [value.name for value in proto.graph.input], inputs)
    _rename(proto.graph, [value.name for value in proto.graph.output], outputs)
    for value in (*proto.graph.input, *proto.graph.output):
        has_steps = value.name in ("ids", "log_probabilities")
        for dimension, name in zip(value.type.tensor_type.shape.dim, ("batch", "steps") if has_steps else ("batch",)):
            dimension.dim_param = name
    path.write_bytes(proto.SerializeToString())


def onnx_difference(source: Source, path: pathlib.Path) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    zeros = dict(zip(source.state_names(), source.initial_state(len(source.ids))))
    names = [f"new_{name}" for name in zeros]
    log_probabilities, *state = session.run(["log_probabilities", *names], {"ids": source.ids} | zeros)
    return source.difference(log_probabilities, state)


def _signature_difference(source, next_word, ids, expected):
    zeros = dict(zip(source.state_names(), map(tf.constant, source.initial_state(len(ids)))))
    found = next_word(ids=tf.constant(ids), **zeros)
    names = ["log_probabilities", *[f"new_{name}" for name in zeros]]
    return max(largest_difference(found[name].numpy(), wanted) for name, wanted in zip(names, expected))


def _converted(convert, path):
    """Return what a converter makes. Raise ExportError for whatever it raises: it may lack an operation of the model."""
    try:
        return convert()
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise ExportError(f"{path.name}: the converter cannot convert this model ({lines[0]}); use another --format") from error


def _rename(graph, old, new):
    """Rename tensors of an ONNX graph."""
    names = dict(zip(old, new, strict=True))
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
