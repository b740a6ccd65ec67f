"""Reproduces the rows of Zaremba et al. (2014), Table 1: trains what a row needs, and makes the tables of the records.

    python reproduce.py --model=small --seeds=10       # trains the seeds not done yet, averages them, rewrites the tables
    python reproduce.py --model=gru                    # the same for any other configuration
    python reproduce.py --model=small --precision=bfloat16 --seeds=3   # rows of their own
    python reproduce.py                                # only rewrites the tables

A run's records (no weights) go from runs/ into results/, also when it is stopped; a row whose runs are not done says "not run".
"""

import contextlib
import fcntl
import itertools
import json
import math
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
from typing import NamedTuple

from absl import flags

import commands
import corpora
from configs import CONFIGS
from ptb import devices
from ptb.run import RunError, reading, write_atomically
from ptb.signals import EXIT_CODES, say
from reader import DataError

FLAGS = flags.FLAGS

ROOT = pathlib.Path(__file__).parent
RESULTS = ROOT / "results"
PAGES = {"README.md": {"published"}, "docs/results.md": {"others", "choices"}}  # and their tables
RECORDS = ("config.json", "history.jsonl", "result.json")
TABLE = re.compile(r"(<!-- (\w+): made by reproduce.py -->\n).*?(<!-- end of \2 -->)", re.DOTALL)


class Published(NamedTuple):
    """A row of the paper's Table 1: `count` models averaged, and the perplexities published for them."""

    model: str
    count: int
    valid: float
    test: float


TABLE_1 = (
    Published("small", 1, 120.7, 114.5),
    Published("small", 2, 100.4, 96.1),
    Published("small", 5, 87.9, 84.1),
    Published("small", 10, 83.5, 80.0),
    Published("medium", 1, 86.2, 82.7),
    Published("medium", 2, 80.6, 77.0),
    Published("medium", 5, 76.7, 73.3),
    Published("medium", 10, 75.2, 72.0),
    Published("large", 1, 82.2, 78.4),
    Published("large", 2, 76.9, 73.6),
    Published("large", 10, 72.8, 69.5),
    Published("large", 38, 71.9, 68.7),
)
AS_IN_LUA = ("", "_two_biases", "_lua_decay_two_biases")  # ends of names: with none, one, both choices of the paper's code
PUBLISHED_MODELS = tuple(dict.fromkeys(row.model for row in TABLE_1))
TABLED = CONFIGS.keys() - {"test", "demo"}
OTHERS = [model for model in CONFIGS if model in TABLED - set(PUBLISHED_MODELS)]


def define_flags():
    flags.DEFINE_enum("model", None, list(CONFIGS), "Whose rows to reproduce.")
    flags.DEFINE_integer("seeds", 1, "How many runs, with the seeds from 1 on.", lower_bound=1)
    flags.DEFINE_enum(
        "precision", "auto", devices.PRECISIONS, "As for train.py; any but auto has a row of its own, <model>_<precision>."
    )
    flags.DEFINE_string("data_path", None, "As for train.py.")
    flags.DEFINE_string("runs", "runs", "Folder for the runs themselves, which hold the weights.")


def main(_):
    if not FLAGS.model:
        commands.refuse("is for training: name a --model too", "seeds", "precision", "data_path", "runs")
        rewrite_tables()
    else:
        check_text()
        reproduce(row_of(FLAGS.model, FLAGS.precision))


def check_text():
    """Raises DataError where a run for the tables, which are of PTB, would be on another text."""
    if FLAGS.model in TABLED and corpora.load_corpus(FLAGS.data_path).fingerprint() != corpora.PTB_FINGERPRINT:
        raise DataError(f"--data_path={FLAGS.data_path}: is not PTB, whose rows these are; train on other texts with train.py")


def row_of(model, precision):
    """Returns the name of a configuration's row, and of its runs but for the seed."""
    return model if precision == "auto" else f"{model}_{precision}"


def reproduce(row):
    """Trains what is not done of a row's runs, and averages them; the tables follow the records after each."""
    paths = [train(row, seed) for seed in range(1, FLAGS.seeds + 1)]
    if len(paths) > 1:
        average(row, paths)
        rewrite_tables()


def train(row, seed):
    """Trains a run unless that is done, and keeps its records, also when it is stopped. Returns its folder."""
    path = pathlib.Path(os.path.expanduser(FLAGS.runs), f"{row}-{seed}")
    try:
        chosen = f"--model={FLAGS.model}", f"--seed={seed}", f"--precision={FLAGS.precision}"
        run_command("train.py", *chosen, f"--save_path={path}", *data_flag())
    except SystemExit as stopped:
        if stopped.code in EXIT_CODES.values():
            keep(row, seed, path)
            rewrite_tables()
        raise
    keep(row, seed, path)
    rewrite_tables()
    return path


