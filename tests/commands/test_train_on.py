"""Training on: more epochs or another rate in a run, new runs that begin with the weights of another, and the best weights."""

import json
import shutil

import numpy as np
import pytest

import ptb
import train
from configs import TEST
from helpers import in_process, run_files
from helpers.run_files import assert_same_run, curve, history, write_run
from helpers.texts import raises_one_line, write_files
from helpers.training_runs import StopAt
from ptb.config import ConfigError, override
from ptb.data.corpus import build_corpus
from ptb.data.files import SPLITS
from ptb.evaluation.score import Score
from ptb.runs.folder import RunFolder, identity
from ptb.runs.storage import RunError
from ptb.runs.tensorboard import LEARNING_RATE

BASE = override(TEST, {"layers": (8,), "num_epochs": 2, "learning_rate": 0.5})  # 14 steps an epoch
MORE = override(BASE, {"num_epochs": 4})


def stopped(config, corpus, folder, monkeypatch, count, **options):
    """Train until `count` questions for a stop have been asked; the end of the training comes before for a large count."""
    with monkeypatch.context() as patch:
        patch.setattr(train, "StopRequest", lambda **_: StopAt(count))
        with pytest.raises(SystemExit):
            train.train(config, corpus, folder, precision="float32", **options)


def go_on(config, corpus, folder, **options):
    return train.train(config, corpus, folder, precision="float32", resume_with_changes=True, **options)


@pytest.fixture(scope="module")
def unbroken(random_corpus, tmp_path_factory):
    """A run of four epochs at once."""
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    train.train(MORE, random_corpus, folder, precision="float32")
    return folder


@pytest.mark.parametrize("steps", [5, pytest.param(100, marks=pytest.mark.slow)])  # within an epoch, after the end of training
def test_a_run_that_goes_on_for_more_epochs_and_is_stopped_again_ends_like_an_unbroken_one(
    steps, random_corpus, unbroken, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    if steps == 100:
        train.train(BASE, random_corpus, folder, precision="float32")
        score = run_files.result(folder)
    else:
        stopped(BASE, random_corpus, folder, monkeypatch, steps)
    step = RunFolder(folder).checkpoints.load().step
    with raises_one_line(RunError, folder, "num_epochs", "--resume_with_changes"):
        train.train(MORE, random_corpus, folder, precision="float32")
    stopped(MORE, random_corpus, folder, monkeypatch, 31, resume_with_changes=True)
    train.train(MORE, random_corpus, folder, precision="float32")  # the change is the run's own from now on
    change = {"step": step, "field": "num_epochs", "from": 2, "to": 4}
    assert RunFolder(folder).record["changes"] == [change]
    records = history(folder)
    assert [record.pop("changes", None) for record in records] == [[change] if i == step // 14 else None for i in range(4)]
    assert records == history(unbroken)
    (folder / "history.jsonl").write_text((unbroken / "history.jsonl").read_text())
    assert_same_run(folder, unbroken)
    if steps == 100:
        assert json.loads((folder / f"result-{step}.json").read_text()) == score
    assert ptb.load(folder).config == MORE
    with raises_one_line(RunError, "num_epochs", "--resume_with_changes"):
        train.train(BASE, random_corpus, folder, precision="float32")


def test_every_result_of_a_run_that_finishes_again_is_kept(random_corpus, tmp_path):
    results = [train.train(BASE, random_corpus, tmp_path, precision="float32")]
    for keep_best in (True, False, True):
        results.append(go_on(override(BASE, {"keep_best": keep_best}), random_corpus, tmp_path))
    names = [f"result{ending}.json" for ending in ("-28", "-28-2", "-28-3", "")]
    assert [json.loads((tmp_path / name).read_text()) for name in names] == results
    assert "best_step" in results[1]


def test_another_rate_holds_from_the_step_of_the_change(random_corpus, tmp_path, monkeypatch):
    changed = override(BASE, {"learning_rate": 0.25, "schedule": "Plateau", "dropout.output": 0.5})
    stopped(BASE, random_corpus, tmp_path, monkeypatch, 5)
    go_on(changed, random_corpus, tmp_path)
    assert [record["learning_rate"] for record in history(tmp_path)] == [0.25, 0.25]
    rates = dict(curve(tmp_path, LEARNING_RATE))
    assert all(rate == (0.5 if step <= 6 else 0.25) for step, rate in rates.items())
    assert {change["field"] for change in RunFolder(tmp_path).record["changes"]} >= {"schedule", "optimizer.learning_rate"}
    assert ptb.load(tmp_path).model


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": (9,)},
        {"batch_size": 10},
        {"num_steps": 3},
        {"optimizer": "Adam"},
        {"averaging": "nt_asgd"},
        {"level": "char"},
    ],
)
def test_what_cannot_change_in_a_run_is_rejected_by_name(changes, random_corpus, unbroken):
    (name,) = changes
    with raises_one_line(RunError, unbroken, name, "--save_path"):
        go_on(override(MORE, changes), random_corpus, unbroken)


