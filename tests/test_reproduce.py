"""The tables of README.md and docs/results.md: made of the records, of all of them, and of nothing else."""

import concurrent.futures
import contextlib
import json
import os
import resource
import shutil
import signal

import pytest

import processes
import reproduce
from ptb import devices
from ptb.run import Run, RunError
from texts import SENTENCE


@pytest.fixture
def copy(tmp_path):
    """A copy of the program, without records, as it rewrites its own tables."""
    return shutil.copytree(
        processes.ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "runs", "results", "tests", "benchmarks")
    )


@pytest.mark.parametrize("page", reproduce.PAGES)
def test_the_tables_show_what_the_records_say(page):
    assert (reproduce.ROOT / page).read_text(encoding="utf-8") == reproduce.with_tables(page, reproduce.RESULTS)


def record(results, name, valid, test, hours, train=1.0, precision="float32"):
    (results / name).mkdir()
    content = {"train_perplexity": train, "valid_perplexity": valid, "test_perplexity": test, "training_seconds": 3600 * hours}
    content |= {"precision": precision, "seed": int(name.split("-")[1])}
    (results / name / "result.json").write_text(json.dumps(content))


def test_a_row_has_the_mean_over_its_runs_and_others_say_not_run(tmp_path):
    record(tmp_path, "small-1", 120.0, 115.0, 0.4)
    record(tmp_path, "small-2", 122.0, 116.0, 0.6, precision="float32, bfloat16")
    record(tmp_path, "small_lua_decay-1", 1.0, 1.0, 1)  # another configuration, whose name begins alike
    averages = [("average of 1", "test", 115.0), ("average of 2", "valid", 101.25), ("average of 2", "test", 97.5)]
    lines = [json.dumps(dict(zip(("run", "split", "perplexity"), average))) for average in averages]
    (tmp_path / "small-average.jsonl").write_text("\n".join(lines))
    rows = list(reproduce.published_table(tmp_path))
    assert rows[2] == (
        "| small | 120.7 / 114.5 | 121.00 ± 1.41 / 115.50 ± 0.71 | 2 | bfloat16, float32 | 115.00 | 0.5 "
        "| `make reproduce-small SEEDS=2` |"
    )
    assert "| 101.25 / 97.50 | 2 | bfloat16, float32 |" in rows[3]
    assert len(rows) == 2 + len(reproduce.TABLE_1)
    assert all("| not run |" in row for row in rows[4:])


def test_an_average_says_what_its_own_runs_were_trained_in(tmp_path):
    for seed, precision in ((1, "float32"), (2, "float32"), (3, "bfloat16")):
        record(tmp_path, f"small-{seed}", 120.0, 115.0, 0.5, precision=precision)
    averages = [{"run": "average of 2", "split": split, "perplexity": 97.5} for split in ("valid", "test")]
    (tmp_path / "small-average.jsonl").write_text("\n".join(map(json.dumps, averages)))
    assert reproduce.averaged(tmp_path, "small", 2).startswith("97.50 / 97.50 | 2 | float32 |")


def test_other_configurations_have_a_table_of_their_own_and_characters_bits(tmp_path):
    record(tmp_path, "small-1", 120.0, 115.0, 0.4)
    record(tmp_path, "gru-1", 130.0, 125.0, 0.5, train=60.0)
    record(tmp_path, "gru-2", 132.0, 125.0, 0.5, train=60.0)
    record(tmp_path, "char_rnn-1", 2.0, 4.0, 2.0, train=1.0)
    rows = list(reproduce.others_table(tmp_path))
    assert "| `gru` | 60.00 ± 0.00 | 131.00 ± 1.41 | 125.00 ± 0.00 | perplexity | 2 | float32 | 0.5 |" in rows
    assert "| `char_rnn` | 0.00 | 1.00 | 2.00 | bits a character | 1 | float32 | 2.0 |" in rows
    assert "| `peephole` | not run | | | | | | |" in rows
    assert not any("`medium`" in row or "`demo`" in row for row in rows)