@contextlib.contextmanager
def alone():
    """Keeps other processes of this program, which may make other rows, from writing records and tables meanwhile."""
    with open(__file__) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@alone()
def keep(row, seed, path):
    """Copies a run's records to those of its row; of an unfinished one only where they begin with what is recorded.

    Where they replace those of another run that was finished, the row is of other runs from now on: its averages go, and so do
    the records of runs that are not beside this one.
    """
    kept = RESULTS / f"{row}-{seed}"
    records, known = ({name: (at / name).read_bytes() for name in RECORDS if (at / name).exists()} for at in (path, kept))
    history = records.get("history.jsonl", b"")
    if "result.json" not in records and not (history and history.startswith(known.get("history.jsonl", b""))):
        return
    if "result.json" in known and records.get("result.json") not in (None, known["result.json"]):
        average_of(RESULTS, row).unlink(missing_ok=True)
        for other in RESULTS.glob(f"{row}-[0-9]*"):
            if not (path.parent / other.name).exists():
                say(f"{other.name}: its records were of another run than those here, and are gone")
                shutil.rmtree(other)
    kept.mkdir(parents=True, exist_ok=True)
    for name, content in records.items():
        write_atomically(kept / name, content)


def average(row, paths):
    """Scores the mean of the probabilities of the first run, of the first two, … of all, and keeps the record."""
    splits = "--split=valid", "--split=test"  # of one text too, which would be scored whole
    output = run_command("evaluate.py", *paths, "--average", "--json", *splits, *data_flag(), capture_output=True)
    made = [json.loads(line) for line in output.splitlines()]
    scored = {record["run"] for record in made}
    path = average_of(RESULTS, row)
    with alone():
        kept = [record for record in read_records(path) if record["run"] not in scored]  # of more runs
        write_atomically(path, "".join(json.dumps(record) + "\n" for record in made + kept).encode())


def average_of(results, row):
    """Returns where the averages of a row's runs are recorded."""
    return results / f"{row}-average.jsonl"


def run_command(script, *arguments, capture_output=False):
    """Runs a command of this program to its end, and ends with it when it fails; it gets every request to stop too."""
    requests = []

    def pass_on(number, _):
        requests.append(number)
        process.terminate()

    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE if capture_output else None, text=True) as process:
        previous = {number: signal.signal(number, pass_on) for number in EXIT_CODES}
        output, _ = process.communicate()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if requests:
        sys.exit(EXIT_CODES[requests[0]])
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise RunError(f"{script}: was ended by {name} (SIGKILL may mean that memory ran out); the same command goes on")
    if process.returncode:
        sys.exit(process.returncode)  # the command has said why
    return output


def data_flag():
    return [f"--data_path={FLAGS.data_path}"] if FLAGS.data_path else []


@alone()
def rewrite_tables():
    for page in PAGES:
        write_atomically(ROOT / page, with_tables(page, RESULTS).encode())
        say(f"{page}: tables rewritten")


def with_tables(page, results, root=ROOT):
    """Returns the text of one of PAGES, below `root`, with its tables made anew from the records in the folder `results`."""
    tables = {"published": published_table, "others": others_table, "choices": choices_table}
    text = (root / page).read_text(encoding="utf-8")
    if {match[2] for match in TABLE.finditer(text)} != PAGES[page]:
        raise OSError(f"{page}: has no place for a table; each stands between two comments, see reproduce.py")
    return TABLE.sub(lambda match: match[1] + "\n".join(tables[match[2]](results)) + "\n" + match[3], text)


def published_table(results):
    """Yields the lines of the table of the paper's rows: by its text, and by its code and in other precisions where run."""
    yield "| | published valid / test | ours valid / test | runs | products in | best test | hours a run | command |"
    yield "|---|---|---|---|---|---|---|---|"
    for model, count, valid, test in TABLE_1:
        for end, precision in itertools.product(AS_IN_LUA, devices.PRECISIONS):
            name = model + end
            row, seeds, option = row_of(name, precision), count, "" if precision == "auto" else f" PRECISION={precision}"
            if count == 1:
                ours, seeds = single(results, row), len(results_of(results, row)) or 1
            else:
                ours = averaged(results, row, count)
            if ours or (end, precision) == ("", "auto"):
                label, columns = name if count == 1 else f"{name}, {count} averaged", ours or "not run | | | | "
                yield f"| {label} | {valid:.1f} / {test:.1f} | {columns} | `make reproduce-{name} SEEDS={seeds}{option}` |"


