"""What reads files that others may have written, each fed with bytes: a result, or None for a typed error, never anything else.

`tests/test_fuzz.py` feeds them with Hypothesis, `fuzz/run.py` with Atheris.
"""

import contextlib
import dataclasses
import io
import json
import pathlib
import tarfile
import tempfile

import trained
from ptb.progress import Progress, learnt_variables
from ptb.run import Run, RunError

import reader
from configs import TEST
from ptb.model import LanguageModel
from ptb.training import Sums

MODEL = LanguageModel(vocab_size=3, hidden_size=2, num_layers=1)
VOCABULARY = reader.Vocabulary(("the", reader.EOS, reader.UNK))
TEXT = b"the cat\n the dog <unk>\n"
RECORDED = {"model": "test", "seed": 1, "precision": "float32", "corpus": "", "data_path": None}
CONFIG = json.dumps(dataclasses.asdict(TEST) | RECORDED).encode()


def new_progress():
    return Progress(learnt_variables(MODEL), MODEL.initial_state(2), Sums.zero())


@contextlib.contextmanager
def file_of(data, name):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, name)
        path.write_bytes(data)
        yield path


def text(data):
    with file_of(data, "text.txt") as path, contextlib.suppress(reader.DataError):
        return reader.read_tokens(path, VOCABULARY)


def characters(data):
    with file_of(data, "text.txt") as path, contextlib.suppress(reader.DataError):
        return reader.read_corpus(path, level="char", fractions=(0.5, 0.25))


def vocabulary(data):
    with file_of(data, "vocabulary.txt") as path, contextlib.suppress(reader.DataError):
        return reader.Vocabulary.load(path)


def archive(data):
    with file_of(data, "data.tgz") as path, contextlib.suppress(reader.DataError):
        return reader.read_corpus(path)


def config(data):
    with file_of(data, "config.json") as path, contextlib.suppress(RunError):
        path.with_name("checkpoint-000000001.npz").write_bytes(CHECKPOINT)
        path.with_name("vocabulary.txt").write_bytes(VOCABULARY.to_bytes())
        return trained.Trained(path.parent).load_model()


def checkpoint(data):
    with file_of(data, "checkpoint-000000001.npz") as path, contextlib.suppress(RunError):
        return new_progress().restore(Run(path.parent))


def good_archive():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for split in reader.SPLITS:
            member = tarfile.TarInfo(f"data/{split}.txt")
            content = TEXT + split.encode()
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def good_checkpoint():
    with tempfile.TemporaryDirectory() as folder:
        new_progress().save(Run(folder))
        return next(pathlib.Path(folder).glob("*.npz")).read_bytes()


CHECKPOINT = good_checkpoint()
TARGETS = {
    "text": (text, TEXT),
    "characters": (characters, TEXT * 4),
    "vocabulary": (vocabulary, b"the\n<eos>\n<unk>\n"),
    "archive": (archive, good_archive()),
    "config": (config, CONFIG),
    "checkpoint": (checkpoint, CHECKPOINT),
}
