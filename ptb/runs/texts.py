"""The texts that a run is scored on: the one of its training, or another."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptb.data.corpus import is_one_text, load_corpus
from ptb.data.download import PTB_FINGERPRINT
from ptb.data.files import DataError
from ptb.runs.load import TrainedModel

logger = logging.getLogger(__name__)


def is_ptb(record: Mapping[str, Any]) -> bool:
    """Return whether the run of a config.json was trained on PTB: the fingerprint says so, or train.py read it in another way.

    Earlier versions wrote None for texts that were given from Python too; the model of such runs is called custom.
    """
    return record["corpus"] == PTB_FINGERPRINT or (record["data_path"] is None and record["model"] != "custom")


def read_texts(
    lm: TrainedModel, data_path: str | None = None, splits: Sequence[str] | None = None, encoding: str | None = None
) -> dict[str, np.ndarray]:
    """Return the ids of each text to score, by name: one text whole, or the `splits`, by default valid and test.

    `data_path` is by default the text of the training. Raises DataError if a text cannot be read or is not known.
    """
    if data_path not in (None, "demo") and not splits and is_one_text(data_path):
        name = ",".join(os.path.basename(os.path.abspath(part)) for part in data_path.split(","))
        return {name: lm.read_tokens(data_path, encoding)}
    path = lm.record["data_path"] if data_path is None else data_path
    if not path and not is_ptb(lm.record):
        raise DataError(f"{lm.run.path}: was trained on a text that its config.json does not name; name it with --data_path")
    options = lm.config.data.reading | {"lowercase": lm.lowercase, "encoding": encoding or lm.encoding}
    try:
        corpus = load_corpus(path, lm.vocabulary, **options)
    except DataError as error:
        cure = "; or name the text with --data_path, and of a single file the --split that was held out"
        raise error if data_path else DataError(f"{error}{cure}") from None
    if data_path is None and corpus.fingerprint() != lm.record["corpus"]:
        logger.warning("%s: is not, or no longer, the text that %s was trained on", path or "PTB", lm.run.path)
    return {split: getattr(corpus, split) for split in splits or ("valid", "test")}