def test_a_choice_is_held_against_its_base_with_the_same_seeds(tmp_path):
    for seed, test in ((1, 114.0), (2, 115.0), (3, 200.0)):
        record(tmp_path, f"small-{seed}", 120.0, test, 0.5, train=40.0)
    record(tmp_path, "small_lua_decay-1", 123.0, 117.0, 0.5, train=36.5)
    record(tmp_path, "small_lua_decay-2", 122.0, 117.0, 0.5, train=36.5)
    record(tmp_path, "small_bfloat16-2", 119.5, 115.25, 0.5, train=40.5, precision="bfloat16")
    record(tmp_path, "small_bfloat16-4", 0.0, 0.0, 0.5, train=0.0, precision="bfloat16")
    record(tmp_path, "gru-1", 130.0, 125.0, 0.5)
    record(tmp_path, "medium-2", 86.0, 82.0, 0.5, train=46.0)
    record(tmp_path, "medium_tutorial_decay-1", 0.0, 0.0, 0.5)
    record(tmp_path, "medium_tutorial_decay-2", 87.0, 82.5, 0.5, train=47.0)
    assert list(reproduce.choices_table(tmp_path))[2:] == [
        "| `small_bfloat16` | `small` | +0.50 | -0.50 | +0.25 | 1 |",
        "| `small_lua_decay` | `small` | -3.50 | +2.50 | +2.50 | 2 |",
        "| `medium_tutorial_decay` | `medium` | +1.00 | +1.00 | +0.50 | 1 |",
    ]


def test_a_choice_is_held_against_what_was_run_in_the_same_precision(tmp_path):
    record(tmp_path, "small-1", 120.0, 115.0, 0.5)
    record(tmp_path, "small-2", 122.0, 116.0, 0.5)
    record(tmp_path, "small_sampled-1", 150.0, 149.0, 0.5, precision="bfloat16")
    record(tmp_path, "small_sampled-2", 125.0, 120.0, 0.5, train=2.0)
    record(tmp_path, "small_bfloat16-1", 140.0, 139.5, 0.5, precision="bfloat16")
    record(tmp_path, "small_bfloat16-2", 121.0, 116.5, 0.5, precision="bfloat16")
    assert list(reproduce.choices_table(tmp_path))[2:] == [
        "| `small_bfloat16` | `small` | +0.00 | +9.50 | +12.50 | 2 |",
        "| `small_sampled` | `small` | +1.00 | +3.00 | +4.00 | 1 |",
        "| `small_sampled` | `small_bfloat16` | +0.00 | +10.00 | +9.50 | 1 |",
    ]


@pytest.mark.parametrize("page, name", [("docs/results.md", "gru-1/result.json"), ("README.md", "small-average.jsonl")])
def test_a_damaged_record_is_an_error_that_names_it(page, name, tmp_path):
    record(tmp_path, "gru-1", 120.0, 115.0, 0.5)
    (tmp_path / name).write_text('{"run": ')
    with pytest.raises(RunError, match=f"{name}: damaged"):
        reproduce.with_tables(page, tmp_path)


def test_a_full_disk_leaves_the_readme_as_it_was(copy):
    readme = (copy / "README.md").read_bytes()
    process = processes.run(copy / "reproduce.py", cwd=copy, before=small_files_only)
    assert process.returncode == 1
    assert "README.md: cannot be written (File too large)" in process.stderr
    assert (copy / "README.md").read_bytes() == readme


def small_files_only():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_small_stands_above_them_in_each_precision_that_it_was_run_in(tmp_path):
    record(tmp_path, "small-1", 120.0, 115.0, 0.5, train=40.0)
    record(tmp_path, "small_bfloat16-1", 121.0, 116.0, 0.5, train=41.0, precision="bfloat16")
    rows = list(reproduce.others_table(tmp_path))
    assert rows[2:4] == [
        "| `small` | 40.00 | 120.00 | 115.00 | perplexity | 1 | float32 | 0.5 |",
        "| `small_bfloat16` | 41.00 | 121.00 | 116.00 | perplexity | 1 | bfloat16 | 0.5 |",
    ]
    assert len(rows) == 4 + len(reproduce.OTHERS)


def test_what_was_run_in_a_precision_by_name_has_rows_of_its_own(tmp_path):
    record(tmp_path, "medium_tf32-1", 86.0, 82.0, 0.5, precision="tf32")
    record(tmp_path, "gru_bfloat16-1", 130.0, 125.0, 0.5, precision="bfloat16")
    averages = [{"run": "average of 2", "split": s, "perplexity": 80.0} for s in ("valid", "test")]
    (tmp_path / "medium_tf32-average.jsonl").write_text("\n".join(map(json.dumps, averages)))
    rows = list(reproduce.published_table(tmp_path))
    single = "86.00 / 82.00 | 1 | tf32 | 82.00 | 0.5 | `make reproduce-medium SEEDS=1 PRECISION=tf32` |"
    pair = "80.00 / 80.00 | 2 | tf32 | |  | `make reproduce-medium SEEDS=2 PRECISION=tf32` |"
    assert f"| medium | 86.2 / 82.7 | {single}" in rows
    assert f"| medium, 2 averaged | 80.6 / 77.0 | {pair}" in rows
    assert len(rows) == 2 + len(reproduce.TABLE_1) + 2
    assert "| `gru_bfloat16` | 1.00 | 130.00 | 125.00 | perplexity | 1 | bfloat16 | 0.5 |" in reproduce.others_table(tmp_path)


