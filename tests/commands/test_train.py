"""train.py: what it prints and leaves, what --set changes, and that no crash changes where a run ends."""

import dataclasses
import json
import os
import re
import signal
import sys

import numpy as np
import pytest
from absl import flags

import ptb
import train
from configs import SMALL, TEST
from helpers import in_process, processes
from helpers.rejected import contents
from helpers.run_files import assert_same_run, curve, history, result, trial, write_run
from helpers.training_runs import StopAt, begin
from ptb.config import override
from ptb.data import grammar
from ptb.data.corpus import load_corpus
from ptb.model.language_model import build_model
from ptb.runs.tensorboard import GRADIENT_NORM, LEARNING_RATE, RUNNING, SPEED, TRAIN, VALID
from ptb.runs.tensorboard import TEST as TEST_TAG
from ptb.runtime import devices
from ptb.training.state import TrainState


def arguments(data_path, folder, *more):
    return ["--model=test", f"--data_path={data_path}", f"--save_path={folder}", "--seed=3", *more]


@pytest.fixture(scope="module")
def finished(tiny_corpus, tmp_path_factory):
    """The folder of a run of the test configuration, and the process that trained it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return folder, processes.succeed("train.py", *arguments(tiny_corpus, folder))


def test_it_prints_the_lines_of_the_tutorial(finished):
    _, process = finished
    number = r"\d+\.\d{3}"
    expected = [
        rf"Model: test Kernel: stepwise Precision: {devices.choose_precision('auto', [])} Device: CPU",
        r"Parameters: 80 Vocabulary: 8 words",
        r"Text: train 440, valid 132, test 143 words",
        r"Steps: 1 epochs of 10, each of 20 × 2 words",
        r"Epoch: 1 Learning rate: 1\.000",
        *[rf"{number} perplexity: {number} speed: \d+ wps"] * 10,
        rf"Epoch: 1 Train Perplexity: {number}",
        rf"Epoch: 1 Valid Perplexity: {number}",
        rf"Test Perplexity: {number}",
    ]
    lines = process.stdout.splitlines()
    assert len(lines) == len(expected), process.stdout
    for line, pattern in zip(lines, expected):
        assert re.fullmatch(pattern, line)
    assert process.stderr == ""


def test_it_leaves_its_records(finished):
    folder, process = finished
    config = json.loads((folder / "config.json").read_text())
    assert (config["model"], config["seed"], config["overrides"]) == ("test", 3, {})
    assert config["config"]["model"]["layers"] == [2]
    (record,) = history(folder)
    assert (record["epoch"], record["learning_rate"], record["kernel"], record["seed"]) == (1, 1.0, "stepwise", 3)
    assert record["machine"] == {**devices.machine(), "gpu": None}
    assert record["versions"] == devices.versions()
    assert re.fullmatch(r"[0-9a-f]{12}\+?|None", str(result(folder)["git_revision"]))
    assert 0 <= record["clipped_fraction"] <= 1
    assert result(folder)["tokens_scored"] == 13 * 11 - 1
    assert f"{result(folder)['test_perplexity']:.3f}" in process.stdout.splitlines()[-1]
    assert (folder / "vocabulary.txt").read_text().split()[0] == "the"


def test_tensorboard_shows_it(finished):
    folder, _ = finished
    for tag, split in ((TRAIN, "train"), (VALID, "valid")):
        assert curve(folder, tag)[-1] == (10, pytest.approx(history(folder)[0][f"{split}_perplexity"], rel=1e-6))
    assert curve(folder, TEST_TAG) == [(10, pytest.approx(result(folder)["test_perplexity"], rel=1e-6))]
    for tag in (RUNNING, LEARNING_RATE, GRADIENT_NORM, SPEED):
        assert len(curve(folder, tag)) == 10


def test_a_finished_run_says_so_and_nothing_changes(finished, tiny_corpus):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = in_process.succeed("train.py", *arguments(tiny_corpus, folder))
    (line,) = done.stdout.splitlines()
    assert str(folder) in line and f"{result(folder)['test_perplexity']:.3f}" in line
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


# --set and --model


def test_overrides_are_recorded_and_printed_and_tell_runs_apart(tiny_corpus, tmp_path):
    command = ("train.py", "--model=test", f"--data_path={tiny_corpus}", "--set=layers=3,2", "--set", "learning_rate=1/4")
    first = in_process.succeed(*command, cwd=tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    assert all(part in folder.name for part in ("test", "layers=3,2", "learning_rate=0.25", "1"))
    assert "model.layers=3,2" in first.stdout and "optimizer.learning_rate=0.25" in first.stdout
    record = json.loads((folder / "config.json").read_text())
    assert (record["model"], record["overrides"]) == ("test", {"model.layers": [3, 2], "optimizer.learning_rate": 0.25})
    assert ptb.load(folder).config == override(TEST, {"layers": (3, 2), "learning_rate": 0.25})
    assert curve(folder, LEARNING_RATE)[0][1] == 0.25
    shown = trial(folder).hparams
    assert (shown["hparams/model"].string_value, shown["hparams/model.layers"].string_value) == ("test", "3,2")
    assert shown["hparams/optimizer.learning_rate"].number_value == 0.25

    before = contents(tmp_path)
    again = in_process.succeed(*command, cwd=tmp_path)  # finished
    assert again.stdout.count("\n") == 1
    other = in_process.call(*command, "--set=layers=4", f"--save_path={folder}", cwd=tmp_path)
    assert (other.returncode, other.stderr.count("\n")) == (1, 1)
    assert "model.layers" in other.stderr and str(folder) in other.stderr
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("overrides", "other"),
    [
        ({}, {"learning_rate": 0.5}),
        ({"learning_rate": 0.5}, {"learning_rate": 0.25}),
        ({"learning_rate": 0.1234567}, {"learning_rate": 0.1234568}),
        ({"layers": (5, 6)}, {"layers": (5,)}),
        ({"dropout.input": 0.5}, {"dropout.output": 0.5}),
        ({"dropout": 0.5}, {"dropout.input": 0.5}),
        ({"optimizer": "RMSprop"}, {}),
    ],
)
def test_the_default_folder_tells_configurations_and_seeds_apart(overrides, other):
    configs = [override(SMALL, changes) for changes in (overrides, other)]
    names = {train.run_name("small", train.differences(config, SMALL), seed) for config in configs for seed in (1, 2)}
    assert len(names) == 4
    assert all(re.fullmatch(r"[\w.,=+-]+", name) for name in names)


def test_a_default_folder_with_many_changes_has_a_name_that_a_file_system_takes(tmp_path):
    overrides = {f"model.a_field_with_a_long_name_{number}": 0.123456789 for number in range(20)}
    names = [train.run_name("small", overrides, seed) for seed in (1, 2, 1)]
    assert names[0] == names[2] != names[1]
    for name in names:
        (tmp_path / name).mkdir(exist_ok=True)


@pytest.mark.parametrize("value", [0.5, 2.0, 1 / 1.15, 1e-16, 3, (5, 6), (5,), True, "gru"])
def test_a_value_is_printed_as_set_reads_it(value):
    names = {float: "epsilon", int: "num_steps", tuple: "layers", bool: "two_biases", str: "cell"}
    base, name = override(SMALL, {"optimizer": "RMSprop"}), names[type(value)]
    assert override(base, {name: train.value_text(value)}) == override(base, {name: value})


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("learning_rat=1", "optimizer.learning_rate"),
        ("layer=3", "model.layers"),
        ("hidden_size=3", "model.layers"),
        ("learning_rate=fast", "learning_rate"),
        ("learning_rate=-1", "learning_rate"),
        ("layers=3,x", "layers"),
        ("two_biases=perhaps", "two_biases"),
        ("optimizer=Adagrad", "optimizer"),
        ("learning_rate", "--set"),
    ],
)
def test_a_wrong_override_is_a_usage_error_with_the_nearest_name(setting, named, tmp_path):
    done = in_process.call("train.py", "--model=test", f"--set={setting}", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert named in done.stderr
    assert contents(tmp_path) == {}


def test_a_configuration_may_come_from_a_file_and_a_run_with_overrides_resumes(tiny_corpus, tmp_path):
    (tmp_path / "mine.py").write_text(
        'from configs import TEST\nfrom ptb.config import override\nWIDE = override(TEST, {"layers": (8,)})\n'
    )
    config = override(TEST, {"layers": (8,), "num_epochs": 2, "learning_rate": 0.5})
    folder = tmp_path / "runs" / "WIDE-num_epochs=2-learning_rate=0.5-1"
    with pytest.raises(SystemExit):
        begin(config, load_corpus(str(tiny_corpus)), folder, StopAt(13))
    command = ("train.py", "--model=mine.py:WIDE", f"--data_path={tiny_corpus}", "--precision=float32")
    done = in_process.succeed(*command, "--set=num_epochs=2", "--set=learning_rate=0.5", cwd=tmp_path)
    assert "Resuming" in done.stdout
    assert len(history(folder)) == 2
    assert json.loads((folder / "config.json").read_text())["model"] == "WIDE"


def test_flags_reach_the_model_and_the_run(tiny_corpus, tmp_path, monkeypatch):
    made = []

    def recorded(config, vocab_size, **options):
        made.append(options)
        return build_model(config, vocab_size, **options)

    monkeypatch.setattr("ptb.model.language_model.build_model", recorded)
    chosen = ("--seed=3", "--rnn_mode=stepwise", "--precision=bfloat16", "--report_every=3", "--sample_every=4")
    done = in_process.succeed("train.py", "--model=test", f"--data_path={tiny_corpus}", *chosen, cwd=tmp_path)
    assert made == [{"seed": 3, "rnn_mode": "stepwise", "product_dtype": "bfloat16"}]
    assert "Kernel: stepwise Precision: bfloat16" in done.stdout
    run = tmp_path / "runs" / "test-3"
    assert [step for step, _ in curve(run, LEARNING_RATE)] == [3, 6, 9]
    assert [step for step, _ in curve(run, "sample")] == [4, 8]


# Crashes


@pytest.fixture(scope="module")
def longer_corpus(tmp_path_factory):
    """Enough text that a signal arrives in the middle of an epoch."""
    folder = tmp_path_factory.mktemp("longer")
    words = [f"w{i}" for i in range(50)]
    rng = np.random.default_rng(0)
    for split, lines in (("train", 6_000), ("valid", 50), ("test", 60)):
        (folder / f"{split}.txt").write_text("".join(" ".join(rng.choice(words, 7)) + "\n" for _ in range(lines)))
    return folder


@pytest.fixture(scope="module")
def unbroken(longer_corpus, tmp_path_factory):
    """An unbroken run, with a profile of some steps, which should change nothing else."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    processes.succeed("train.py", *arguments(longer_corpus, folder, "--profile"))
    return folder


