"""evaluate.py --adapt: what it prints and keeps, and how a stopped search goes on."""

import json

import pytest

import evaluate
import ptb
from helpers import in_process
from helpers.evaluated import CONFIG, perplexity, records, words_of, write_run_on
from helpers.run_files import edit_json
from ptb.config import override
from ptb.evaluation import adapt


def test_the_scores_are_printed_if_the_settings_cannot_be_kept(tiny_corpus, tmp_path):
    run = write_run_on(tiny_corpus, tmp_path / "run")
    (run / "adapt-temperature.json").mkdir()  # cannot be replaced, even by an administrator
    done = in_process.succeed("evaluate.py", run, "--adapt=temperature", "--json")
    assert [json.loads(line)["split"] for line in done.stdout.splitlines()] == ["valid", "test"]
    assert done.stderr.count(str(run / "adapt-temperature.json")) == 1
    assert done.stderr.count(" on valid: ") > 2


@pytest.mark.parametrize(
    ("method", "settings"),
    [("temperature", {"inverse_temperature"}), ("cache", {"weight", "flatness"}), ("mc_dropout", {"passes"})],
)
def test_each_method_scores_valid_and_test_and_keeps_what_it_found(method, settings, tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(adapt, "DROPOUT_PASSES", 2)
    run = write_run_on(tiny_corpus, tmp_path / "run", override(CONFIG, {"init_scale": 2.0, "dropout": 0.5}))
    scored = records(run, f"--adapt={method}")
    kept = json.loads((run / f"adapt-{method}.json").read_text())
    assert [(record["split"], record["tokens"]) for record in scored] == [("valid", 12 * 11 - 1), ("test", 13 * 11 - 1)]
    assert {record["split"]: record["perplexity"] for record in scored} == kept["perplexity"]
    assert set(kept["settings"]) == settings and all(record["settings"] == kept["settings"] for record in scored)
    static = perplexity(run, words_of(tiny_corpus / "valid.txt"))
    assert abs(kept["perplexity"]["valid"] - static) > 1e-3 * static
    assert method == "mc_dropout" or kept["perplexity"]["valid"] < static


def test_trials_of_other_logits_are_not_reused(tiny_corpus, tmp_path, caplog, monkeypatch):
    lm = ptb.load(write_run_on(tiny_corpus, tmp_path / "run"))

    def new_trials():
        caplog.clear()
        list(evaluate.score_adaptively(lm, "cache"))
        return len(caplog.messages)

    count = new_trials()
    assert count > 1
    assert new_trials() == 0
    monkeypatch.setattr(type(lm), "inverse_temperature", 0.9)  # as after temperature_scaling
    assert new_trials() == count


@pytest.mark.slow
def test_a_search_for_settings_goes_on_with_the_trials_of_the_same_weights_and_texts(folder_to_damage, monkeypatch):
    run = folder_to_damage / "run"
    shorter = {"learning_rate": (5e-5, 1e-4, 1.5e-4), "weight": (0.05,), "flatness": (0.3, 0.5, 1.0)}
    monkeypatch.setattr(adapt, "GRIDS", adapt.GRIDS | shorter)

    def adapted(method, *options):
        """Return the perplexities, the trials that were printed and those that were kept, and the settings."""
        command = (run, f"--adapt={method}", f"--data_path={folder_to_damage / 'data'}", "--json", *options)
        done = in_process.succeed("evaluate.py", *command, cwd=folder_to_damage)
        kept = json.loads((run / f"adapt-{method}.json").read_text())
        perplexities = [json.loads(line)["perplexity"] for line in done.stdout.splitlines()]
        return perplexities, done.stderr.count(" on valid: "), kept["trials"], kept["settings"]

    perplexities, printed, trials, settings = adapted("dynamic")
    assert printed == len(trials) >= 4
    edit_json(run / "adapt-dynamic.json", lambda kept: {"of": kept["of"], "trials": kept["trials"][:2]})  # as if stopped
    assert adapted("dynamic") == (perplexities, len(trials) - 2, trials, settings)
    _, printed, both, chosen = adapted("dynamic_cache")
    assert printed == len(both) - len(trials) >= 2
    assert both[: len(trials)] == trials
    assert chosen.items() >= settings.items()
    (run / "adapt-dynamic.json").write_text("{")
    edit_json(run / "adapt-dynamic_cache.json", lambda kept: kept | {"of": kept["of"] | {"step": 0}})  # of other weights
    assert adapted("dynamic_cache")[1] == len(both)
    assert adapted("dynamic_cache", "--checkpoint=last")[1] == len(both)  # averages and last weights may be of one step
    assert adapted("dynamic_cache")[1] == 0  # nothing of the search before is lost
    assert len(list(run.glob("adapt-dynamic_cache*.json"))) == 3  # of step 0, of the last weights, of the best ones
