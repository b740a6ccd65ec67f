"""Write a trained model in the formats of other programs; each file is read back and compared with the model."""

import contextlib
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ptb.data.files import delete_abandoned
from ptb.runs.export import graphs, weights
from ptb.runs.export.card import identity, is_model_card, model_card
from ptb.runs.export.source import ExportError, Source
from ptb.runs.load import TrainedModel
from ptb.runs.storage import write_atomically, writing

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
    what was written differs from the model, or if the folder has files of something else: then the folder is as it was. Raises
    RunError if a file cannot be written.
    """
    chosen = FORMATS[format]
    missing = [package for package in chosen.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(f"--format={format}: needs {' and '.join(missing)}; pip install '.[{chosen.extra}]' in the checkout")
    folder = lm.run.path / "export" if folder is None else pathlib.Path(os.path.expanduser(folder))
    path, is_new = folder / chosen.file, not folder.exists()
    _check_owner(lm, path)
    source = Source(lm, text, encoding)
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        delete_abandoned(folder, ".export-*")
        try:
            with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
                aside = pathlib.Path(temporary, chosen.file)
                difference = _write_and_compare(chosen, source, aside, path)
                _put_in_place(lm, aside, path)
        except BaseException:
            if is_new:
                with contextlib.suppress(OSError):  # not empty: the card is in place already
                    folder.rmdir()
            raise
    return Exported(path, difference)


def _put_in_place(lm, aside, path):
    """Write the card and the vocabulary, then move the file from `aside` to `path`.

    The card comes first: after a crash between two of these, it says that the files are this program's to replace.
    """
    folder = path.parent
    files = {name: other.file for name, other in FORMATS.items() if other.file == path.name or (folder / other.file).exists()}
    write_atomically(folder / "README.md", model_card(lm, files).encode())
    write_atomically(folder / "vocabulary.txt", lm.vocabulary.to_bytes())
    if path.is_dir():
        path.replace(aside.parent / "before")  # no folder replaces one that is not empty
    aside.replace(path)


def _check_owner(lm, path):
    """Raise ExportError unless a file of this model may be written: the folder has none of a run, another model or a person."""
    folder = path.parent
    card = folder / "README.md"
    if card.exists():
        text = card.read_text("utf-8", "replace")
        if not is_model_card(text):
            raise ExportError(f"{card}: is of something else, and a model card would replace it; choose another --output")
        if identity(lm) not in text:
            raise ExportError(f"{card}: is of other weights; choose another --output, or delete the files that it names")
        return
    for other in (folder / "config.json", folder / "vocabulary.txt", path):
        if other.exists():
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
