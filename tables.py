"""Tables and pictures of results, made from results/ and configs.py; `python reproduce.py --tables` writes them.

A row is a configuration, or `<configuration>_<precision>` if a precision was asked for. Its records are the folders
results/<row>-<seed>, with config.json, history.jsonl and result.json, and the averages results/<row>-average.jsonl.
Trials of settings for `one_hour` are in results/trials/<name>, with config.json and history.jsonl.
"""

import itertools
import json
import math
import pathlib
import re
import statistics
from collections.abc import Iterable, Iterator

import reference
from configs import CONFIGS, Named, published_scores
from ptb.config import Config, differences, from_json, value_text
from ptb.model.cells import CELLS
from ptb.runs.folder import RunFolder
from ptb.runs.storage import reading, write_atomically
from ptb.runtime.devices import PRECISIONS

ROOT = pathlib.Path(__file__).parent
RESULTS = ROOT / "results"
TABLE = re.compile(r"(<!-- (\w+): made by reproduce.py -->\n).*?(<!-- end of \2 -->)", re.DOTALL)

VOCAB_SIZE = 10_000  # of PTB
NOT_OF_A_TRIAL = ("budget_minutes", "temperature_scaling")  # these fields change no validation within a training
# The rows of the README: configuration and number of models averaged. Those without records are left out.
HEADLINES = (
    ("small", 1),
    ("small_lua_decay_two_biases", 1),
    ("medium", 1),
    ("medium_lua_decay_two_biases", 1),
    ("large_lua_decay_two_biases", 1),
    ("small", 10),
    ("small_tied_projected", 1),
    ("word_language_model_200", 1),
    ("word_language_model_650", 1),
    ("ten_minutes", 1),
    ("one_hour", 1),
    ("melis_10m", 1),
)


def rewrite_pages(root: pathlib.Path = ROOT, results: pathlib.Path = RESULTS) -> list[str]:
    """Rewrite the tables of the pages and the pictures from the records. Return the names of the files."""
    for page, names in PAGES.items():
        write_atomically(root / page, with_tables(page, names, results, root).encode())
    for picture, draw in PICTURES.items():
        save_picture(draw(results), root / picture)
    return [*PAGES, *PICTURES]


def with_tables(page: str, names: Iterable[str], results: pathlib.Path, root: pathlib.Path = ROOT) -> str:
    """Return the text of a page with its tables made from the records. Raise OSError if the page has no place for one."""
    text = (root / page).read_text(encoding="utf-8")
    if {match[2] for match in TABLE.finditer(text)} != set(names):
        raise OSError(f"{page}: should have places for the tables {', '.join(names)}, each between two comments")
    return TABLE.sub(lambda match: match[1] + "\n".join(TABLES[match[2]](results)) + "\n" + match[3], text)


def headline_table(results: pathlib.Path) -> Iterator[str]:
    """Yield the lines of the README's table."""
    yield "| configuration | parameters | ours, test (valid) | runs | published, test (valid) | hours, machine |"
    yield "|---|---|---|---|---|---|"
    for name, count in HEADLINES:
        scores = single_scores(results, name) if count == 1 else averaged_scores(results, name, count)
        if scores is None:
            continue
        valid, test = scores
        runs = results_of(results, name)
        parameters = reference.count_parameters(CONFIGS[name].config, VOCAB_SIZE)
        label = f"`{name}`" + (f", {count} averaged" if count > 1 else "")
        made = f"{mean_hours(runs):.1f}, {machines(runs)}" if count == 1 else ""
        seeds = len(runs) if count == 1 else count
        yield f"| {label} | {parameters:,} | {test} ({valid}) | {seeds} | {published(name, count)} | {made} |"


def published(name: str, count: int = 1) -> str:
    """Return the published perplexities, test (valid), of a configuration or of the one that it is a variant of."""
    numbers = published_scores(name, count)
    if not numbers:
        return ""
    return f"{numbers[1]:.1f}" + (f" ({numbers[0]:.1f})" if numbers[0] else "")


