"""reproduce.py: trains what is missing, averages, compares on the terminal, and records only if asked."""

import contextlib
import json
import os
import shutil
import signal
import types

import pytest
from absl import flags

import reproduce
from helpers import processes
from helpers.texts import SENTENCE
from pages import records
from ptb.data.download import PTB_FINGERPRINT
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError
from ptb.runtime import devices


@pytest.fixture
def copy(tmp_path):
    """A copy of the program without records."""
    skipped = shutil.ignore_patterns(".*", "results", "tests", "benchmarks")
    return shutil.copytree(
        processes.ROOT,
        tmp_path / "copy",
        ignore=lambda folder, names: skipped(folder, names) | ({"runs"} if folder == str(processes.ROOT) else set()),
    )


def reproduce_in(folder, capsys, *arguments):
    """Run the command with its runs and records in `folder`. Return what it printed."""
    values = flags.FlagValues()
    reproduce.define_flags(values)
    values(["reproduce.py", *arguments, f"--runs={folder}/runs"])
    reproduce.main(values)
    return capsys.readouterr().out


def write_run(folder, history="", result=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.jsonl").write_text(history)
    (folder / "result.json").unlink(missing_ok=True)
    if result:
        (folder / "result.json").write_text(result)


def test_records_of_a_stopped_run_are_kept_but_replace_none_of_another(tmp_path):
    results, path = tmp_path / "results", tmp_path / "runs" / "gru-1"
    averages, kept = results / "gru-average.jsonl", results / "gru-1" / "history.jsonl"
    results.mkdir()
    for history, result, kept_history, averages_stay in (
        ("", None, None, True),
        ("12", None, "12", True),
        ("", None, "12", True),  # another run of the same seed, in a fresh clone, stopped in its first epoch
        ("1x", None, "12", True),  # in a later one
        ("123", None, "123", True),  # the recorded run continues
        ("1234", "a", "1234", True),  # to its end
        ("1x", None, "1234", True),
        ("1xyz", "b", "1xyz", False),  # the other run ends too
        ("1xyz", "b", "1xyz", True),
    ):
        write_run(path, history, result)
        averages.write_text("averages")
        reproduce.record_run(path, results)
        assert kept_history == (kept.read_text() if kept.exists() else None)
        assert averages.exists() == averages_stay


def test_a_row_has_the_runs_that_are_there_and_no_others(tmp_path):
    """Someone who reproduces the first of our three runs and has the second must not find a mean with our third in it."""
    results, runs = tmp_path / "results", tmp_path / "runs"
    for name in ("gru-1", "gru-2", "gru-3", "gru_bfloat16-3", "small-3", "gru-3-backup"):
        write_run(results / name, "1", "ours")
    write_run(runs / "gru-1", "2", "theirs")
    write_run(runs / "gru-2", "1", "ours")
    reproduce.record_run(runs / "gru-2", results)  # the same run
    assert (results / "gru-3").exists()
    reproduce.record_run(runs / "gru-1", results)  # another run
    assert {path.name for path in results.iterdir()} == {"gru-1", "gru-2", "gru_bfloat16-3", "small-3", "gru-3-backup"}


def write_scores(folder, singles, averages):
    """Write the results of small with a (valid, test) for each seed, and those of the first seeds averaged."""
    for seed, (valid, test) in enumerate(singles, 1):
        write_run(folder / f"small-{seed}", result=json.dumps({"valid_perplexity": valid, "test_perplexity": test}))
    lines = [
        {"run": f"average of {count}", "split": split, "perplexity": perplexity}
        for count, scores in averages.items()
        for split, perplexity in zip(("valid", "test"), scores)
    ]
    (folder / "small-average.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_runs_are_compared_with_the_published_numbers_and_with_the_records(tmp_path):
    runs, results = tmp_path / "runs", tmp_path / "results"
    write_scores(results, [(120.0, 115.0), (122.0, 117.0), (121.0, 116.0)], {2: (101.0, 97.0)})
    write_scores(runs, [(119.0, 114.0), (121.0, 116.0)], {2: (100.0, 95.0)})
    _, *lines = reproduce.comparison("small", "small", 2, runs, results)
    assert [" ".join(line.split()) for line in lines] == [
        "small",
        "published 120.7 114.5",
        "recorded here 121.00 ± 1.00 116.00 ± 1.00 3",
        "these runs 120.00 ± 1.41 115.00 ± 1.41 2",
        "small, 2 averaged",
        "published 100.4 96.1",
        "recorded here 101.00 97.00 2",
        "these runs 100.00 95.00 2",
    ]


@pytest.mark.parametrize(("model", "kept"), [("small", "last"), ("one_hour", "best")])
def test_the_weights_that_are_averaged_are_those_of_the_results(model, kept, tmp_path, monkeypatch, capsys):
    commands = []
    monkeypatch.setattr(reproduce, "load_corpus", lambda _: types.SimpleNamespace(fingerprint=lambda: PTB_FINGERPRINT))
    monkeypatch.setattr(reproduce, "run_command", lambda *command, **_: commands.append([*map(str, command)]) or "")
    (tmp_path / "runs").mkdir()
    reproduce_in(tmp_path, capsys, f"--model={model}", "--seeds=2")
    *trained, averaged = commands
    paths = [str(tmp_path / "runs" / f"{model}-{seed}") for seed in (1, 2)]
    for seed, (path, command) in enumerate(zip(paths, trained, strict=True), 1):
        assert command[0] == "train.py"
        assert {f"--model={model}", f"--seed={seed}", f"--save_path={path}"} <= {*command}
    assert averaged[:3] == ["evaluate.py", *paths]
    assert {"--average", f"--checkpoint={kept}"} <= {*averaged}


def test_averages_of_more_runs_survive_those_of_fewer(tmp_path, monkeypatch):
    def lines(*scores):
        return "".join(json.dumps({"run": f"average of {count}", "perplexity": score}) + "\n" for count, score in scores)

    for made in (lines((1, 9.0), (2, 8.0), (3, 7.0)), lines((1, 9.5), (2, 8.5))):
        monkeypatch.setattr(reproduce, "run_command", lambda *_, made=made, **__: made)
        reproduce.average([], tmp_path / "small-average.jsonl", [])
    assert (tmp_path / "small-average.jsonl").read_text() == lines((1, 9.5), (2, 8.5), (3, 7.0))


@pytest.mark.slow
def test_runs_are_trained_averaged_and_compared_and_recorded_if_asked(tmp_path, monkeypatch, capsys):
    """On one text, which is averaged on what was held out of it."""
    monkeypatch.setattr(reproduce, "run_command", lambda *command, **_: processes.succeed(*command).stdout)
    monkeypatch.setattr(records, "RESULTS", tmp_path / "results")
    text = tmp_path / "text.txt"
    text.write_text(SENTENCE * 400)
    precision = "float32" if devices.choose_precision("auto", []) == "bfloat16" else "bfloat16"  # not that of auto
    arguments = ("--model=test", f"--precision={precision}", "--seeds=2", f"--data_path={text}")
    printed = reproduce_in(tmp_path, capsys, *arguments)
    row = f"test_{precision}"
    scores = records.single_scores(tmp_path / "runs", row)
    assert printed.splitlines()[-1].split() == ["these", "runs", *" ".join(scores).split(), "2"]
    assert not records.RESULTS.exists()
    averages = records.read_records(tmp_path / "runs" / f"{row}-average.jsonl")
    assert [(r["run"], r["split"], r["precision"]) for r in averages] == [
        (f"average of {count}", split, "float32") for count in (1, 2) for split in ("valid", "test")
    ]

    reproduce_in(tmp_path, capsys, *arguments, "--record")
    for seed in (1, 2):
        kept = records.RESULTS / f"{row}-{seed}"
        assert {path.name for path in kept.iterdir()} == set(reproduce.RECORDS)
        result = json.loads((kept / "result.json").read_text())
        assert (result["seed"], result["precision"]) == (seed, precision)
    assert records.read_records(records.RESULTS / f"{row}-average.jsonl") == averages


def test_a_command_that_was_killed_is_named(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setattr(records, "ROOT", tmp_path)
    with pytest.raises(RunError, match="train.py: .*SIGKILL"):
        reproduce.run_command("train.py")


@pytest.mark.slow
def test_a_request_to_stop_reaches_the_training_which_saves_first(copy, tmp_path):
    """Sent to the command alone; a signal from a terminal reaches the training twice, see test_signals.py."""
    saved, stdout = copy / "runs" / "demo-1", tmp_path / "stdout"
    stdout.touch()
    arguments = ("--model=demo", "--data_path=demo", f"--runs={saved.parent}")
    process = processes.start(copy / "reproduce.py", *arguments, folder=tmp_path, before=os.setsid)
    try:
        processes.wait_for(lambda: " perplexity: " in stdout.read_text(), process)
        os.kill(process.pid, signal.SIGINT)
        process.join(60)
        assert process.exitcode == 128 + signal.SIGINT
        assert RunFolder(saved).checkpoints.load().record["step"] > 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
