"""The tables of results, from the records.

Trials of settings for `one_hour` are in results/trials/<name>, with config.json and history.jsonl.
"""

import itertools
import math
import pathlib
import statistics
from collections.abc import Iterator

from configs import CONFIGS, Named, published_scores
from pages.records import (
    HEADLINES,
    averaged_scores,
    machines,
    mean_hours,
    precisions,
    read_records,
    results_of,
    row_name,
    run_folders,
    single_scores,
    spread,
)
from pages.sizes import VOCAB_SIZE, count_parameters, products_per_token
from ptb.config import Config, differences, from_json, value_text
from ptb.runs.folder import RunFolder
from ptb.runtime.devices import PRECISIONS

NOT_OF_A_TRIAL = ("budget_minutes", "temperature_scaling")  # these fields change no validation within a training


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
        parameters = count_parameters(CONFIGS[name].config, VOCAB_SIZE)
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


def arithmetic_rate(results: pathlib.Path, row: str, config: Config) -> str:
    """Return the mean rate of a row's training in Gflop/s: 6 operations per weight of a matrix product and per token."""
    epochs = [epoch for folder in run_folders(results, row) for epoch in RunFolder(folder).history]
    tokens = sum(epoch["words_per_second"] * epoch["seconds"] for epoch in epochs)
    seconds = sum(epoch["seconds"] for epoch in epochs)
    return f"{6 * products_per_token(config) * tokens / seconds / 1e9:.0f}" if seconds else ""


TABLES = {
    "published": headline_table,
    "table1": table_1,
    "others": others_table,
    "choices": choices_table,
    "trials": trials_table,
}
