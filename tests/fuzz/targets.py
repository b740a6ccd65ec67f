"""Readers of files that others may have written, each fed with bytes: a result, or None for a typed error, never anything else.

`tests/test_fuzz.py` feeds them with Hypothesis, `tests/fuzz/run.py` with Atheris.
"""

import bz2
import contextlib
import functools
import gzip
import io
import json
import lzma
import pathlib
import tarfile
import tempfile
import zipfile

import ptb
from configs import TEST
from ptb.config import override, to_json
from ptb.data.corpus import read_corpus, read_tokens
from ptb.data.files import SPLITS, DataError
from ptb.data.tokens import EOS, UNK
from ptb.data.vocabulary import Vocabulary
from ptb.model.language_model import build_model
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError
from ptb.training.state import TrainState, trained_variables
from ptb.training.step import Sums

VOCABULARY = Vocabulary(("the", EOS, UNK))
TEXT = b"the cat\n the dog <unk>\n"
CONFIG = override(TEST, {"batch_size": 2})
MODEL = build_model(CONFIG, len(VOCABULARY))
RECORD = {"model": "test", "seed": 1, "precision": "float32", "corpus": "", "data_path": None, "overrides": {}}
RECORD |= {"config": to_json(CONFIG)}
FORMER = {  # config.json before configurations had parts
    **{"init_scale": 0.1, "learning_rate": 1.0, "max_grad_norm": 1, "num_layers": 1, "num_steps": 2, "hidden_size": 2},
    **{"full_rate_epochs": 1, "num_epochs": 1, "keep_prob": 1.0, "lr_decay": 0.5, "batch_size": 2, "clip": "norm"},
    **{"cell": "lstm", "optimizer": "sgd", "model": "test", "seed": 1, "precision": "float32", "corpus": "", "data_path": None},
}


def new_state():
    return TrainState(trained_variables(MODEL), MODEL.initial_state(CONFIG.batch_size), Sums.zero())


@contextlib.contextmanager
def file_of(data, name):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, name)
        path.write_bytes(data)
        yield path


def text(data):
    with file_of(data, "text.txt") as path, contextlib.suppress(DataError):
        return read_tokens(path, VOCABULARY)


def characters(data):
    with file_of(data, "text.txt") as path, contextlib.suppress(DataError):
        return read_corpus(path, level="char", fractions=(0.5, 0.25))


def vocabulary(data):
    with file_of(data, "vocabulary.txt") as path, contextlib.suppress(DataError):
        return Vocabulary.load(path)


def corpus_of(name, data):
    """A corpus in a file of this name, which says how it is packed."""
    with file_of(data, name) as path, contextlib.suppress(DataError):
        return read_corpus(path, fractions=(0.5, 0.25))


def encoded(encoding, data):
    with file_of(data, "text.txt") as path, contextlib.suppress(DataError):
        return read_tokens(path, VOCABULARY, encoding=encoding, lowercase=True)


def config(data):
    """config.json of a run that is to be opened and continued. Its checkpoint has digests, so any other size is an error."""
    with file_of(data, "config.json") as path, contextlib.suppress(RunError):
        path.with_name("checkpoint-000000000.npz").write_bytes(CHECKPOINT)
        path.with_name("vocabulary.txt").write_bytes(VOCABULARY.to_bytes())
        with contextlib.suppress(RunError):
            RunFolder(path.parent).matches(RECORD)
        return ptb.load(path.parent).model


def checkpoint(data):
    with file_of(data, "checkpoint-000000001.npz") as path, contextlib.suppress(RunError):
        return RunFolder(path.parent).restore(new_state())


def good_archive():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for split in SPLITS:
            member = tarfile.TarInfo(f"data/{split}.txt")
            content = TEXT + split.encode()
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def good_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for split in SPLITS:
            archive.writestr(f"wikitext/wiki.{split}.tokens", TEXT + split.encode())
    return file.getvalue()


def good_checkpoint():
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(folder)
        run.begin(RECORD, VOCABULARY)
        run.save(new_state())
        return next(pathlib.Path(folder).glob("*.npz")).read_bytes()


CHECKPOINT = good_checkpoint()
TARGETS = {
    "text": (text, TEXT),
    "characters": (characters, TEXT * 4),
    "vocabulary": (vocabulary, b"the\n<eos>\n<unk>\n"),
    "archive": (functools.partial(corpus_of, "data.tgz"), good_archive()),
    "zip": (functools.partial(corpus_of, "data.zip"), good_zip()),
    "gz": (functools.partial(corpus_of, "text.gz"), gzip.compress(TEXT * 4, mtime=0)),
    "bz2": (functools.partial(corpus_of, "text.bz2"), bz2.compress(TEXT * 4)),
    "xz": (functools.partial(corpus_of, "text.xz"), lzma.compress(TEXT * 4)),
    "symbols": (characters, b"t h e _ c a t\nt h e _ d o g\n" * 4),
    "utf16": (functools.partial(encoded, "utf-16"), TEXT.decode().encode("utf-16")),
    "multibyte": (functools.partial(encoded, "iso2022_jp"), "the \u65e5\u672c\n".encode("iso2022_jp")),
    "config": (config, json.dumps(RECORD).encode()),
    "former_config": (config, json.dumps(FORMER).encode()),
    "checkpoint": (checkpoint, CHECKPOINT),
}
