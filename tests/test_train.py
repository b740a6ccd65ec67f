"""train.py as a process of its own: what it prints, what it leaves, and that no crash changes where it ends."""

import functools
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import configs
import processes
import train
from ptb import devices
from runs import assert_same, curve, history


def arguments(data_path, save_path, *more):
    return ["--model=test", f"--data_path={data_path}", f"--save_path={save_path}", "--seed=3", *more]


@pytest.fixture(scope="module")
def finished(tiny_corpus, tmp_path_factory):
    """A run of the test configuration from beginning to end."""
    save_path = tmp_path_factory.mktemp("runs") / "finished"
    return save_path, processes.run("train.py", *arguments(tiny_corpus, save_path))


def test_it_prints_the_tutorials_lines(finished):
    _, process = finished
    assert process.returncode == 0, process.stderr
    number = r"\d+\.\d{3}"
    wanted = [
        rf"Model: test Kernel: fused Precision: {devices.choose_precision('auto', [])} Device: CPU",
        r"Epoch: 1 Learning rate: 1\.000",
        *[rf"{number} perplexity: {number} speed: \d+ wps"] * 10,
        rf"Epoch: 1 Train Perplexity: {number}",
        rf"Epoch: 1 Valid Perplexity: {number}",
        rf"Test Perplexity: {number}",
    ]
    lines = process.stdout.splitlines()
    assert len(lines) == len(wanted), process.stdout
    for line, pattern in zip(lines, wanted):
        assert re.fullmatch(pattern, line)
    assert process.stderr == ""


def test_it_leaves_its_records(finished, tiny_corpus):
    save_path, process = finished
    config = json.loads((save_path / "config.json").read_text())
    assert (config["model"], config["seed"], config["hidden_size"]) == ("test", 3, 2)
    (record,) = history(save_path)
    assert record["epoch"] == 1
    assert record["learning_rate"] == 1.0
    assert record["kernel"] == "fused"
    assert record["machine"] == {**devices.machine(), "gpu": None}
    assert 0 <= record["clipped_fraction"] <= 1
    result = json.loads((save_path / "result.json").read_text())
    assert result["tokens_scored"] == 13 * 11 - 1
    assert f"Test Perplexity: {result['test_perplexity']:.3f}" in process.stdout
    assert (save_path / "vocabulary.txt").read_text().split()[0] == "the"


def test_tensorboard_reads_its_curves(finished):
    save_path, _ = finished
    for series in ("train", "valid"):
        reached = history(save_path)[0][f"{series}_perplexity"]
        assert curve(save_path / series, "perplexity") == [(1, pytest.approx(reached, rel=1e-6))]
    for tag in ("running_train_perplexity", "learning_rate", "mean_gradient_norm", "words_per_second"):
        assert len(curve(save_path, tag)) == 10
    metadata = EventAccumulator(str(save_path)).Reload().summary_metadata["_hparams_/session_start_info"]
    trial = HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info
    assert trial.group_name == f"{save_path.parent.name}/finished"
    assert trial.hparams["hidden_size"].number_value == 2


def test_a_finished_run_says_so_and_does_nothing(finished, tiny_corpus):
    save_path, _ = finished
    before = {path: path.stat().st_mtime_ns for path in save_path.rglob("*")}
    process = processes.run("train.py", *arguments(tiny_corpus, save_path))
    assert process.returncode == 0
    assert re.fullmatch(r".*: finished, test perplexity \d+\.\d{3}; nothing to do\n", process.stdout)
    assert {path: path.stat().st_mtime_ns for path in save_path.rglob("*")} == before


@pytest.fixture(scope="module")
def longer_corpus(tmp_path_factory):
    """Enough text that a signal arrives in the middle of an epoch."""
    folder = tmp_path_factory.mktemp("longer")
    words = [f"w{i}" for i in range(50)]
    rng = np.random.default_rng(0)
    for split, lines in (("train", 12_000), ("valid", 50), ("test", 60)):
        (folder / f"{split}.txt").write_text("".join(" ".join(rng.choice(words, 7)) + "\n" for _ in range(lines)))
    return folder


@pytest.fixture(scope="module")
def unbroken(longer_corpus, tmp_path_factory):
    """A run to its end, with a profile of some steps, which is to change nothing else."""
    save_path = tmp_path_factory.mktemp("runs") / "unbroken"
    processes.succeed("train.py", *arguments(longer_corpus, save_path, "--profile"))
    return save_path


def test_a_profile_is_left_in_the_run(unbroken):
    assert list(unbroken.glob("plugins/profile/*/*.xplane.pb"))


