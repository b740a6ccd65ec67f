"""Train the rows of a table again and compare them on the terminal with the published numbers and with our records.

    python reproduce.py --model=small --seeds=10       # trains the seeds that are missing, averages them, compares
    python reproduce.py --model=gru                    # works for any configuration
    python reproduce.py --model=small --precision=bfloat16 --seeds=3
    python reproduce.py --model=small --seeds=3 --record    # maintainers: also copy the records (no weights) into results/

Runs are in runs/. The same command continues stopped runs and skips finished ones. Only --record changes files that git
tracks.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

from absl import flags

import cli
from configs import CONFIGS
from pages import records
from ptb.data.corpus import load_corpus
from ptb.data.download import PTB_FINGERPRINT
from ptb.data.files import DataError
from ptb.runs.storage import RunError, write_atomically
from ptb.runtime.signals import EXIT_CODES, handle_stops, print_line

RECORDS = ("config.json", "history.jsonl", "result.json")
OTHER_TEXTS = ("test", "demo")  # configurations for any text; demo has one of its own


def define_flags(values: flags.FlagValues) -> None:
    options = {"flag_values": values}
    flags.DEFINE_enum("model", None, list(CONFIGS), "Configuration to train.", **options)
    flags.DEFINE_integer("seeds", 1, "How many runs, with the seeds 1, 2, …", lower_bound=1, **options)
    cli.define_precision(values, "auto")
    cli.define_data_path(values, "As for train.py.")
    flags.DEFINE_string("runs", "runs", "Folder for the runs, which hold the weights.", **options)
    flags.DEFINE_bool("record", False, "Copy the records of the runs into results/, which is tracked by git.", **options)


def main(values: flags.FlagValues) -> None:
    if not values.model:
        raise flags.Error("--model: is missing; name a configuration, for example --model=small")
    if values.model not in OTHER_TEXTS and load_corpus(values.data_path).fingerprint() != PTB_FINGERPRINT:
        raise DataError(f"--data_path={values.data_path}: is not PTB, whose rows these are; use train.py for other texts")
    row, runs = records.row_name(values.model, values.precision), pathlib.Path(os.path.expanduser(values.runs))
    text = values.data_path or ("demo" if values.model == "demo" else None)
    data = [f"--data_path={text}"] if text else []
    paths = []
    for seed in range(1, values.seeds + 1):
        path = runs / f"{row}-{seed}"
        chosen = f"--model={values.model}", f"--seed={seed}", f"--precision={values.precision}"
        try:
            run_command("train.py", *chosen, f"--save_path={path}", *data)
        finally:
            if values.record:
                record_run(path, records.RESULTS)
        paths.append(path)
    if len(paths) > 1:
        averages = records.average_path(runs, row)
        kept = "best" if CONFIGS[values.model].config.keeps_best else "last"  # those of result.json
        average(paths, averages, [*data, f"--checkpoint={kept}"])
        if values.record:
            write_atomically(records.average_path(records.RESULTS, row), averages.read_bytes())
    for line in comparison(values.model, row, values.seeds, runs, records.RESULTS):
        print_line(line)


def comparison(model: str, row: str, seeds: int, runs: pathlib.Path, results: pathlib.Path):
    """Yield the lines that compare runs with the published numbers and with our records, for one model and for averages."""
    yield f"{'perplexity':<24} {'valid':>16} {'test':>16}   runs"
    numbers = CONFIGS[CONFIGS[model].base or model].published
    for count in (1, *(count for count in numbers if 1 < count <= seeds)):
        yield row if count == 1 else f"{row}, {count} averaged"
        if count in numbers:
            valid, test = numbers[count]
            yield f"  {'published':<22} {valid or '–':>16} {test:>16}"
        for name, folder in (("recorded here", results), ("these runs", runs)):
            scores = records.single_scores(folder, row) if count == 1 else records.averaged_scores(folder, row, count)
            if scores:
                number = len(records.results_of(folder, row)) if count == 1 else count
                yield f"  {name:<22} {scores[0]:>16} {scores[1]:>16}   {number}"


def record_run(path: pathlib.Path, results: pathlib.Path) -> None:
    """Copy a run's records into results/; those of an unfinished run only if they continue what is recorded.

    A different finished run invalidates the row's averages, and the records of runs that are not beside this one: delete them.
    """
    kept, (row, _, _) = results / path.name, path.name.rpartition("-")
    own, known = ({name: (at / name).read_bytes() for name in RECORDS if (at / name).exists()} for at in (path, kept))
    history = own.get("history.jsonl", b"")
    if "result.json" not in own and not (history and history.startswith(known.get("history.jsonl", b""))):
        return
    if "result.json" in known and own.get("result.json") not in (None, known["result.json"]):
        records.average_path(results, row).unlink(missing_ok=True)
        for other in records.run_folders(results, row):
            if not (path.parent / other.name).exists():
                print_line(f"{other.name}: deleted, its records were of another run than those in {path.parent}")
                shutil.rmtree(other)
    kept.mkdir(parents=True, exist_ok=True)
    for name, content in own.items():
        write_atomically(kept / name, content)


def average(paths: list[pathlib.Path], path: pathlib.Path, options: list[str]) -> None:
    """Score the mean probabilities of the first run, the first two, … all, and write the records to `path`."""
    splits = "--split=valid", "--split=test"  # a single text would be scored whole
    output = run_command("evaluate.py", *paths, "--average", "--json", *splits, *options, capture_output=True)
    made = [json.loads(line) for line in output.splitlines()]
    scored = {record["run"] for record in made}
    kept = [record for record in records.read_records(path) if record["run"] not in scored]  # averages of more runs
    write_atomically(path, "".join(json.dumps(record) + "\n" for record in made + kept).encode())


def run_command(script: str, *arguments, capture_output: bool = False) -> str | None:
    """Run a command of this program to its end, pass signals on to it, and exit with its code if it fails."""
    requests = []

    def pass_on(number, _):
        requests.append(number)
        process.terminate()

    command = [sys.executable, str(records.ROOT / script), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE if capture_output else None, text=True) as process:
        previous = handle_stops(pass_on)
        output, _ = process.communicate()
        for number, handler in previous.items():
            signal.signal(number, handler)
    if requests:
        sys.exit(EXIT_CODES[requests[0]])
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        raise RunError(f"{script}: was ended by {name} (SIGKILL: perhaps out of memory); the same command continues")
    if process.returncode:
        sys.exit(process.returncode)  # the command has printed why
    return output


if __name__ == "__main__":
    cli.run(main, define_flags)
