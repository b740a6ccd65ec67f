"""Options that whole trainings show: early stopping, validation by steps, explosions, characters, another cell."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import tensorflow as tf

import processes
import runs
import train
import trained
from configs import TEST
from ptb.evaluation import make_eval_step, score
from ptb.progress import Diverged, Progress
from ptb.run import Run
from ptb.training import Sums
from training_runs import StopAt, begin

PATIENT = dataclasses.replace(TEST, hidden_size=16, num_epochs=30, patience=3, validate_every=10, learning_rate=0.5)
WILD = dataclasses.replace(PATIENT, explosion=1.5, learning_rate=8.0, max_grad_norm=100, patience=0)


@pytest.fixture(scope="module")
def patient(random_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "patient"
    return folder, *begin(PATIENT, random_corpus, folder)


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


def test_the_best_weights_are_restored_and_what_other_commands_open(patient, random_corpus):
    folder, model, progress = patient
    _, valid_windows = train.cut_into_windows(random_corpus, PATIENT)
    assert score(make_eval_step(model), model, valid_windows).perplexity == pytest.approx(progress.best_perplexity, rel=1e-6)
    opened = trained.Trained(folder).load_model()
    for ours, theirs in zip(model.get_weights(), opened.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    newest = runs.weights(folder)
    assert any(not np.array_equal(newest[f"weights/{variable.path}"], variable) for variable in model.trainable_variables)


def test_validation_comes_every_so_many_steps(patient):
    folder, _, progress = patient
    assert [step for step, _ in validation_curve(folder)] == list(range(10, progress.step + 1, 10))


def test_stopped_anywhere_a_patient_run_ends_as_an_unbroken_one(patient, random_corpus, tmp_path):
    """In training, in a validation within an epoch, and in one at its end."""
    folder, _, wanted = patient
    stops = 0
    for count in range(15, 110, 25):
        reached = None
        while reached is None:
            try:
                _, reached = begin(PATIENT, random_corpus, tmp_path / str(count), StopAt(count))
            except SystemExit:
                stops += 1
        assert runs.history(tmp_path / str(count)) == runs.history(folder)
        assert validation_curve(tmp_path / str(count)) == validation_curve(folder)
        assert (reached.best_step, reached.step) == (wanted.best_step, wanted.step)
        for name, array in wanted.best_weights.items():
            np.testing.assert_array_equal(reached.best_weights[name], array)
    assert stops > 10


def test_the_training_score_is_that_of_the_epoch_with_the_best_weights(patient, random_corpus):
    folder, model, progress = patient
    train.finish(PATIENT, random_corpus, Run(folder), model, progress, {}, StopAt(1_000_000))
    result = json.loads((folder / "result.json").read_text())
    windows, _ = train.cut_into_windows(random_corpus, PATIENT)
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


def test_a_stop_tells_the_best_so_far(random_corpus, tmp_path):
    for count, best in ((3, ""), (60, "best so far: valid perplexity "), (0, "best so far: valid perplexity ")):
        stop = StopAt(count)
        with pytest.raises(SystemExit):
            begin(PATIENT, random_corpus, tmp_path / "run", stop=stop)
        assert stop.hint.startswith(best + ("" if best else "the same command resumes "))


@pytest.mark.parametrize(("checkpoint_seconds", "report_every"), [(0, 0), (1e9, 0), (1e9, 7)])
def test_a_loss_so_many_times_the_first_stops_the_run_whenever_it_is_looked_at(
    checkpoint_seconds, report_every, random_corpus, tmp_path
):
    with pytest.raises(Diverged, match="limit 3.29"):
        begin(WILD, random_corpus, tmp_path / "run", checkpoint_seconds=checkpoint_seconds, report_every=report_every)
    assert trained.Trained(tmp_path / "run").load_model()


def test_a_resumed_run_remembers_the_first_loss(random_corpus, tmp_path):
    with pytest.raises(SystemExit):
        begin(WILD, random_corpus, tmp_path / "run", StopAt(0))  # after the first step, which cannot explode
    with pytest.raises(Diverged, match="limit 3.29"):
        begin(WILD, random_corpus, tmp_path / "run")


def test_without_a_limit_a_loss_may_be_any_number_of_times_the_first(random_corpus, tmp_path):
    config = dataclasses.replace(WILD, explosion=0.0)
    assert begin(config, random_corpus, tmp_path / "run")[1].epoch > config.num_epochs


def test_the_optimisers_memory_survives_a_stop(random_corpus, tmp_path):
    config = dataclasses.replace(PATIENT, optimizer="rmsprop", learning_rate=0.01, num_epochs=2, patience=0)
    begin(config, random_corpus, tmp_path / "unbroken")
    with pytest.raises(SystemExit):
        begin(config, random_corpus, tmp_path / "stopped", stop=StopAt(30))
    begin(config, random_corpus, tmp_path / "stopped")
    ours, theirs = runs.weights(tmp_path / "stopped"), runs.weights(tmp_path / "unbroken")
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])


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
    process = processes.run("evaluate.py", characters, "--stdin", "--words", "--json", stdin="In the\n the\n")
    for line, sentence, words in zip(process.stdout.splitlines(), ("In the", " the"), ("In_the", "_the"), strict=True):
        record = json.loads(line)
        assert record["sentence"] == sentence
        assert [word for word, _ in record["words"]] == [*words, "<eos>"]


def test_a_run_of_another_cell_is_scored_and_writes(tiny_corpus, tmp_path):
    run, change = tmp_path / "run", functools.partial(processes.change, "gru", hidden_size=4, num_steps=4, num_epochs=1)
    process = processes.succeed("train.py", "--model=gru", f"--data_path={tiny_corpus}", f"--save_path={run}", before=change)
    assert "Kernel: basic" in process.stdout
    reached = json.loads((run / "result.json").read_text())["test_perplexity"]
    process = processes.succeed("evaluate.py", run, "--split=test", "--json")
    assert json.loads(process.stdout)["perplexity"] == pytest.approx(reached, rel=1e-6)
    process = processes.succeed("generate.py", run, "--length=5")
    assert len(process.stdout.split()) + process.stdout.count("\n") - 1 == 5
