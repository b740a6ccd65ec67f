"""Write a trained model in the formats of other programs; each file is read back and compared with the model."""

import importlib.util
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ptb.runs.export import graphs, weights
from ptb.runs.export.card import identity, is_model_card, model_card
from ptb.runs.export.source import ExportError, Source
from ptb.runs.load import TrainedModel

LIMIT = 1e-4  # of the difference of log probabilities in nats, states and embeddings


class Format(NamedTuple):
    """One format: how it is written and read back, and what it needs beside the program."""

    file: str  # its name; a folder if it has no suffix
    write: Callable[[Source, pathlib.Path], None]
    difference: Callable[[Source, pathlib.Path], float]  # the largest, between the file and the model
    packages: tuple[str, ...] = ()
    extra: str = ""  # of pyproject.toml, which installs the packages


FORMATS = {
    "keras": Format("model.keras", graphs.write_keras, graphs.keras_difference),
    "saved_model": Format("saved_model", graphs.write_saved_model, graphs.saved_model_difference),
    "tflite": Format("model.tflite", graphs.write_tflite, graphs.tflite_difference),
    "onnx": Format("model.onnx", graphs.write_onnx, graphs.onnx_difference, ("tf2onnx", "onnxruntime"), "onnx"),
    "safetensors": Format(
        "model.safetensors", weights.write_safetensors, weights.safetensors_difference, ("safetensors",), "safetensors"
    ),
    "torch": Format("model.pt", weights.write_torch, weights.torch_difference, ("torch",), "torch"),
    "npz": Format("vectors.npz", weights.write_npz, weights.npz_difference),
    "word2vec": Format("vectors.txt", weights.write_word2vec, weights.word2vec_difference),
}


class Exported(NamedTuple):
    """A file or folder that was written and compared; `difference` is the largest from the model."""

    path: pathlib.Path
    difference: float


def export(
    lm: TrainedModel,
    format: str,
    folder: pathlib.Path | str | None = None,
    text: str | None = None,
    encoding: str | None = None,
) -> Exported:
    """Write a model in one of FORMATS, with its vocabulary and a model card beside it.

    `folder` is by default `export` in the run's folder. `text` is a file whose hidden states go into an npz file, in an
    `encoding`, by default that of the run's text. Raises ExportError if packages are missing, if the model has no such form, if
    what was written differs from the model, or if the folder has files of something else: then the folder is as it was.
    """
    chosen = FORMATS[format]
    missing = [package for package in chosen.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(f"--format={format}: needs {' and '.join(missing)}; pip install '.[{chosen.extra}]' in the checkout")
    source = Source(lm, text, encoding)
    folder = lm.run.path / "export" if folder is None else pathlib.Path(os.path.expanduser(folder))
    path, card, is_new = folder / chosen.file, folder / "README.md", not folder.exists()
    _check_owner(lm, folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
            aside = pathlib.Path(temporary, chosen.file)
            difference = _write_and_compare(chosen, source, aside, path)
            if path.is_dir():
                shutil.rmtree(path)
            aside.replace(path)
    except BaseException:
        if is_new:
            folder.rmdir()
        raise
    (folder / "vocabulary.txt").write_bytes(lm.vocabulary.to_bytes())
    files = {name: other.file for name, other in FORMATS.items() if (folder / other.file).exists()}
    card.write_text(model_card(lm, files), encoding="utf-8")
    return Exported(path, difference)


def _check_owner(lm, folder):
    """Raise ExportError unless the folder is free for files of this model: none of a run, of another model or of a person."""
    card = folder / "README.md"
    if card.exists():
        text = card.read_text("utf-8", "replace")
        if not is_model_card(text):
            raise ExportError(f"{card}: is of something else, and a model card would replace it; choose another --output")
        if identity(lm) not in text:
            raise ExportError(f"{card}: is of other weights; choose another --output, or delete the files that it names")
    elif other := next((path for name in ("config.json", "vocabulary.txt") if (path := folder / name).exists()), None):
        raise ExportError(f"{other}: is of something else, perhaps of a run; choose another --output")


def _write_and_compare(chosen, source, aside, path):
    """Write one format and return its largest difference from the model. Raise ExportError, which names `path`."""
    try:
        chosen.write(source, aside)
        difference = chosen.difference(source, aside)
    except tf.errors.OpError as error:
        raise ExportError(f"{path}: cannot be written or read back ({error.message})") from None
    if not difference <= LIMIT:
        raise ExportError(f"{path}: differs from the model by {difference:.1e}, over {LIMIT:g}; nothing was written")
    return difference