@pytest.mark.parametrize(("changes", "named"), [({"learning_rate": 0.1}, "num_epochs=5"), ({"num_epochs": 3}, "use 4")])
def test_changes_that_come_too_late_are_rejected(changes, named, random_corpus, unbroken):
    before = (unbroken / "config.json").read_bytes()
    with raises_one_line(RunError, unbroken, named):
        go_on(override(MORE, changes), random_corpus, unbroken)
    assert (unbroken / "config.json").read_bytes() == before
    assert run_files.result(unbroken)


@pytest.mark.slow
def test_a_run_out_of_patience_needs_more_of_it(random_corpus, tmp_path):
    patient = override(BASE, {"num_epochs": 40, "patience": 2, "learning_rate": 1.5})
    train.train(patient, random_corpus, tmp_path, precision="float32")
    done = len(history(tmp_path))
    assert done < 40
    with raises_one_line(RunError, tmp_path, "--set patience"):
        go_on(override(patient, {"num_epochs": 50}), random_corpus, tmp_path)
    go_on(override(patient, {"patience": 3}), random_corpus, tmp_path)
    assert len(history(tmp_path)) > done


def test_the_command_goes_on_with_a_finished_run_and_names_what_changed(folder_to_damage):
    arguments = ("--model=test", "--data_path=data", "--save_path=run", "--set=num_epochs=2", "--resume_with_changes")
    done = in_process.succeed("train.py", *arguments, cwd=folder_to_damage)
    assert [record["epoch"] for record in history(folder_to_damage / "run")] == [1, 2]
    assert "num_epochs" in done.stdout
    assert [path.name for path in (folder_to_damage / "run").glob("result-*.json")]


