"""What a report knows of each run: its records, and its model if the folder has weights."""

import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ptb.config import Config, flatten
from ptb.report.words import ScoredText
from ptb.runs.folder import RunFolder
from ptb.runs.load import TrainedModel, load
from ptb.runs.storage import RunError
from ptb.runs.texts import is_ptb

SAMPLE_LENGTH = 60  # tokens


class Reported(NamedTuple):
    """A run in a report."""

    name: str
    record: dict  # config.json
    config: Config
    history: list[dict]
    result: dict | None  # None if the run has not finished
    model: TrainedModel | None  # None without weights
    published: tuple[float | None, float] | None = None  # valid, test
    scored: ScoredText | None = None
    sample: str = ""

    @property
    def seconds(self) -> np.ndarray:
        """Seconds of training until the end of each epoch, without validations."""
        return np.cumsum([epoch["seconds"] for epoch in self.history])

    def series(self, name: str) -> np.ndarray:
        """Return a column of the history; NaN for what an older version did not record."""
        return np.array([epoch.get(name, math.nan) for epoch in self.history])


class NothingToReport(RunError):
    """A file, or a run that has not finished its first epoch: `runs/*` can have both beside other runs."""


def open_run(path: str, lowercase: bool = False) -> Reported:
    """Open a run folder. Raise RunError if it holds no run, and NothingToReport if that is no mistake."""
    run = RunFolder(path)
    if run.path.is_file():
        raise NothingToReport(f"{path}: is a file; name the folder of a run")
    record, config = run.read_config()
    history = run.history
    if not history:
        raise NothingToReport(f"{path}: has not finished an epoch; report it later")
    model = load(path, lowercase=lowercase) if run.checkpoints.paths() and run.vocabulary_path.exists() else None
    return Reported(str(run.path), record, config, history, run.result, model)


def score(run: Reported, ids: np.ndarray, train_ids: np.ndarray | None) -> Reported:
    """Return the run with the scores of a text, and with a text that its model writes."""
    lm = run.model
    counts = None if train_ids is None else np.bincount(train_ids, minlength=len(lm.vocabulary))[ids[1:]]
    tokens = tuple(lm.vocabulary.words[token] for token in ids)
    scored = ScoredText(tokens, lm.log_probabilities(ids), lm.confidences(ids), counts)
    return run._replace(scored=scored, sample=lm.generate(length=SAMPLE_LENGTH, seed=1))


def with_short_names(runs: Sequence[Reported]) -> list[Reported]:
    """Return the runs under the last part of their paths, or more parts if these are alike."""
    parts = [pathlib.Path(run.name).resolve().parts for run in runs]
    count = 1
    while len({path[-count:] for path in parts}) < len({*parts}):
        count += 1
    names = ("/".join(path[-count:]).encode(errors="backslashreplace").decode() for path in parts)  # charts take no surrogates
    return [run._replace(name=name) for run, name in zip(runs, names)]


def differing_settings(runs: Sequence[Reported]) -> dict[str, list]:
    """Return the settings in which runs differ, with the value of each run; None for a field that it does not have."""
    settings = [
        {"model": run.record["model"], "seed": run.record["seed"]}
        | {"text": "PTB" if is_ptb(run.record) else run.record["data_path"] or "without a name"}
        | {"trained in": run.history[-1].get("precision", run.record["precision"])}
        | flatten(run.config)
        for run in runs
    ]
    names = dict.fromkeys(name for setting in settings for name in setting)
    values = {name: [setting.get(name) for setting in settings] for name in names}
    return {name: row for name, row in values.items() if any(value != row[0] for value in row)}


def seconds_to(run: Reported, perplexity: float) -> float | None:
    """Return the seconds of training after which valid perplexity was first at most this; None if it never was."""
    reached = np.flatnonzero(run.series("valid_perplexity") <= perplexity)
    return float(run.seconds[reached[0]]) if reached.size else None


def milestones(runs: Sequence[Reported], count: int = 5) -> list[float]:
    """Return valid perplexities between the median of the first epochs and the best of all, and the published ones."""
    best = min(run.series("valid_perplexity").min() for run in runs)
    first = float(np.median([run.series("valid_perplexity")[0] for run in runs]))
    spaced = [round_up(value) for value in np.geomspace(first, best, count)]
    published = {run.published[0] for run in runs if run.published and run.published[0]}
    return sorted({*spaced, *published}, reverse=True)


def round_up(value: float, digits: int = 3) -> float:
    """Return the next number of so many significant digits that is not smaller."""
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    return round(math.ceil(value / unit - 1e-9) * unit, 10)
