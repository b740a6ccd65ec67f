"""The pictures of results, from the records."""

import pathlib
import statistics

from configs import CONFIGS, published_scores
from pages.records import HEADLINES, mean_hours, recorded_tests, results_of


def draw_ladder(results: pathlib.Path):
    """Draw the README's picture: test perplexity per row, each run and the mean as dots, the published number as a tick."""
    rows = [(name, count) for name, count in HEADLINES if recorded_tests(results, name, count)]
    figure, axes = new_picture(height=0.36 * len(rows) + 1.2)
    beside = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 9}  # x: a share of the width
    for height, (name, count) in enumerate(rows):
        tests = recorded_tests(results, name, count)
        axes.plot(tests, [height] * len(tests), "o", color="tab:blue", alpha=0.3, markersize=5, markeredgewidth=0, label="run")
        mean = statistics.mean(tests)
        axes.plot([mean], [height], "o", color="tab:blue", markersize=7, label="ours (mean)")
        axes.text(1.02, height, f"{mean:.1f}", color="tab:blue", **beside)
        if numbers := published_scores(name, count):
            axes.plot([numbers[1]], [height], "|", color="black", markersize=17, markeredgewidth=2, label="published")
            axes.text(1.10, height, f"{numbers[1]:.1f}", **beside)
    axes.text(1.02, -0.8, "ours", color="tab:blue", **beside)
    axes.text(1.10, -0.8, "published", **beside)
    axes.set_yticks(range(len(rows)), [name + (f", {count} averaged" if count > 1 else "") for name, count in rows])
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.tick_params(left=False)
    axes.set_xlabel("test perplexity on the Penn Treebank (lower is better)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels())))
    if rows:
        axes.legend(handles.values(), handles.keys(), loc="best", fontsize=9)
    return figure


def draw_budgets(results: pathlib.Path):
    """Draw test perplexity over the minutes of one training, without validation: a line for one recipe, dots for other rows.

    Variants of a configuration are left out, for lack of room.
    """
    figure, axes = new_picture(height=4)
    line = []
    for name, count in HEADLINES:
        tests = recorded_tests(results, name, count) if count == 1 and not CONFIGS[name].base else []
        if not tests:
            continue
        budget, mean = CONFIGS[name].config.budget_minutes, statistics.mean(tests)
        minutes = 60 * mean_hours(results_of(results, name))
        if budget:
            line.append((minutes, mean))
        color = "tab:blue" if budget else "tab:gray"
        axes.plot([minutes] * len(tests), tests, "o", color=color, alpha=0.3, markersize=5, markeredgewidth=0)
        axes.plot([minutes], [mean], "o", color=color, markersize=7)
        place = {"xytext": (8, 4)} if budget else {"xytext": (0, 8), "ha": "center"}  # beside the line, or above the dot
        axes.annotate(f"{name} {mean:.1f}", (minutes, mean), textcoords="offset points", color=color, fontsize=9, **place)
    if line:
        axes.plot(*zip(*sorted(line)), color="tab:blue")
    axes.set_xscale("log")
    axes.margins(x=0.15)
    ticks = [10, 30, 60, 120, 240, 480]
    axes.set_xticks(ticks, [f"{tick} min" if tick < 60 else f"{tick // 60} h" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training time, without validation")
    axes.set_ylabel("test perplexity")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def new_picture(height: float):
    """Return a new figure and its axes; `height` is in inches."""
    import matplotlib  # a requirement of development only

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ladder"  # the same records give the same file
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(9, height), layout="constrained")


def save_picture(figure, path: pathlib.Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


PICTURES = {"docs/ladder.svg": draw_ladder, "docs/budget.svg": draw_budgets}