def test_the_choices_of_the_papers_code_have_rows_below_those_of_its_text(tmp_path):
    record(tmp_path, "medium_two_biases-1", 86.0, 82.0, 3.0, precision="bfloat16")
    record(tmp_path, "medium_lua_decay_two_biases-1", 87.0, 83.0, 3.0, precision="bfloat16")
    averages = [{"run": "average of 2", "split": s, "perplexity": 77.0} for s in ("valid", "test")]
    (tmp_path / "medium_two_biases-average.jsonl").write_text("\n".join(map(json.dumps, averages)))
    rows = list(reproduce.published_table(tmp_path))
    single = "86.00 / 82.00 | 1 | bfloat16 | 82.00 | 3.0 | `make reproduce-medium_two_biases SEEDS=1` |"
    pair = "77.00 / 77.00 | 2 | bfloat16 | |  | `make reproduce-medium_two_biases SEEDS=2` |"
    both = "87.00 / 83.00 | 1 | bfloat16 | 83.00 | 3.0 | `make reproduce-medium_lua_decay_two_biases SEEDS=1` |"
    assert rows[6:9] == [
        "| medium | 86.2 / 82.7 | not run | | | |  | `make reproduce-medium SEEDS=1` |",
        f"| medium_two_biases | 86.2 / 82.7 | {single}",
        f"| medium_lua_decay_two_biases | 86.2 / 82.7 | {both}",
    ]
    assert f"| medium_two_biases, 2 averaged | 80.6 / 77.0 | {pair}" in rows


def test_records_of_a_stopped_run_are_kept_but_replace_none_of_another(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "results")
    average = tmp_path / "results" / "gru-average.jsonl"
    path, kept = tmp_path / "run", tmp_path / "results" / "gru-1"
    path.mkdir()
    for history, result, kept_history, averages_stay in (
        ("", None, None, True),
        ("12", None, "12", True),
        ("", None, "12", True),  # another run of the same seed, in a fresh clone, stopped in its first epoch
        ("1x", None, "12", True),  # in a later one
        ("123", None, "123", True),  # the run goes on
        ("1234", "a", "1234", True),  # to its end
        ("1x", None, "1234", True),
        ("1xyz", "b", "1xyz", False),  # the other run too
        ("1xyz", "b", "1xyz", True),
    ):
        (path / "history.jsonl").write_text(history)
        if result:
            (path / "result.json").write_text(result)
        else:
            (path / "result.json").unlink(missing_ok=True)
        average.parent.mkdir(exist_ok=True)
        average.write_text("averages")
        reproduce.keep("gru", 1, path)
        assert kept_history == ((kept / "history.jsonl").read_text() if kept.exists() else None)
        assert average.exists() == averages_stay


def test_a_row_is_of_the_runs_that_are_there_and_none_else(tmp_path, monkeypatch):
    """Who reproduces the first of our three runs, and has the second, is not to find a mean with our third in it."""
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "runs").mkdir()
    for name in ("gru-1", "gru-2", "gru-3", "gru_bfloat16-3", "small-3"):
        record(tmp_path / "results", name, 120.0, 115.0, 0.5)
    for name, hours in (("gru-1", 0.7), ("gru-2", 0.5)):
        record(tmp_path / "runs", name, 120.0, 115.0, hours)
    reproduce.keep("gru", 2, tmp_path / "runs" / "gru-2")  # the same
    assert (tmp_path / "results" / "gru-3").exists()
    reproduce.keep("gru", 1, tmp_path / "runs" / "gru-1")  # another
    kept = {path.name for path in (tmp_path / "results").iterdir()}
    assert kept == {"gru-1", "gru-2", "gru_bfloat16-3", "small-3"}
    assert [result["training_seconds"] for result in reproduce.results_of(tmp_path / "results", "gru")] == [2520, 1800]