def table_1(results: pathlib.Path) -> Iterator[str]:
    """Yield the lines of the table of all published rows: as published, and with code choices and in precisions that were run.

    The last line names the rows without a finished run.
    """
    yield "| | published valid / test | ours valid / test | runs | precision | best test | hours a run | machine | Gflop/s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    not_run = []
    for name, named in CONFIGS.items():
        for count, (valid, test) in named.published.items():
            variants = [name, *(other for other, variant in CONFIGS.items() if variant.base == name and is_code_choice(other))]
            for model, precision in itertools.product(variants, PRECISIONS):
                row = row_name(model, precision)
                ours = single(results, row, CONFIGS[model]) if count == 1 else averaged(results, row, count)
                label = row if count == 1 else f"{row}, {count} averaged"
                numbers = f"{_published_number(valid)} / {test:.1f}"
                if ours:
                    yield f"| {label} | {numbers} | {ours} |"
                elif (model, precision) == (name, "auto"):
                    not_run.append(f"{label} ({numbers})")
    if not_run:
        yield ""
        yield f"No finished run (published valid / test): {'; '.join(not_run)}."


def _published_number(perplexity: float | None) -> str:
    return f"{perplexity:.1f}" if perplexity else "–"


def is_code_choice(name: str) -> bool:
    """Return whether a variant follows the paper's own code, and so is compared with the paper's numbers."""
    return name.endswith("two_biases")


def others_table(results: pathlib.Path) -> Iterator[str]:
    """Yield the lines of the table of small and of the configurations without published numbers of their own, if run."""
    yield "| configuration | train | valid | test | | runs | precision | hours a run |"
    yield "|---|---|---|---|---|---|---|---|"
    others = [name for name, named in CONFIGS.items() if not named.published and name not in ("test", "demo")]
    for model, precision in itertools.product(("small", *others), PRECISIONS):
        row = row_name(model, precision)
        records = results_of(results, row)
        if not records:
            continue
        in_bits = CONFIGS[model].config.data.level == "char"
        columns = [[record[f"{split}_perplexity"] for record in records] for split in ("train", "valid", "test")]
        scores = [spread([math.log2(value) if in_bits else value for value in column]) for column in columns]
        unit = "bits a character" if in_bits else "perplexity"
        made = f"{len(records)} | {precisions(records)} | {mean_hours(records):.1f}"
        yield f"| `{row}` | {' | '.join(scores)} | {unit} | {made} |"


def choices_table(results: pathlib.Path) -> Iterator[str]:
    """Yield the lines of the table of what each choice changes, against the configuration of which it is a variant.

    Changes are means over the seeds that both were run with, in the same precision unless precision is the choice.
    """
    yield "| choice | against, with the same seeds | train | valid | test | seeds |"
    yield "|---|---|---|---|---|---|"
    for base in (name for name, named in CONFIGS.items() if named.published):
        rows = [row_name(base, precision) for precision in PRECISIONS]
        choices = [name for name, named in CONFIGS.items() if named.base == base]
        for row, against in [*((row, base) for row in rows[1:]), *itertools.product(choices, rows)]:
            standard = {record["seed"]: record for record in results_of(results, against)}
            pairs = [(record, standard[record["seed"]]) for record in results_of(results, row) if record["seed"] in standard]
            pairs = [pair for pair in pairs if (pair[0]["precision"] == pair[1]["precision"]) == (row in choices)]
            if pairs:
                yield f"| `{row}` | `{against}` | {' | '.join(mean_changes(pairs))} | {len(pairs)} |"


