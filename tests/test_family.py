"""Options that whole trainings show: early stopping, validation by steps, explosions, characters, samples, reports."""

import dataclasses
import functools
import json
import types

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import corpora
import processes
import runs
import train
import trained
from configs import TEST
from ptb.evaluation import make_eval_step, score
from ptb.progress import Diverged, Progress
from ptb.run import Run
from ptb.training import Sums, make_train_step
from training_runs import StopAt, begin

PATIENT = dataclasses.replace(TEST, hidden_size=16, num_epochs=30, patience=3, validate_every=10, learning_rate=0.5)
WILD = dataclasses.replace(PATIENT, explosion=1.5, learning_rate=8.0, max_grad_norm=100, patience=0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Random words: what is learnt of the training text makes the validation text worse, after a while."""
    folder = tmp_path_factory.mktemp("random")
    rng = np.random.default_rng(0)
    for split, lines in (("train", 60), ("valid", 60), ("test", 60)):
        (folder / f"{split}.txt").write_text("".join(" ".join(rng.choice(list("abcdefgh"), 9)) + "\n" for _ in range(lines)))
    return corpora.load_corpus(str(folder))


@pytest.fixture(scope="module")
def patient(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "patient"
    return folder, *begin(PATIENT, corpus, folder)


def validation_curve(folder):
    return runs.curve(folder, "valid_perplexity")


def test_training_stops_when_patience_runs_out(patient):
    folder, _, progress = patient
    history = runs.history(folder)
    assert len(history) < PATIENT.num_epochs
    assert progress.validations_since_best == PATIENT.patience
    validations = [perplexity for _, perplexity in validation_curve(folder)]
    validations += [record["valid_perplexity"] for record in history]
    assert progress.best_perplexity == pytest.approx(min(validations), rel=1e-6)
    assert 0 < progress.best_step < progress.step


def test_the_best_weights_are_restored_and_what_other_commands_open(patient, corpus):
    folder, model, progress = patient
    _, valid_windows = train.cut_into_windows(corpus, PATIENT)
    assert score(make_eval_step(model), model, valid_windows).perplexity == pytest.approx(progress.best_perplexity, rel=1e-6)
    opened = trained.Trained(folder).load_model()
    for ours, theirs in zip(model.get_weights(), opened.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    newest = runs.weights(folder)
    assert any(not np.array_equal(newest[f"weights/{variable.path}"], variable) for variable in model.trainable_variables)


def test_validation_comes_every_so_many_steps(patient):
    folder, _, progress = patient
    assert [step for step, _ in validation_curve(folder)] == list(range(10, progress.step + 1, 10))


def test_stopped_anywhere_a_patient_run_ends_as_an_unbroken_one(patient, corpus, tmp_path):
    """In training, in a validation within an epoch, and in one at its end."""
    folder, _, wanted = patient
    stops = 0
    for count in range(15, 110, 25):
        reached = None
        while reached is None:
            try:
                _, reached = begin(PATIENT, corpus, tmp_path / str(count), StopAt(count))
            except SystemExit:
                stops += 1
        assert runs.history(tmp_path / str(count)) == runs.history(folder)
        assert validation_curve(tmp_path / str(count)) == validation_curve(folder)
        assert (reached.best_step, reached.step) == (wanted.best_step, wanted.step)
        for name, array in wanted.best_weights.items():
            np.testing.assert_array_equal(reached.best_weights[name], array)
    assert stops > 10


def test_the_training_score_is_that_of_the_epoch_with_the_best_weights(patient, corpus):
    folder, model, progress = patient
    train.finish(PATIENT, corpus, Run(folder), model, progress, {}, StopAt(1_000_000))
    result = json.loads((folder / "result.json").read_text())
    windows, _ = train.cut_into_windows(corpus, PATIENT)
    record = runs.history(folder)[(result["best_step"] - 1) // len(windows)]
    assert record["epoch"] < len(progress.history)  # or it could as well be the last
    assert result["train_perplexity"] == record["train_perplexity"]


def test_a_validation_without_a_number_is_never_the_best():
    progress = Progress({"weights/w": tf.Variable(0.0)}, (), Sums.zero())
    for perplexity in (np.nan, 5.0, np.nan, 9.0):
        progress.advance()
        progress.variables["weights/w"].assign(perplexity)
        progress.note_validation(perplexity, keep_best=True)
    assert (progress.best_perplexity, progress.best_step, progress.validations_since_best) == (5.0, 2, 2)
    assert progress.best_weights["weights/w"] == 5.0


def test_a_run_that_goes_on_in_another_precision_says_so(corpus, tmp_path, caplog):
    config = dataclasses.replace(TEST, num_epochs=1)
    with pytest.raises(SystemExit):
        begin(config, corpus, tmp_path / "run", StopAt(3))
    begin(config, corpus, tmp_path / "run", precision="bfloat16")
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == f"{tmp_path / 'run'}: its products were in float32, from now on in bfloat16"
    caplog.clear()
    model, progress = begin(config, corpus, tmp_path / "run", precision="tf32")  # in which there is nothing left to train
    train.finish(config, corpus, Run(tmp_path / "run"), model, progress, {"precision": "tf32"}, StopAt(1_000_000))
    assert json.loads((tmp_path / "run" / "result.json").read_text())["precision"] == "float32, bfloat16"
    assert not caplog.records


def test_a_stop_tells_the_best_so_far(corpus, tmp_path):
    for count, best in ((3, ""), (60, "best so far: valid perplexity "), (0, "best so far: valid perplexity ")):
        stop = StopAt(count)
        with pytest.raises(SystemExit):
            begin(PATIENT, corpus, tmp_path / "run", stop=stop)
        assert stop.hint.startswith(best + ("" if best else "the same command resumes "))


@pytest.mark.parametrize(("checkpoint_seconds", "report_every"), [(0, 0), (1e9, 0), (1e9, 7)])
def test_a_loss_so_many_times_the_first_stops_the_run_whenever_it_is_looked_at(
    checkpoint_seconds, report_every, corpus, tmp_path
):
    with pytest.raises(Diverged, match="limit 3.29"):
        begin(WILD, corpus, tmp_path / "run", checkpoint_seconds=checkpoint_seconds, report_every=report_every)
    assert trained.Trained(tmp_path / "run").load_model()


def test_a_resumed_run_remembers_the_first_loss(corpus, tmp_path):
    with pytest.raises(SystemExit):
        begin(WILD, corpus, tmp_path / "run", StopAt(0))  # after the first step, which cannot explode
    with pytest.raises(Diverged, match="limit 3.29"):
        begin(WILD, corpus, tmp_path / "run")


def test_without_a_limit_a_loss_may_be_any_number_of_times_the_first(corpus, tmp_path):
    config = dataclasses.replace(WILD, explosion=0.0)
    assert begin(config, corpus, tmp_path / "run")[1].epoch > config.num_epochs


def test_seconds_are_those_of_an_epochs_training_also_of_a_resumed_one(corpus, tmp_path, monkeypatch):
    """By a clock that a step takes one second on, and a validation a hundred."""
    now = 0

    def lasting(seconds, function):
        def timed(*arguments):
            nonlocal now
            now += seconds
            return function(*arguments)

        return timed

    monkeypatch.setattr("ptb.progress.time", types.SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(train, "make_train_step", lambda *arguments: lasting(1, make_train_step(*arguments)))
    monkeypatch.setattr(train, "score", lasting(100, score))
    config = dataclasses.replace(TEST, num_epochs=2, validate_every=10)
    with pytest.raises(SystemExit):
        begin(config, corpus, tmp_path / "run", StopAt(5))
    begin(config, corpus, tmp_path / "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    windows, _ = train.cut_into_windows(corpus, config)
    assert len(windows) > 10
    assert [record["seconds"] for record in records] == [len(windows)] * 2
    assert [record["words_per_second"] for record in records] == [config.batch_size * config.num_steps] * 2


def test_each_step_has_the_state_of_the_one_before_and_masks_of_its_own(corpus, tmp_path, monkeypatch):
    calls = []

    def make_recorded_step(*arguments):
        step = make_train_step(*arguments)

        def recorded_step(inputs, targets, state, sums, rate, dropout_seed):
            results = step(inputs, targets, state, sums, rate, dropout_seed)
            calls.append((state, float(sums.steps), float(rate), tuple(dropout_seed), results[0]))
            return results

        return recorded_step

    monkeypatch.setattr(train, "make_train_step", make_recorded_step)
    begin(dataclasses.replace(TEST, num_epochs=2), corpus, tmp_path / "run")
    count = len(calls) // 2
    assert count > 1
    assert [dropout_seed for _, _, _, dropout_seed, _ in calls] == [(1, step) for step in range(2 * count)]
    assert [steps for _, steps, _, _, _ in calls] == [*range(count)] * 2
    assert [rate for _, _, rate, _, _ in calls] == [1.0] * count + [0.5] * count
    for step, (state, *_) in enumerate(calls):
        before = tf.nest.map_structure(tf.zeros_like, state) if step in (0, count) else calls[step - 1][-1]
        tf.nest.map_structure(np.testing.assert_array_equal, state, before)
        assert step in (0, count) or np.any(state[0].hidden)


def test_the_optimisers_memory_survives_a_stop(corpus, tmp_path):
    config = dataclasses.replace(PATIENT, optimizer="rmsprop", learning_rate=0.01, num_epochs=2, patience=0)
    begin(config, corpus, tmp_path / "unbroken")
    with pytest.raises(SystemExit):
        begin(config, corpus, tmp_path / "stopped", stop=StopAt(30))
    begin(config, corpus, tmp_path / "stopped")
    ours, theirs = runs.weights(tmp_path / "stopped"), runs.weights(tmp_path / "unbroken")
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_samples_go_to_tensorboard_as_text(corpus, tmp_path):
    config = dataclasses.replace(TEST, num_epochs=1)
    begin(config, corpus, tmp_path / "run", sample_every=6)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert events.summary_metadata["sample"].plugin_data.plugin_name == "text"
    points = events.Tensors("sample")
    assert [point.step for point in points] == [6, 12]
    texts = [tensor_util.make_ndarray(point.tensor_proto).item().decode() for point in points]
    for text in texts:
        assert set(text.split()) <= set("abcdefgh")
        assert len(text.split()) + text.count("\n") == train.SAMPLE_LENGTH


def test_reports_come_every_so_many_steps(corpus, tmp_path, capsys):
    begin(dataclasses.replace(TEST, num_epochs=1), corpus, tmp_path / "run", report_every=4)
    assert len([line for line in capsys.readouterr().out.splitlines() if "speed:" in line]) == 14 // 4
    assert [step for step, _ in runs.curve(tmp_path / "run", "running_train_perplexity")] == [4, 8, 12]


@pytest.fixture(scope="module")
def poem(tmp_path_factory):
    path = tmp_path_factory.mktemp("poem") / "poem.txt"
    path.write_text("Tyger Tyger, burning bright,\nIn the forests of the night;\n" * 80)
    return path


@pytest.fixture(scope="module")
def characters(poem, tmp_path_factory):
    """A small char-rnn, trained on one file."""
    folder = tmp_path_factory.mktemp("runs") / "char"
    small = {"hidden_size": 32, "batch_size": 4, "num_steps": 20, "num_epochs": 8, "learning_rate": 2e-2}
    change = functools.partial(processes.change, "char_rnn", **small, train_fraction=0.8, valid_fraction=0.1)
    processes.succeed("train.py", "--model=char_rnn", f"--data_path={poem}", f"--save_path={folder}", before=change)
    return folder


def test_a_char_rnn_learns_a_text_from_one_file(characters):
    assert runs.history(characters)[-1]["valid_perplexity"] < 1.3  # e to the 3.1 at first


def test_a_char_rnn_writes_text_with_its_spaces_and_lines(characters):
    process = processes.succeed("generate.py", characters, "--prompt=Tyger Ty", "--length=60", "--sample=argmax")
    assert process.stdout.startswith("Tyger Tyger, burning bright,\nIn the forests of the night;\n")


def test_a_prompt_of_characters_keeps_its_spaces(characters):
    for prompt in (" In the ", "Tyger "):
        process = processes.run("generate.py", characters, f"--prompt={prompt}", "--length=5")
        assert process.stdout.startswith(prompt), process.stderr


def test_a_char_rnn_is_scored_in_bits_on_its_own_splits_and_on_sentences(characters):
    process = processes.succeed("evaluate.py", characters, "--json", "--split=test")
    record = json.loads(process.stdout)
    assert record["bits_per_character"] == pytest.approx(np.log2(record["perplexity"]))
    assert record["tokens"] == 16 * 29 - 1
    result = json.loads((characters / "result.json").read_text())
    assert result["test_bits_per_character"] == pytest.approx(record["bits_per_character"], rel=1e-6)
    process = processes.run("evaluate.py", characters, "--stdin", "--words", "--json", stdin="In the\n")
    assert [word for word, _ in json.loads(process.stdout)["words"]] == [*"In_the", "<eos>"]


def test_a_run_of_another_cell_is_scored_and_writes(tiny_corpus, tmp_path):
    run, change = tmp_path / "run", functools.partial(processes.change, "gru", hidden_size=4, num_steps=4, num_epochs=1)
    process = processes.succeed("train.py", "--model=gru", f"--data_path={tiny_corpus}", f"--save_path={run}", before=change)
    assert "Kernel: basic" in process.stdout
    reached = json.loads((run / "result.json").read_text())["test_perplexity"]
    process = processes.succeed("evaluate.py", run, "--split=test", "--json")
    assert json.loads(process.stdout)["perplexity"] == pytest.approx(reached, rel=1e-6)
    process = processes.succeed("generate.py", run, "--length=5")
    assert len(process.stdout.split()) + process.stdout.count("\n") - 1 == 5