def test_processes_that_make_other_rows_wait_for_each_other(copy, monkeypatch):
    monkeypatch.setattr(reproduce, "ROOT", copy)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # as good as processes: the lock is that of an open file
        for rewritten in [pool.submit(reproduce.rewrite_tables) for _ in range(100)]:
            rewritten.result()


def test_the_tables_follow_each_run_and_a_folder_with_another_run_is_refused(copy, tiny_corpus):
    other = copy / "runs" / "test-2"
    other.mkdir(parents=True)
    for name in reproduce.RECORDS:
        (other / name).write_text('{"model": "gru"}')
    process = processes.run(copy / "reproduce.py", "--model=test", "--seeds=2", f"--data_path={tiny_corpus}", cwd=copy)
    assert process.returncode == 1
    assert "test-2: holds another run (" in process.stderr
    assert [path.name for path in (copy / "results").iterdir()] == ["test-1"]
    for page in reproduce.PAGES:
        rewritten = (copy / page).read_text()
        assert rewritten != (reproduce.ROOT / page).read_text()  # whose records are not here
        assert rewritten == reproduce.with_tables(page, copy / "results", root=copy)


def test_averages_of_more_runs_outlive_those_of_fewer(tmp_path, monkeypatch):
    def lines(*scores):
        return "".join(json.dumps({"run": f"average of {count}", "perplexity": score}) + "\n" for count, score in scores)

    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    for made in (lines((1, 9.0), (2, 8.0), (3, 7.0)), lines((1, 9.5), (2, 8.5))):
        monkeypatch.setattr(reproduce, "run_command", lambda *_, made=made, **__: made)
        monkeypatch.setattr(reproduce, "data_flag", list)
        reproduce.average("small", [])
    assert (tmp_path / "small-average.jsonl").read_text() == lines((1, 9.5), (2, 8.5), (3, 7.0))


def test_a_page_without_a_place_for_a_table_is_an_error(tmp_path):
    (tmp_path / "README.md").write_text("# Nothing here")
    with pytest.raises(OSError, match="README.md: has no place for a table"):
        reproduce.with_tables("README.md", tmp_path, root=tmp_path)


def test_the_command_trains_averages_and_records(copy, tmp_path):
    """One text, which is averaged on what was held out of it."""
    text = tmp_path / "text.txt"
    text.write_text(SENTENCE * 400)
    precision = "float32" if devices.choose_precision("auto", []) == "bfloat16" else "bfloat16"  # not that of auto
    arguments = ("--model=test", f"--precision={precision}", "--seeds=2", f"--data_path={text}")
    processes.succeed(copy / "reproduce.py", *arguments, cwd=copy)
    for seed in (1, 2):
        kept = copy / "results" / f"test_{precision}-{seed}"
        assert {path.name for path in kept.iterdir()} == set(reproduce.RECORDS)
        result = json.loads((kept / "result.json").read_text())
        assert (result["seed"], result["precision"]) == (seed, precision)
    averages = [json.loads(line) for line in (copy / "results" / f"test_{precision}-average.jsonl").read_text().splitlines()]
    assert [(r["run"], r["split"], r["precision"]) for r in averages] == [
        (f"average of {count}", split, "float32") for count in (1, 2) for split in ("valid", "test")
    ]
    for page in reproduce.PAGES:
        assert (reproduce.ROOT / page).read_text().count("| not run") < (copy / page).read_text().count("| not run")


def test_a_command_that_was_killed_is_named(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    with pytest.raises(RunError, match="train.py: was ended by SIGKILL .*; the same command goes on"):
        reproduce.run_command("train.py")


def test_a_request_to_stop_reaches_the_training_which_saves_first(copy, tmp_path):
    """Sent to the command alone; what a terminal sends to both reaches the training twice, see test_signals.py."""
    saved, stdout, stderr = copy / "runs" / "demo-1", tmp_path / "stdout", tmp_path / "stderr"
    stdout.touch()
    arguments = ("--model=demo", "--data_path=demo", f"--runs={saved.parent}")
    process = processes.start(copy / "reproduce.py", *arguments, folder=tmp_path, before=os.setsid)
    try:
        processes.wait_for(lambda: " perplexity: " in stdout.read_text(), process)
        os.kill(process.pid, signal.SIGINT)
        process.join(60)
        assert process.exitcode == 128 + signal.SIGINT
        assert f"Stopped by SIGTERM; the same command resumes {saved}\n" in stderr.read_text()
        assert Run(saved).load_checkpoint().record["step"] > 0
        assert not (copy / "results").exists()  # which no epoch has been finished for
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