def trials_table(results: pathlib.Path) -> Iterator[str]:
    """Yield the lines of the table of trials for `one_hour`: what differs from it, and the validation of each epoch."""
    yield "| trial | seed | `--set` | valid after each epoch | train | minutes, machine |"
    yield "|---|---|---|---|---|---|"
    for path in sorted(results.glob("trials/*/history.jsonl")):
        (record,), epochs = read_records(path.parent / "config.json"), RunFolder(path.parent).history
        changes = differences(from_json(record["config"]), CONFIGS["one_hour"].config)
        settings = " ".join(f"{name}={value_text(value)}" for name, value in changes.items() if name not in NOT_OF_A_TRIAL)
        valid = ", ".join(f"{epoch['valid_perplexity']:.1f}" for epoch in epochs)
        made = f"{sum(epoch['seconds'] for epoch in epochs) / 60:.0f}, {machines(epochs)}"
        train = epochs[-1]["train_perplexity"]
        yield f"| {path.parent.name} | {record['seed']} | {settings} | {valid} | {train:.1f} | {made} |"


def mean_changes(pairs: list[tuple[dict, dict]]) -> Iterator[str]:
    """Yield the mean change of train, valid and test perplexity over pairs of a record and the record of its base."""
    for split in ("train", "valid", "test"):
        name = f"{split}_perplexity"
        yield f"{statistics.mean(record[name] - standard[name] for record, standard in pairs):+.2f}"


def single(results: pathlib.Path, row: str, named: Named) -> str | None:
    """Return the columns of one model's row in the paper's table, mean ± standard deviation over seeds; None if not run."""
    scores = single_scores(results, row)
    if scores is None:
        return None
    records = results_of(results, row)
    best = min(record["test_perplexity"] for record in records)
    rate = arithmetic_rate(results, row, named.config)
    made = f"{len(records)} | {precisions(records)} | {best:.2f} | {mean_hours(records):.1f} | {machines(records)} | {rate}"
    return f"{scores[0]} / {scores[1]} | {made}"


def averaged(results: pathlib.Path, row: str, count: int) -> str | None:
    """Return the columns of a row of averaged models; None if they were not averaged."""
    scores = averaged_scores(results, row, count)
    runs = [record for record in results_of(results, row) if record["seed"] <= count]
    return scores and f"{scores[0]} / {scores[1]} | {count} | {precisions(runs)} | | | |"


def single_scores(results: pathlib.Path, row: str) -> tuple[str, str] | None:
    """Return the perplexities of valid and of test over the runs of a row, as text; None without a run."""
    records = results_of(results, row)
    if not records:
        return None
    valid, test = ([record[f"{split}_perplexity"] for record in records] for split in ("valid", "test"))
    return spread(valid), spread(test)


def averaged_scores(results: pathlib.Path, row: str, count: int) -> tuple[str, str] | None:
    """Return the perplexities of valid and of test of `count` models of a row averaged, as text; None if not recorded."""
    averages = [record for record in read_records(average_path(results, row)) if record["run"] == f"average of {count}"]
    scores = {record["split"]: f"{record['perplexity']:.2f}" for record in averages}
    return (scores["valid"], scores["test"]) if scores else None


def average_path(results: pathlib.Path, row: str) -> pathlib.Path:
    """Return the file with the averages of a row's runs."""
    return results / f"{row}-average.jsonl"


def row_name(model: str, precision: str) -> str:
    """Return the name of a configuration's row; also that of its runs, without the seed."""
    return model if precision == "auto" else f"{model}_{precision}"


def results_of(results: pathlib.Path, row: str) -> list[dict]:
    """Return the `result.json` of every run of a row."""
    return [record for folder in run_folders(results, row) for record in read_records(folder / "result.json")]


def run_folders(results: pathlib.Path, row: str) -> list[pathlib.Path]:
    """Return the folders of a row's runs, `<row>-<seed>`; not `<row>-1-backup`."""
    return sorted(path for path in results.glob(f"{row}-*") if re.fullmatch("[0-9]+", path.name.removeprefix(f"{row}-")))


