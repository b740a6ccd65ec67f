"""Formats that hold only numbers: all weights for safetensors and PyTorch, and word vectors with hidden states."""

import json
import pathlib

import numpy as np
import tensorflow as tf

from ptb.config import from_json, to_json
from ptb.model.language_model import build_model
from ptb.model.torch_weights import to_torch
from ptb.runs.export.source import Source, largest_difference, require


def named_weights(model) -> dict[str, np.ndarray]:
    """Return the weights of a model by name, such as `lstm_0/kernel`."""
    return {variable.path.removeprefix(f"{model.name}/"): variable.numpy() for variable in model.trainable_variables}


def write_safetensors(source: Source, path: pathlib.Path) -> None:
    """Write all weights by their names here, with the configuration as metadata."""
    from safetensors.numpy import save

    metadata = {"format": "np", "config": json.dumps(to_json(source.lm.config))}
    arrays = {name: np.ascontiguousarray(array) for name, array in named_weights(source.model).items()}
    path.write_bytes(save(arrays, metadata))


def safetensors_difference(source: Source, path: pathlib.Path) -> float:
    """Return the largest difference of a new model, which has nothing but the file."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        config = from_json(json.loads(file.metadata()["config"]))
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- it is no dictionary
    model = build_model(config, len(source.lm.vocabulary), rnn_mode="stepwise")
    model.set_weights([arrays[name] for name in named_weights(model)])
    logits, state = model(source.ids, model.initial_state(len(source.ids)))
    return source.difference(tf.nn.log_softmax(logits).numpy(), [tensor.numpy() for tensor in tf.nest.flatten(state)])


def write_torch(source: Source, path: pathlib.Path) -> None:
    """Write a `state_dict` with the names of PyTorch's example word_language_model: encoder, rnn, decoder."""
    import torch

    model, architecture = source.model, source.lm.config.model
    reason = "PyTorch's nn.LSTM and the example's decoder have no {}; use --format=safetensors"
    require(architecture.cell == "lstm", path, reason.format(f"cell {architecture.cell}"))
    require(len({*architecture.layers}) == 1, path, reason.format("layers of several sizes"))
    has_plain_head = architecture.projection == "none" and not (architecture.mixture or architecture.sum_layers)
    require(has_plain_head, path, reason.format("projection, mixture or sum of layers"))
    require(model.embedding is not None, path, reason.format("one-hot input"))
    layers = to_torch([layer.get_weights() for layer in model.recurrent_layers])
    arrays = {"encoder.weight": model.embedding.numpy()} | {f"rnn.{name}": array for name, array in layers.items()}
    arrays |= {"decoder.weight": model.softmax_weights.numpy(), "decoder.bias": model.softmax_bias.numpy()}
    torch.save({name: torch.tensor(array) for name, array in arrays.items()}, path)


def torch_difference(source: Source, path: pathlib.Path) -> float:
    """Return the largest difference of PyTorch's own layers with these weights."""
    import torch

    state_dict = torch.load(path, weights_only=True)

    def part(name):
        return {key.removeprefix(f"{name}."): tensor for key, tensor in state_dict.items() if key.startswith(f"{name}.")}

    layers = source.lm.config.model.layers
    encoder, decoder = (
        torch.nn.Embedding(*part("encoder")["weight"].shape),
        torch.nn.Linear(layers[-1], len(source.lm.vocabulary)),
    )
    rnn = torch.nn.LSTM(source.lm.config.model.input_size, layers[0], len(layers))
    for name, module in (("encoder", encoder), ("rnn", rnn), ("decoder", decoder)):
        module.load_state_dict(part(name))
    with torch.no_grad():
        features, (hidden, cell) = rnn(encoder(torch.tensor(source.ids.T)))
        log_probabilities = torch.log_softmax(decoder(features), -1)
    state = [tensor.numpy() for layer in zip(hidden, cell) for tensor in layer]
    return source.difference(log_probabilities.numpy().transpose(1, 0, 2), state)


def write_npz(source: Source, path: pathlib.Path) -> None:
    """Write `words` and their `embeddings`; if there is a text, its `token_ids` and the outputs `layer_0`, … after each."""
    arrays = {"words": np.array(source.lm.vocabulary.words), "embeddings": source.lm.embeddings()}
    if source.text_ids is not None:
        states = source.lm.states_of(source.text_ids)
        arrays |= {"token_ids": source.text_ids} | {f"layer_{index}": layer for index, layer in enumerate(states)}
    np.savez(path, **arrays)


def npz_difference(source: Source, path: pathlib.Path) -> float:
    """Return the largest difference of the vectors of some words, and of the states of the first tokens of the text."""
    with np.load(path) as file:
        arrays = dict(file)
    differences = [_vectors_difference(source, arrays["words"].tolist(), arrays["embeddings"])]
    if source.text_ids is not None:
        first = source.text_ids[:100]
        outputs, _ = source.model.outputs(first[np.newaxis], source.model.initial_state(1))
        for index, layer in enumerate(outputs.layers):
            differences.append(largest_difference(arrays[f"layer_{index}"][:100], layer.numpy()[:, 0]))
    return max(differences)


def write_word2vec(source: Source, path: pathlib.Path) -> None:
    """Write the text format of word2vec: a line with both sizes, then a word and its vector in each line."""
    vectors = source.lm.embeddings()
    with open(path, "w", encoding="utf-8") as file:
        print(*vectors.shape, file=file)
        for word, vector in zip(source.lm.vocabulary.words, vectors):
            print(word, *map(str, vector.tolist()), file=file)


def word2vec_difference(source: Source, path: pathlib.Path) -> float:
    with open(path, encoding="utf-8", newline="\n") as file:
        shape = tuple(map(int, file.readline().split()))
        rows = [line.rstrip("\n").split(" ") for line in file]
    vectors = np.array([row[1:] for row in rows], np.float32)
    return _vectors_difference(source, [row[0] for row in rows], vectors) if vectors.shape == shape else float("inf")


def _vectors_difference(source, words, vectors):
    """Return the largest difference of the vectors of the words of a text from the model's."""
    some = [source.lm.vocabulary.words[token] for token in np.unique(source.ids)]
    index = {word: row for row, word in enumerate(words)}
    found = np.array([vectors[index[word]] for word in some])
    return largest_difference(found, np.array([source.lm.embedding(word) for word in some]))
