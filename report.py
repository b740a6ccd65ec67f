"""Report on runs: one HTML page that opens without a network, and its charts as PNG and SVG.

python report.py runs/*                              # report/index.html, report/perplexity.png, …
python report.py runs/small-1 runs/small-2 --split=test --output=small
python report.py results/medium-1                    # records without weights: curves only
"""

import importlib.util
import os
import pathlib

from absl import flags

import cli
from configs import published_scores
from evaluate import load_texts
from ptb.data.download import PTB_FINGERPRINT
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError, write_atomically, writing


def define_flags(values: flags.FlagValues) -> None:
    options = {"flag_values": values}
    cli.define_data_path(values, "Text whose words to look at, as for train.py. Default: the text of the training.")
    help = "Which part of the text to look at: valid, so that nobody tunes a model by the words of test."
    flags.DEFINE_enum("split", "valid", ["valid", "test"], help, **options)
    flags.DEFINE_string("output", "report", "Folder of the report.", **options)


def main(values: flags.FlagValues, paths: list[str]) -> None:
    if not paths:
        raise flags.Error("which runs? Name one or more run folders, for example: report.py runs/*")
    if importlib.util.find_spec("matplotlib") is None:
        raise RunError("matplotlib: is not installed, and draws the charts; type: pip install matplotlib")
    folder = pathlib.Path(os.path.expanduser(values.output))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    print(report(paths, folder, values.split, values.data_path))


def report(paths: list[str], folder: pathlib.Path, split: str = "valid", data_path: str | None = None) -> pathlib.Path:
    """Write a report on run folders into a folder. Return the path of the page.

    Raises RunError for a folder without a run or without a finished epoch, and DataError if a text cannot be read.
    """
    from ptb.report import charts, page, runs  # matplotlib is in an extra

    opened = runs.with_short_names([runs.open_run(path, published_for(path)) for path in paths])
    previous, shown = None, []
    for run in opened:
        if run.model:
            run.model.take_over(previous)
            previous = run.model
            texts = load_texts(run.model, data_path, ["train", split])
            run = runs.score(run, texts[split], texts["train"])
        shown.append(run)
    figures = charts.charts(shown)
    target = folder / "index.html"
    write_atomically(target, page.page(shown, figures, split).encode(errors="backslashreplace"))
    with writing(folder):
        charts.save(figures, folder)
    return target


def published_for(path: str) -> tuple[float | None, float] | None:
    """Return the published perplexities, valid and test, of a run's configuration, if it was trained on PTB."""
    record = RunFolder(path).config or {}
    return published_scores(record.get("model", "")) if record.get("corpus") == PTB_FINGERPRINT else None


if __name__ == "__main__":
    cli.run(main, define_flags, takes_runs=True)