def single(results, row):
    """Returns the columns of one model's row, mean ± standard deviation over the seeds; None without a run."""
    records = results_of(results, row)
    if not records:
        return None
    valid, test = ([record[f"{split}_perplexity"] for record in records] for split in ("valid", "test"))
    made = f"{len(records)} | {precisions(records)} | {min(test):.2f} | {mean_hours(records):.1f}"
    return f"{spread(valid)} / {spread(test)} | {made}"


def averaged(results, row, count):
    """Returns the columns of a row of averaged models, the first `count`; None where they have not been averaged."""
    records = [record for record in read_records(average_of(results, row)) if record["run"] == f"average of {count}"]
    if not records:
        return None
    scores = {record["split"]: record["perplexity"] for record in records}
    runs = [record for record in results_of(results, row) if record["seed"] <= count]
    return f"{scores['valid']:.2f} / {scores['test']:.2f} | {count} | {precisions(runs)} | | "


def others_table(results):
    """Yields the lines of the table of small and of what has no published number, a line for each precision asked for."""
    yield "| configuration | train | valid | test | | runs | products in | hours a run |"
    yield "|---|---|---|---|---|---|---|---|"
    for model in ("small", *OTHERS):
        for precision in devices.PRECISIONS:
            ours = scored(results, row_of(model, precision), in_bits=CONFIGS[model].level == "char")
            if ours or precision == "auto":
                yield f"| `{row_of(model, precision)}` | {ours or 'not run | | | | | |'} |"


def choices_table(results):
    """Yields the lines of the table of what each choice changes of its base, the published model that its name begins with.

    The changes are means over the seeds that both were run with, in the same precision unless that is the choice: against the
    base's own row, and against its rows in other precisions.
    """
    yield "| choice | against, with the same seeds | train | valid | test | seeds |"
    yield "|---|---|---|---|---|---|"
    for base in PUBLISHED_MODELS:
        bases = [row_of(base, precision) for precision in devices.PRECISIONS]
        choices = [model for model in OTHERS if model.startswith(f"{base}_")]
        for row, against in [*((row, base) for row in bases[1:]), *itertools.product(choices, bases)]:
            standard = {record["seed"]: record for record in results_of(results, against)}
            pairs = [(record, standard[record["seed"]]) for record in results_of(results, row) if record["seed"] in standard]
            pairs = [pair for pair in pairs if (pair[0]["precision"] == pair[1]["precision"]) == (row in choices)]
            if pairs:
                yield f"| `{row}` | `{against}` | {' | '.join(mean_changes(pairs))} | {len(pairs)} |"


def mean_changes(pairs):
    """Yields by how much the perplexities of train, valid and test change, on average over pairs of a record and its base's."""
    for split in ("train", "valid", "test"):
        name = f"{split}_perplexity"
        yield f"{statistics.mean(record[name] - standard[name] for record, standard in pairs):+.2f}"


def scored(results, row, in_bits=False):
    """Returns the columns of a row of `others_table`, `in_bits` instead of perplexities; None without a run."""
    records = results_of(results, row)
    if not records:
        return None
    columns = [[record[f"{split}_perplexity"] for record in records] for split in ("train", "valid", "test")]
    scores = [spread([math.log2(value) if in_bits else value for value in column]) for column in columns]
    unit = "bits a character" if in_bits else "perplexity"
    return f"{' | '.join(scores)} | {unit} | {len(records)} | {precisions(records)} | {mean_hours(records):.1f}"


def results_of(results, row):
    """Returns the `result.json` of every run of a row."""
    return [record for path in sorted(results.glob(f"{row}-[0-9]*/result.json")) for record in read_records(path)]


def read_records(path):
    """Returns what is recorded in a file, one object or one a line, nothing where there is no file; RunError if damaged."""
    if not path.exists():
        return []
    with reading(path, "restore it from git, or delete it to have it made again"):
        text = path.read_text()
        return [json.loads(record) for record in (text.splitlines() if path.suffix == ".jsonl" else [text])]


def precisions(records):
    """Returns in what products the runs were trained: those of a row, and even one run, may have been on several machines."""
    return ", ".join(sorted({precision for record in records for precision in record["precision"].split(", ")}))


def mean_hours(records):
    return statistics.mean(record["training_seconds"] for record in records) / 3600


def spread(values):
    """Returns the mean, with the standard deviation where there are several values."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


if __name__ == "__main__":
    commands.run(main, define_flags)