def read_records(path: pathlib.Path) -> list[dict]:
    """Return the records in a file: one object, or one per line; none if there is no file. Raise RunError if damaged."""
    if not path.exists():
        return []
    with reading(path, "restore it from git, or delete it to have it made again"):
        text = path.read_text()
        return [json.loads(record) for record in (text.splitlines() if path.suffix == ".jsonl" else [text])]


def precisions(records: list[dict]) -> str:
    """Return the precisions of products in training; the runs of a row, and even one run, may use several machines."""
    return ", ".join(sorted({precision for record in records for precision in record["precision"].split(", ")}))


def machines(records: list[dict]) -> str:
    """Return the kinds of machines that trained the runs; runs before 29 November 2026 did not all record it."""
    return ", ".join(sorted({_machine(record.get("machine")) for record in records}))


def _machine(machine: dict | None) -> str:
    if not machine:
        return "not recorded"
    units = [unit for word, unit in (("amx_bf16", "AMX"), ("avx512f", "AVX-512"), ("avx2", "AVX2")) if word in machine["cpu"]]
    cores = f"{machine['cores']} core" + ("s" if machine["cores"] > 1 else "")
    return machine["gpu"] or f"{cores}, {units[0] if units else machine['cpu']}"


def mean_hours(records: list[dict]) -> float:
    return statistics.mean(record["training_seconds"] for record in records) / 3600


def arithmetic_rate(results: pathlib.Path, row: str, config: Config) -> str:
    """Return the mean rate of a row's training in Gflop/s: 6 operations per weight of a matrix product and per token."""
    epochs = [epoch for folder in run_folders(results, row) for epoch in RunFolder(folder).history]
    tokens = sum(epoch["words_per_second"] * epoch["seconds"] for epoch in epochs)
    seconds = sum(epoch["seconds"] for epoch in epochs)
    return f"{6 * products_per_token(config) * tokens / seconds / 1e9:.0f}" if seconds else ""


def products_per_token(config: Config, vocab_size: int = VOCAB_SIZE) -> int:
    """Return the multiplications and additions of one token's forward pass in matrix products, each pair counted once."""
    model, cell, total = config.model, CELLS[config.model.cell], 0
    sizes = [model.input_size, *model.layers]
    for before, units in itertools.pairwise(sizes):
        total += cell.num_gates * units * (before + units)
        if cell.reads_raw_input:
            extra = cell.extra_weights(before, units, model.mogrifier_rounds, model.mogrifier_rank)
            total += sum(math.prod(weight.shape) for weight in extra if len(weight.shape) == 2)  # the others are biases
    softmaxes = max(model.mixture, 1)
    if model.mixture or model.projection != "none":
        total += softmaxes * sizes[-1] * model.features_size
    return total + softmaxes * model.features_size * vocab_size


def spread(values: list[float]) -> str:
    """Return the mean, with the standard deviation if there are several values."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


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
        axes.annotate(f"{name} {mean:.1f}", (minutes, mean), xytext=(8, 4), textcoords="offset points", color=color, fontsize=9)
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


def recorded_tests(results: pathlib.Path, row: str, count: int) -> list[float]:
    """Return the test perplexity of each run of a row; for an average of several models the only one."""
    if count == 1:
        return [record["test_perplexity"] for record in results_of(results, row)]
    scores = averaged_scores(results, row, count)
    return [float(scores[1])] if scores else []


PICTURES = {"docs/ladder.svg": draw_ladder, "docs/budget.svg": draw_budgets}
TABLES = {"published": headline_table, "table1": table_1, "others": others_table, "choices": choices_table}
TABLES |= {"trials": trials_table}
TABLES |= {name: lambda _, make=make: make() for name, make in reference.TABLES.items()}  # these need no records
PAGES = {
    "README.md": {"published"},
    "docs/results.md": {"table1", "others", "choices"},
    "docs/one_hour.md": {"trials"},
    "docs/configuration.md": set(reference.TABLES),
}