def steps_saved(save_path):
    """Returns the step of the newest checkpoint, -1 before the first."""
    return max((int(path.stem.removeprefix("checkpoint-")) for path in save_path.glob("checkpoint-*.npz")), default=-1)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])  # Ctrl-C: test_signals.py
def test_a_run_that_was_stopped_ends_where_an_unbroken_one_does(number, exit_code, longer_corpus, unbroken, tmp_path):
    save_path = tmp_path / "stopped"
    line = arguments(longer_corpus, save_path, "--checkpoint_minutes=0.002")
    process = processes.start("train.py", *line, folder=tmp_path)
    processes.wait_for(lambda: steps_saved(save_path) >= 100, process)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == exit_code
    errors = (tmp_path / "stderr").read_text()
    assert errors == ("" if number == signal.SIGKILL else f"Stopped by SIGTERM; the same command resumes {save_path}\n")

    resumed = processes.succeed("train.py", *line)
    assert 100 <= int(re.search(r"Resuming .* after step (\d+)\n", resumed.stdout)[1]) < steps_saved(unbroken)
    assert_same(save_path, unbroken)


def nobody_reads():
    """Puts a pipe without a reader in the place of standard output."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 -- the one before was of a file, and would seek


def test_ctrl_c_saves_though_it_has_ended_what_read_the_output_too(longer_corpus, tmp_path):
    save_path = tmp_path / "unread"
    line = arguments(longer_corpus, save_path, "--report_every=1")
    process = processes.start("train.py", *line, folder=tmp_path, before=nobody_reads)
    processes.wait_for(lambda: steps_saved(save_path) == 0, process)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert (tmp_path / "stderr").read_text() == f"Stopped by SIGINT; the same command resumes {save_path}\n"
    assert process.exitcode == 130
    assert steps_saved(save_path) > 0


@pytest.mark.parametrize(("count", "reports"), [(2323, 10), (10, 10), (19, 10), (3, 3), (1, 1)])
def test_reports_are_ten_an_epoch_or_one_a_window(count, reports):
    windows = sorted(train.report_windows(count))
    assert len(windows) == reports
    assert 1 <= windows[0] <= windows[-1] <= count
    if count == 2323:
        assert [f"{(window - 1) / count:.3f}" for window in windows[:2]] == ["0.004", "0.104"]  # as the tutorial prints


def test_flags_reach_the_model_and_the_run_whose_folder_is_by_default_that_of_model_and_seed(tiny_corpus, tmp_path):
    flags = ("--seed=3", "--rnn_mode=basic", "--precision=bfloat16", "--report_every=3", "--sample_every=4")
    record = functools.partial(record_choices, tmp_path / "choices.json")
    processes.succeed("train.py", "--model=test", f"--data_path={tiny_corpus}", *flags, cwd=tmp_path, before=record)
    chosen = {"seed": 3, "rnn_mode": "basic", "product_dtype": "bfloat16"}
    assert json.loads((tmp_path / "choices.json").read_text()) == chosen
    run = tmp_path / "runs" / "test-3"
    assert [step for step, _ in curve(run, "learning_rate")] == [3, 6, 9]
    samples = EventAccumulator(str(run)).Reload().Tensors("sample")
    assert [sample.step for sample in samples] == [4, 8]


def record_choices(path):
    """Has a process write with what train.py makes its model."""
    make_model = configs.Config.make_model

    def recorded(config, vocab_size, **choices):
        path.write_text(json.dumps(choices))
        return make_model(config, vocab_size, **choices)

    configs.Config.make_model = recorded


def test_the_revision_has_a_plus_where_the_program_was_changed_not_its_records(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.setattr(train, "__file__", str(tmp_path / "train.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert train.git_revision() is None
    git("init")
    for name in ("train.py", "ptb/model.py", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one")
    git("add", ".")
    git("commit", "--message=Begin")
    revision = git("rev-parse", "--short=12", "HEAD")
    assert train.git_revision() == revision
    (tmp_path / "README.md").write_text("two")
    assert train.git_revision() == revision
    (tmp_path / "ptb" / "model.py").write_text("two")
    assert train.git_revision() == revision + "+"


@pytest.mark.parametrize("flag", ["--helpshort", "-h"])
def test_help_shows_every_flag_and_an_example(flag):
    process = processes.run("train.py", flag)
    defined = re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', (processes.ROOT / "train.py").read_text())
    assert "seed" in defined
    for name in defined:
        assert re.search(rf"--(\[no\])?{name}:", process.stdout), name
    for text in ("python train.py --model=medium", "<small|medium|large|test"):
        assert text in process.stdout