def test_changes_need_a_run(random_corpus, tmp_path):
    with raises_one_line(RunError, tmp_path / "none", "--save_path"):
        go_on(BASE, random_corpus, tmp_path / "none")
    done = in_process.call("train.py", "--model=test", "--set=num_epochs=2", "--resume_with_changes", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--save_path" in done.stderr


# The best weights


OVERFITTING = override(BASE, {"layers": (24,), "num_epochs": 26, "num_steps": 10, "learning_rate": 1.0, "schedule.factor": 1})


@pytest.fixture(scope="module")
def overfitted(random_corpus, tmp_path_factory):
    """The folder of a run whose last weights are worse than earlier ones."""
    folder = tmp_path_factory.mktemp("runs") / "overfitted"
    train.train(OVERFITTING, random_corpus, folder, precision="float32")
    return folder


def valid_perplexity(lm, corpus):
    return Score(-float(lm.log_probabilities(corpus.valid).sum()), len(corpus.valid) - 1).perplexity


def test_the_best_weights_are_kept_beside_the_last_and_opened_by_default(overfitted, random_corpus):
    perplexities = [record["valid_perplexity"] for record in history(overfitted)]
    best = perplexities.index(min(perplexities)) + 1
    assert best < len(perplexities)
    steps = len(train.make_windows(random_corpus, OVERFITTING)[0])
    chosen, last = ptb.load(overfitted), ptb.load(overfitted, checkpoint="last")
    assert valid_perplexity(chosen, random_corpus) < valid_perplexity(last, random_corpus)
    assert (chosen.weights.step, last.weights.step) == (best * steps, len(perplexities) * steps)
    assert (chosen.weights.last_step, last.weights.best_step) == (last.weights.step, chosen.weights.step)
    weights = run_files.weights(overfitted)
    for variable in last.model.trainable_variables:
        np.testing.assert_array_equal(variable, weights[f"weights/{variable.path}"])
    with pytest.raises(ConfigError):
        ptb.load(overfitted, checkpoint="newest")


def test_the_result_is_of_the_last_weights_unless_the_configuration_keeps_the_best(overfitted, random_corpus, tmp_path, capsys):
    result = run_files.result(overfitted)
    assert result["valid_perplexity"] == history(overfitted)[-1]["valid_perplexity"]
    assert "best_step" not in result
    folder = shutil.copytree(overfitted, tmp_path / "copy")
    kept = go_on(override(OVERFITTING, {"keep_best": True}), random_corpus, folder)  # trains nothing
    assert kept["best_step"] == best_step_of(overfitted)
    assert kept["valid_perplexity"] == min(record["valid_perplexity"] for record in history(overfitted))
    assert kept["test_perplexity"] != result["test_perplexity"]
    assert history(folder) == history(overfitted)


def test_a_run_that_overfits_says_so_and_what_to_type(overfitted, random_corpus, tmp_path, capsys):
    folder = shutil.copytree(overfitted, tmp_path / "copy")
    (folder / "result.json").unlink()
    train.train(OVERFITTING, random_corpus, folder, precision="float32")
    line = capsys.readouterr().out.splitlines()[-1]
    best = min(history(folder), key=lambda record: record["valid_perplexity"])
    for fact in (f"epoch {best['epoch']} ", f"{best['valid_perplexity']:.3f}", "evaluate.py", folder, "keep_best"):
        assert str(fact) in line


def test_evaluate_names_the_weights_if_the_others_differ(overfitted, random_corpus, tmp_path):
    data = as_files(random_corpus, tmp_path)
    printed = {}
    for choice, other in (("best", "last"), ("last", "best")):
        done = in_process.succeed("evaluate.py", overfitted, f"--data_path={data}", f"--checkpoint={choice}")
        (line,) = done.stderr.splitlines()
        assert str(overfitted) in line and f"--checkpoint={other}" in line
        printed[choice] = done.stdout
    assert printed["best"] != printed["last"]


def test_commands_write_and_score_sentences_with_the_weights_that_are_asked_for(overfitted):
    printed = {}
    for choice, other in (("best", "last"), ("last", "best")):
        done = in_process.succeed("generate.py", overfitted, f"--checkpoint={choice}", "--prompt=a", "--top=3")
        expected = ptb.load(overfitted, checkpoint=choice).next_words("a", 3)
        shown = [line.split() for line in done.stdout.splitlines()]
        assert [(word, float(p)) for p, word in shown] == [(word, pytest.approx(p, abs=1e-6)) for word, p in expected]
        scored = in_process.succeed("evaluate.py", overfitted, "--stdin", f"--checkpoint={choice}", stdin="a b\n")
        (line,) = scored.stderr.splitlines()
        assert str(overfitted) in line and f"--checkpoint={other}" in line
        printed[choice] = done.stdout, scored.stdout
    assert all(best != last for best, last in zip(*printed.values()))


def test_best_weights_that_are_lost_cost_a_warning_and_no_more(overfitted, tmp_path, caplog):
    folder = shutil.copytree(overfitted, tmp_path / "copy")
    best = folder / f"checkpoint-{best_step_of(folder):09d}.npz"
    best.write_bytes(b"damaged")
    lm = ptb.load(folder)
    assert lm.weights.step == lm.weights.last_step and not lm.weights.are_best
    assert best.name in caplog.text


def test_the_temperature_of_the_best_weights_is_not_that_of_the_last(overfitted, random_corpus, tmp_path):
    folder = shutil.copytree(overfitted, tmp_path / "copy")
    result = go_on(override(OVERFITTING, {"keep_best": True, "temperature_scaling": True}), random_corpus, folder)
    assert ptb.load(folder).inverse_temperature == result["inverse_temperature"] != 1
    (folder / f"checkpoint-{best_step_of(folder):09d}.npz").write_bytes(b"damaged")
    lm = ptb.load(folder)
    last = run_files.weights(folder)
    for variable in lm.model.trainable_variables:
        np.testing.assert_array_equal(variable, last[f"weights/{variable.path}"])
    assert lm.inverse_temperature == 1


def test_evaluate_names_averages_although_the_last_weights_are_of_the_same_step(random_corpus, tmp_path):
    folder = tmp_path / "run"
    train.train(override(BASE, {"averaging": "two_tailed", "num_epochs": 1}), random_corpus, folder, precision="float32")
    data = as_files(random_corpus, tmp_path / "data")
    printed = {}
    for choice, other in (("best", "last"), ("last", "best")):
        done = in_process.succeed("evaluate.py", folder, f"--data_path={data}", f"--checkpoint={choice}")
        (line,) = done.stderr.splitlines()
        assert "averaged" in line and f"--checkpoint={other}" in line
        printed[choice] = done.stdout
    assert best_step_of(folder) == ptb.load(folder).run.checkpoints.load().step
    assert printed["best"] != printed["last"]


def as_files(corpus, folder):
    words = {split: [corpus.vocabulary.words[token] for token in getattr(corpus, split)] for split in SPLITS}
    return write_files(folder, {f"{split}.txt": " ".join(words[split]).replace(" <eos>", "\n") for split in SPLITS})


def best_step_of(folder):
    return ptb.load(folder).weights.best_step


def test_a_run_that_ends_worse_than_guessing_fails_and_is_not_finished(tiny_corpus, tmp_path):
    command = (
        "train.py",
        "--model=test",
        f"--data_path={tiny_corpus}",
        f"--save_path={tmp_path / 'run'}",
        "--precision=float32",
    )
    command += ("--set=learning_rate=10", "--set=layers=8")
    for _ in range(2):
        done = in_process.call(*command)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert str(tmp_path / "run") in done.stderr and "learning_rate" in done.stderr
        assert "finished" not in done.stdout + done.stderr
    assert not (tmp_path / "run" / "result.json").exists()


# The weights of another run


def lines_of(words, count, seed):
    return [" ".join(np.random.default_rng(seed + i).choice(words, 9)) for i in range(count)]


@pytest.mark.parametrize(
    ("changes", "new_words", "grown"), [({}, ["x", "y"], 3), ({"tied": True}, ["x"], 2), ({"one_hot_input": True}, ["x"], 3)]
)
def test_a_new_run_begins_with_the_weights_and_ids_of_another(changes, new_words, grown, tmp_path):
    """`grown` is the number of weights that have a row for each word."""
    config, old = override(BASE, {"num_epochs": 1, "learning_rate": 1e-9} | changes), tmp_path / "old"
    write_run(old, config, ["<eos>", *"abcd"], seed=7)
    lm = ptb.load(old)
    texts = [lines_of(["b", "c", "d", *new_words], 30, seed) for seed in (0, 100, 200)]
    with raises_one_line(RunError, old, "vocabulary"):
        train.train(config, build_corpus(*texts), tmp_path / "new", init_from=old)
    corpus = build_corpus(*texts, vocabulary=lm.vocabulary.extended(["a", *new_words]))
    result = train.train(config, corpus, tmp_path / "new", precision="float32", init_from=old)
    assert RunFolder(tmp_path / "new").record["init_from"] == {
        **{"run": str(old), "step": 0, "new_words": len(new_words)},
        "digest": identity(lm.record, lm.vocabulary),
    }
    new = ptb.load(tmp_path / "new")
    assert new.vocabulary.words == ("<eos>", *"abcd", *new_words)
    for before, after in zip(lm.model.get_weights(), new.model.get_weights(), strict=True):
        np.testing.assert_allclose(after[: len(before)], before, atol=1e-6)
        if len(after) > len(before):
            grown -= 1
            assert after.ndim == 1 or after[len(before) :].all()  # started at random; a bias at 0
    assert grown == 0
    assert train.train(config, corpus, tmp_path / "new", precision="float32", init_from=old) == result


def test_a_run_goes_on_where_the_folder_has_moved_together_with_the_run_of_its_weights(tmp_path, random_corpus, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = random_corpus.vocabulary.words
    write_run(tmp_path / "runs" / "old", BASE, words, seed=7)
    stopped(BASE, random_corpus, "runs/new", monkeypatch, 5, init_from="runs/old")
    (tmp_path / "runs").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    train.train(BASE, random_corpus, "new", precision="float32", init_from="old")
    shutil.rmtree("old")
    write_run(tmp_path / "moved" / "old", BASE, words, corpus="another")
    with raises_one_line(RunError, "new", "init_from"):
        train.train(BASE, random_corpus, "new", precision="float32", init_from="old")


def test_weights_of_another_architecture_are_rejected(unbroken, random_corpus, tmp_path):
    with raises_one_line(RunError, unbroken, "model.layers"):
        train.train(override(BASE, {"layers": (9,)}), random_corpus, tmp_path / "b", init_from=unbroken)
    assert not (tmp_path / "b").exists()


def test_the_command_fine_tunes_on_another_text(tmp_path):
    data = write_files(
        tmp_path / "data",
        {f"{split}.txt": "".join(f"{line}\n" for line in lines_of(list("abcd"), 60, n)) for n, split in enumerate(SPLITS)},
    )
    other = write_files(
        tmp_path / "other",
        {f"{split}.txt": "".join(f"{line}\n" for line in lines_of(list("cdef"), 60, n + 9)) for n, split in enumerate(SPLITS)},
    )
    in_process.succeed("train.py", "--model=test", f"--data_path={data}", "--set=layers=4", "--save_path=runs/a", cwd=tmp_path)
    command = ("train.py", "--init_from=runs/a", f"--data_path={other}", "--set=num_epochs=2")
    refused = in_process.call(*command, cwd=tmp_path)  # no <unk> for e and f
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "--extend_vocabulary" in refused.stderr
    done = in_process.succeed(*command, "--extend_vocabulary", cwd=tmp_path)
    assert "2 new words" in done.stdout
    folder = tmp_path / "runs" / "test-from-a-num_epochs=2-1"
    assert ptb.load(folder).config == override(ptb.load(tmp_path / "runs" / "a").config, {"num_epochs": 2})
    command = ("train.py", f"--init_from={tmp_path / 'runs' / 'a'}", *command[2:])  # the same run
    assert "finished" in in_process.succeed(*command, "--extend_vocabulary", cwd=tmp_path).stdout
