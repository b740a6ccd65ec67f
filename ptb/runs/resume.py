"""Where a training begins: at the newest checkpoint of its run, or with the weights of another run, and what names it."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ptb.config import Config, flatten
from ptb.data.download import PTB_FINGERPRINT
from ptb.data.vocabulary import Vocabulary
from ptb.runs.folder import RunFolder, identity
from ptb.runs.load import TrainedModel
from ptb.runs.storage import RunError
from ptb.runtime import replicas
from ptb.runtime.signals import print_line
from ptb.training.state import TrainState, trained_variables

INITIAL = ("init_scale", "initializers", "forget_bias", "orthogonal_recurrence")  # fields of Model: no matter after the start

logger = logging.getLogger(__name__)


def resume(run: RunFolder, state: TrainState, finished: Callable[[], bool], precision: str) -> None:
    """Restore the newest checkpoint, or write the first one. Record and warn if the precision of products changes."""
    if run.restore(state):
        print_line(f"Resuming {run.path} after step {state.step}")
    else:
        run.save(state)
    if not finished() and precision not in state.precisions[-1:]:
        if state.precisions:
            logger.warning("%s: its products were in %s, from now on in %s", run.path, state.precisions[-1], precision)
        state.precisions.append(precision)
    run.write_history(state.history)
    replicas.assert_workers_agree({"step": state.step})


def resume_hint(run: RunFolder, state: TrainState) -> str:
    """Return what a stopped run prints: how to continue, and the best validation so far."""
    best = f"best so far: valid perplexity {state.best_perplexity:.3f} at step {state.best_step}; " if state.best_step else ""
    return f"{best}the same command resumes {run.path}"


def complete_about(about: Mapping[str, Any], run: RunFolder, corpus: str) -> dict[str, Any]:
    """Return what config.json says of a run although nothing in its training depends on it.

    What `about` lacks is as in the run so far. In a new run the text has no name then, unless `corpus` is PTB's fingerprint.
    """
    data_path = None if corpus == PTB_FINGERPRINT else ""
    begun, new = run.record or {}, {"model": "custom", "data_path": data_path, "overrides": {}, "encoding": "utf-8"}
    return new | {name: begun[name] for name in new if name in begun} | about


def describe_source(source: TrainedModel, config: Config, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what config.json says of the run that gives a new run its weights.

    Raises RunError unless the weights fit the configuration, and the run's vocabulary is the start of `vocabulary`.
    """
    path, fields = source.run.path, flatten(config)
    for name, value in flatten(source.config).items():
        part, _, field = name.rpartition(".")
        decides = (part == "model" and field not in INITIAL) or name == "data.level"
        if decides and value != fields[name]:
            raise RunError(f"{path}: its {name} is {value!r}, not {fields[name]!r}; leave --model and --set {name} out")
    if vocabulary.words[: len(source.vocabulary)] != source.vocabulary.words:
        raise RunError(
            f"{path}: its vocabulary is not that of the text; read the text with its vocabulary, as --init_from does"
        )
    return {"run": str(path), "digest": identity(source.record, source.vocabulary)}


def initialize(model, source: TrainedModel, run: RunFolder, vocab_size: int) -> None:
    """Give the new model of `run` the weights of another run, and say so in config.json.

    Rows of words that the other run did not have keep their initial values.
    """
    weights = source.read_weights()
    for name, variable in trained_variables(model).items():
        variable.assign(_with_new_rows(name, weights.arrays, variable.numpy(), len(source.vocabulary), vocab_size))
    new = vocab_size - len(source.vocabulary)
    print_line(f"Weights: of {source.run.path}, step {weights.step}" + (f"; {new:,} new words start anew" if new else ""))
    record = run.record or {}
    origin = record.get("init_from", {}) | {"step": weights.step, "new_words": new}
    run.write_json("config.json", record | {"init_from": origin})


def _with_new_rows(name: str, weights: Mapping[str, np.ndarray], initial: np.ndarray, before: int, now: int) -> np.ndarray:
    """Return a variable's new value. Raise RunError if its shape differs by more than the rows of new words."""
    given = weights.get(name)
    if given is not None and given.shape == initial.shape:
        return given
    if given is None or (given.shape[0], initial.shape[0], given.shape[1:]) != (before, now, initial.shape[1:]):
        raise RunError(f"--init_from: {name} does not fit this model; use the version of this program that wrote the run")
    return np.concatenate([given, initial[before:]])
