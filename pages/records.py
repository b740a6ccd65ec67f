"""The records of our runs in results/: perplexities, machines and hours by row.

A row is a configuration, or `<configuration>_<precision>` if a precision was asked for. Its records are the folders
results/<row>-<seed>, with config.json, history.jsonl and result.json, and the averages results/<row>-average.jsonl.
"""

import json
import pathlib
import re
import statistics

from ptb.runs.storage import reading

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "results"
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
    ("half_hour", 1),
    ("one_hour", 1),
    ("melis_10m", 1),
)


def recorded_tests(results: pathlib.Path, row: str, count: int) -> list[float]:
    """Return the test perplexity of each run of a row; for an average of several models the only one."""
    if count == 1:
        return [record["test_perplexity"] for record in results_of(results, row)]
    scores = averaged_scores(results, row, count)
    return [float(scores[1])] if scores else []


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


def spread(values: list[float]) -> str:
    """Return the mean, with the standard deviation if there are several values."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


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
