"""Report on runs: one HTML page that opens without a network, and its charts as PNG and SVG.

python report.py runs/*                              # report/index.html, report/perplexity.png, …
python report.py runs/small-1 runs/small-2 --split=test --output=small
python report.py results/medium-1                    # records without weights: curves only
"""

import logging
import os
import pathlib

from absl import flags

import cli
from configs import published_scores
from ptb.data.corpus import is_one_text
from ptb.data.download import PTB_FINGERPRINT
from ptb.data.files import DataError
from ptb.report.runs import NothingToReport, Reported, open_run, score, with_short_names
from ptb.runs.load import TrainedModel
from ptb.runs.storage import write_atomically, writing
from ptb.runs.texts import read_texts

logger = logging.getLogger(__name__)


def define_flags(values: flags.FlagValues) -> None:
    options = {"flag_values": values}
    cli.define_data_path(values, "Text whose words to look at, as for train.py. Default: the text of the training.")
    help = "Which part of the text to look at. Default: valid, so that nobody tunes a model by test; one file of yours whole."
    flags.DEFINE_enum("split", None, ["valid", "test"], help, **options)
    cli.define_encoding(values, None)
    cli.define_lowercase(values, "Read the text in lower case.")
    flags.DEFINE_string("output", "report", "Folder of the report.", **options)


def main(values: flags.FlagValues, paths: list[str]) -> None:
    if not paths:
        raise flags.Error("which runs? Name one or more run folders, for example: report.py runs/*")
    cli.require_matplotlib()
    opened = open_runs(paths, values.lowercase)
    if not any(run.model for run in opened):
        cli.reject_flags(values, "has no effect on records without weights", "split", "data_path", "encoding", "lowercase")
    shown, name = score_runs(opened, values.split, values.data_path, values.encoding)
    print(write_report(shown, name, pathlib.Path(os.path.expanduser(values.output))))


def open_runs(paths: list[str], lowercase: bool = False) -> list[Reported]:
    """Open run folders. Files and runs without a finished epoch are left out with a warning, if another run remains.

    Raises RunError for a folder without a run, or if no run remains.
    """
    opened, left_out = [], []
    for path in paths:
        try:
            run = open_run(path, lowercase)
            opened.append(run._replace(published=published_for(run.record)))
        except NothingToReport as error:
            left_out.append(error)
    if not opened:
        raise left_out[0]
    for error in left_out:
        logger.warning("%s", error)
    return with_short_names(opened)


def score_runs(
    opened: list[Reported], split: str | None = None, data_path: str | None = None, encoding: str | None = None
) -> tuple[list[Reported], str]:
    """Return the runs, with the scores of a text if they have weights, and the name of the text.

    The text is a `split` of the text of `data_path`, by default that of the training. Raises DataError if it cannot be read.
    """
    previous, scored, name = None, [], split or "valid"
    for run in opened:
        if run.model:
            run.model.take_over(previous)
            previous = run.model
            name, ids, train_ids = texts_for(run.model, split, data_path, encoding)
            run = score(run, ids, train_ids)
        scored.append(run)
    return scored, name


def write_report(runs: list[Reported], name: str, folder: pathlib.Path) -> pathlib.Path:
    """Write a report on runs, scored on the text `name`, into a folder. Return the path of the page."""
    from ptb.report import charts, page  # matplotlib is in an extra

    figures = charts.charts(runs)
    content = page.page(runs, figures, name).encode(errors="backslashreplace")
    target = folder / "index.html"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(target, content)
    with writing(folder):
        charts.save(figures, folder)
    return target


def texts_for(lm: TrainedModel, split: str | None, data_path: str | None, encoding: str | None):
    """Return the name and the ids of the text to look at, and the ids of the run's training text, None if it is lost."""
    if data_path is None:
        texts = read_texts(lm, None, ["train", split or "valid"], encoding)
        return split or "valid", texts[split or "valid"], texts["train"]
    whole = split is None and data_path != "demo" and is_one_text(data_path)
    ((name, ids),) = read_texts(lm, data_path, None if whole else [split or "valid"], encoding).items()
    try:
        return name, ids, read_texts(lm, None, ["train"])["train"]
    except DataError:
        logger.warning("%s: its training text cannot be read, so words are not grouped by their number there", lm.run.path)
        return name, ids, None


def published_for(record: dict) -> tuple[float | None, float] | None:
    """Return the published perplexities, valid and test, of a run's configuration, if it was trained on PTB."""
    return published_scores(record["model"]) if record["corpus"] == PTB_FINGERPRINT else None


if __name__ == "__main__":
    cli.run(main, define_flags, takes_runs=True)
