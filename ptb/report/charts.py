"""The charts of a report, drawn by matplotlib: `pip install '.[report]'` in the checkout."""

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot, ticker  # noqa: E402 -- after the choice of a backend without a window
from matplotlib.figure import Figure  # noqa: E402

from ptb.report.runs import Reported  # noqa: E402
from ptb.report.words import GROUPINGS, calibration  # noqa: E402

STYLE = {"svg.hashsalt": "report", "svg.fonttype": "none", "font.size": 9, "axes.grid": True, "grid.alpha": 0.25}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
WIDTH = 9.0  # inches


def charts(runs: Sequence[Reported]) -> dict[str, Figure]:
    """Return the figures by name: those of training, and those of words if a run has been scored."""
    scored = [(number, run) for number, run in enumerate(runs) if run.scored]
    with matplotlib.rc_context(STYLE):
        figures = {"perplexity": perplexity_chart(runs), "training": training_chart(runs)}
        if scored:
            figures["words"] = words_chart(scored)
            figures["calibration"] = calibration_chart(scored)
    return figures


def perplexity_chart(runs: Sequence[Reported]) -> Figure:
    """Draw valid and train perplexity of each run, by epoch and by time, with the published lines."""
    figure, (by_epoch, by_time) = pyplot.subplots(1, 2, figsize=(WIDTH, 3.8), sharey=True, layout="constrained")
    unit, seconds = ("hours", 3600) if max(run.seconds[-1] for run in runs) > 2 * 3600 else ("minutes", 60)
    for number, run in enumerate(runs):
        for axes, places in ((by_epoch, run.series("epoch")), (by_time, run.seconds / seconds)):
            style = {"color": color(number), "marker": "." if len(run.history) < 30 else ""}
            axes.plot(places, run.series("valid_perplexity"), **style, label=run.name)
            axes.plot(places, run.series("train_perplexity"), **style, linestyle="--", alpha=0.5)
    for published in sorted({run.published[0] for run in runs if run.published and run.published[0]}):
        for axes in (by_epoch, by_time):
            axes.axhline(published, color="black", linestyle=":", linewidth=1)
        by_epoch.annotate(
            f"published valid {published:g}", (1, published), xycoords=("axes fraction", "data"), ha="right", va="bottom"
        )
    plain_log_scale(by_epoch)
    by_epoch.set(xlabel="epoch", ylabel="perplexity: valid (line), train (dashed)")
    by_epoch.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    by_time.set(xlabel=f"{unit} of training")
    by_time.legend(fontsize=8)
    return figure


def training_chart(runs: Sequence[Reported]) -> Figure:
    """Draw learning rate, gradient norm and the share of clipped steps by epoch."""
    figure, axes = pyplot.subplots(1, 3, figsize=(WIDTH, 2.6), layout="constrained")
    columns = ("learning_rate", "mean_gradient_norm", "clipped_fraction")
    for axis, column in zip(axes, columns):
        for number, run in enumerate(runs):
            axis.plot(run.series("epoch"), run.series(column), color=color(number), label=run.name)
        axis.set(title=column.replace("_", " "), xlabel="epoch")
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes[0].set_yscale("log")
    axes[2].set_ylim(-0.03, 1.03)
    return figure


def words_chart(scored: Sequence[tuple[int, Reported]]) -> Figure:
    """Draw perplexity by frequency in the training text, by place in the sentence and by its length."""
    figure, axes = pyplot.subplots(1, 3, figsize=(WIDTH, 3.4), layout="constrained")
    for axis, (title, (grouping, labels)) in zip(axes, GROUPINGS.items()):
        found = [(number, {group.label: group.perplexity for group in grouping(run.scored)}) for number, run in scored]
        labels = [label for label in labels if any(label in perplexities for _, perplexities in found)]
        for number, perplexities in found:
            values = [perplexities.get(label, np.nan) for label in labels]
            axis.plot(range(len(labels)), values, "o-", color=color(number), markersize=4)
        plain_log_scale(axis)
        axis.set_title(title)
        axis.set_visible(bool(labels))  # the training text may be unknown
        axis.set_xticks(range(len(labels)), labels, rotation=60, fontsize=8)
    axes[0].set_ylabel("perplexity")
    return figure


def calibration_chart(scored: Sequence[tuple[int, Reported]]) -> Figure:
    """Draw how often the likeliest word came, by its probability."""
    figure, axes = pyplot.subplots(figsize=(4, 3.6), layout="constrained")
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
    for number, run in scored:
        bins = calibration(run.scored)
        axes.plot(
            [b.confidence for b in bins], [b.accuracy for b in bins], "o-", color=color(number), markersize=4, label=run.name
        )
    axes.set(xlabel="probability of the likeliest word", ylabel="share in which it came", xlim=(0, 1), ylim=(0, 1))
    axes.legend(fontsize=8)
    return figure


def plain_log_scale(axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def color(number: int) -> str:
    """Return the colour of a run, the same in all charts and tables."""
    return matplotlib.colors.to_hex(f"C{number % 10}")


def to_svg(figure: Figure, prefix: str) -> str:
    """Return a figure as an SVG element for a page; `prefix` keeps its ids apart from those of other figures."""
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    return re.sub(r'((?:id="|href="#|url\(#))', rf"\1{prefix}-", svg)


def save(figures: dict[str, Figure], folder) -> None:
    """Write each figure as PNG and as SVG, and close it."""
    with matplotlib.rc_context(STYLE):
        for name, figure in figures.items():
            for kind in ("png", "svg"):
                figure.savefig(folder / f"{name}.{kind}", dpi=150, metadata={"Date": None} if kind == "svg" else {})
            pyplot.close(figure)


def heat(nats: float) -> str:
    """Return the background of a word: blue where the second model is better, red where the first is; white at 0."""
    share = float(np.clip(abs(nats) / 3, 0, 1)) * 0.7
    return f"rgba({'31,119,180' if nats > 0 else '214,39,40'},{share:.2f})"