@pytest.mark.slow
def test_a_profile_is_left_in_the_run(unbroken):
    assert list(unbroken.glob("plugins/profile/*/*.xplane.pb"))


@dataclasses.dataclass
class InterruptAt:
    """Called in a process before train.py: it sends itself a signal after a step."""

    number: int
    step: int

    def __call__(self):
        advance = TrainState.advance

        def advance_and_interrupt(state):
            advance(state)
            if state.step == self.step:
                os.kill(os.getpid(), self.number)

        TrainState.advance = advance_and_interrupt


def steps_saved(folder):
    """Return the step of the newest checkpoint, -1 before the first."""
    return max((int(path.stem.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*.npz")), default=-1)


# Ctrl-C: below
@pytest.mark.parametrize(
    ("number", "exit_code"), [pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_run_that_was_stopped_ends_where_an_unbroken_one_does(number, exit_code, longer_corpus, unbroken, tmp_path):
    folder = tmp_path / "stopped"
    line = arguments(longer_corpus, folder, "--checkpoint_minutes=0.002")
    process = processes.start("train.py", *line, folder=tmp_path, before=InterruptAt(number, step=400))
    process.join(120)
    assert process.exitcode == exit_code
    errors = (tmp_path / "stderr").read_text()
    assert errors.count("\n") == (2 if number == signal.SIGTERM else 0)  # at once, and when the run is saved
    assert not errors or (errors.count("SIGTERM") == 2 and str(folder) in errors)

    resumed = processes.succeed("train.py", *line)
    step = int(re.search(r"Resuming .* step (\d+)\n", resumed.stdout)[1])
    assert 400 <= step < steps_saved(unbroken) if number == signal.SIGTERM else 0 < step <= 400
    assert_same_run(folder, unbroken)


def nobody_reads():
    """Replace standard output by a pipe without a reader."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 -- the previous one belongs to a file, and would seek


def test_ctrl_c_saves_the_run_also_if_it_ended_the_reader_of_standard_output(longer_corpus, tmp_path):
    folder = tmp_path / "unread"
    line = arguments(longer_corpus, folder, "--report_every=1")
    process = processes.start("train.py", *line, folder=tmp_path, before=nobody_reads)
    processes.wait_for(lambda: steps_saved(folder) == 0, process)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    errors = (tmp_path / "stderr").read_text()
    assert errors.count("\n") == 2
    assert errors.count("SIGINT") == 2 and str(folder) in errors
    assert process.exitcode == 130
    assert steps_saved(folder) > 0


# Beside the training


def test_a_run_of_the_built_in_corpus_ends_with_its_distance_from_the_floor(tmp_path, monkeypatch, capsys):
    floor = grammar.perplexity(grammar.demo_text().test)
    monkeypatch.setattr(train, "train", lambda *_, **options: {"test_perplexity": 1.25 * floor})
    demo = ("--model=demo", "--data_path=demo", f"--save_path={tmp_path}")
    call_main(*demo)
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{floor:.3f}" in line and "25.0%" in line
    call_main(*demo, "--set=vocab_size=100")  # another text: <unk> for most words
    assert capsys.readouterr().out == ""


def test_the_published_perplexity_is_that_of_the_run_whose_weights_are_the_start(tiny_corpus, tmp_path, monkeypatch):
    corpus, given = load_corpus(str(tiny_corpus)), []
    write_run(tmp_path / "a", TEST, corpus.vocabulary.words, model="medium")
    monkeypatch.setattr(train, "PTB_FINGERPRINT", corpus.fingerprint())
    monkeypatch.setattr(train, "train", lambda *_, monitoring, **options: given.append(monitoring.published_valid))
    call_main(f"--init_from={tmp_path / 'a'}", f"--data_path={tiny_corpus}", f"--save_path={tmp_path / 'b'}")
    assert given == [86.2]


def test_checkpoints_come_every_so_many_minutes(tiny_corpus, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(train, "train", lambda *_, monitoring, **options: given.append(monitoring.checkpoint_seconds))
    call_main("--model=test", f"--data_path={tiny_corpus}", f"--save_path={tmp_path / 'run'}", "--checkpoint_minutes=2")
    assert given == [120]


def call_main(*arguments):
    values = flags.FlagValues()
    train.define_flags(values)
    values(["train.py", *arguments])
    train.main(values)
