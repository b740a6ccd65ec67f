"""Report on runs: one HTML page that opens without a network, and its charts as PNG and SVG.

python report.py runs/*                              # report/index.html, report/perplexity.png, …
python report.py runs/small-1 runs/small-2 --split=test --output=small
python report.py results/medium-1                    # records without weights: curves only
"""

import importlib.util
import logging
import os
import pathlib

from absl import flags

import cli
from configs import published_scores
from evaluate import load_texts
from ptb.data.corpus import is_one_text
from ptb.data.download import PTB_FINGERPRINT
from ptb.data.files import DataError
from ptb.runs.folder import RunFolder
from ptb.runs.load import TrainedModel
from ptb.runs.storage import RunError, write_atomically, writing

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
    if importlib.util.find_spec("matplotlib") is None:
        raise RunError("matplotlib: is not installed, and draws the charts; type: pip install matplotlib")
    folder = pathlib.Path(os.path.expanduser(values.output))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    print(report(paths, folder, values.split, values.data_path, values.encoding, values.lowercase))


def report(
    paths: list[str],
    folder: pathlib.Path,
    split: str | None = None,
    data_path: str | None = None,
    encoding: str | None = None,
    lowercase: bool = False,
) -> pathlib.Path:
    """Write a report on run folders into a folder. Return the path of the page.

    Words are looked at in a `split` of the text of `data_path`, by default that of the training.

    Raises RunError for a folder without a run or without a finished epoch, and DataError if a text cannot be read.
    """
    from ptb.report import charts, page, runs  # matplotlib is in an extra

    opened = [runs.open_run(path, published_for(path), lowercase) for path in paths]
    previous, shown, name = None, [], split or "valid"
    for run in runs.with_short_names(opened):
        if run.model:
            run.model.take_over(previous)
            previous = run.model
            name, ids, train_ids = texts_for(run.model, split, data_path, encoding)
            run = runs.score(run, ids, train_ids)
        shown.append(run)
    figures = charts.charts(shown)
    target = folder / "index.html"
    write_atomically(target, page.page(shown, figures, name).encode(errors="backslashreplace"))
    with writing(folder):
        charts.save(figures, folder)
    return target


def texts_for(lm: TrainedModel, split: str | None, data_path: str | None, encoding: str | None):
    """Return the name and the ids of the text to look at, and the ids of the run's training text, None if it is lost."""
    if data_path is None:
        texts = load_texts(lm, None, ["train", split or "valid"], encoding)
        return split or "valid", texts[split or "valid"], texts["train"]
    whole = split is None and data_path != "demo" and is_one_text(data_path)
    ((name, ids),) = load_texts(lm, data_path, None if whole else [split or "valid"], encoding).items()
    try:
        return name, ids, load_texts(lm, None, ["train"])["train"]
    except DataError:
        logger.warning("%s: its training text cannot be read, so words are not grouped by their number there", lm.run.path)
        return name, ids, None


def published_for(path: str) -> tuple[float | None, float] | None:
    """Return the published perplexities, valid and test, of a run's configuration, if it was trained on PTB."""
    record = RunFolder(path).record or {}
    return published_scores(record.get("model", "")) if record.get("corpus") == PTB_FINGERPRINT else None


if __name__ == "__main__":
    cli.run(main, define_flags, takes_runs=True)
