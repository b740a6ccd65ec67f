"""Temperature scaling: the factor of the logits that is best on a text, and the run that keeps it."""

import math
import shutil

import numpy as np
import pytest

import ptb
import train
from configs import TEST
from helpers import oracle, run_files
from helpers.texts import raises_one_line
from helpers.training_runs import StopAt
from ptb.config import ConfigError, Model, override
from ptb.evaluation import temperature
from ptb.evaluation.temperature import (
    LossDerivatives,
    best_inverse_temperature,
    make_tempered_step,
    scale_temperature,
    score_tempered,
)
from ptb.model.language_model import LanguageModel
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError
from ptb.training.state import model_weights

VOCAB = 9
TEXT = np.random.default_rng(5).integers(0, VOCAB, 61).astype(np.int32)
WINDOWS = [(TEXT[np.newaxis, start : start + 20], TEXT[np.newaxis, start + 1 : start + 21]) for start in (0, 20, 40)]
SCALED = override(TEST, {"layers": (12,), "num_epochs": 4, "temperature_scaling": True, "averaging": "two_tailed"})

SCORES = ("test_perplexity", "valid_perplexity", "inverse_temperature", "best_step")


def make_model(init_scale=0.5, **options):
    return LanguageModel(VOCAB, Model(layers=(6,), init_scale=init_scale, **options), dtype="float64", seed=3)


def logits_of(model):
    """Return the logits of the text from NumPy, `[60, vocab]`."""
    return oracle.log_probabilities(oracle.weights_of(model), TEXT[np.newaxis, :-1], model.architecture)[0]


def losses_of(logits):
    return -oracle.log_softmax(logits)[np.arange(len(logits)), TEXT[1:]]


@pytest.mark.parametrize("rows", [512, 7, 0])
def test_the_step_returns_the_loss_and_its_derivatives_by_a_further_factor(rows, monkeypatch):
    """Against central differences of NumPy's loss; also if the windows are cut."""
    monkeypatch.setattr(temperature, "ROWS", rows)
    model = make_model()
    results = score_tempered(make_tempered_step(model), model, WINDOWS, 0.8)[0]
    logits, h = 0.8 * logits_of(model), 1e-4
    below, at, above = (losses_of(factor * logits) for factor in (1 - h, 1, 1 + h))
    np.testing.assert_allclose(results[:, 0], at, rtol=1e-9)
    np.testing.assert_allclose(results[:, 1], (above - below) / (2 * h), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(results[:, 2], (above - 2 * at + below) / h**2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sharpness", [-0.3, 0.05, 0.7, 1.0, 3.0, 20.0])
def test_no_factor_of_two_digits_has_a_clearly_lower_loss(sharpness):
    """The logits are log p of the text's own word counts, and noise, so that the best factor depends on the sharpness."""
    counts = np.log(np.bincount(TEXT[1:], minlength=VOCAB) + 0.1)
    logits = sharpness * np.tile(counts, (60, 1)) + np.random.default_rng(6).normal(size=(60, VOCAB)) / 10

    def totals(factor):
        scaled = factor * logits
        p = np.exp(oracle.log_softmax(scaled))
        mean = (p * scaled).sum(-1)
        slopes, variances = mean - scaled[np.arange(60), TEXT[1:]], (p * scaled**2).sum(-1) - mean**2
        return LossDerivatives(losses_of(scaled).sum(), slopes.sum(), variances.sum())

    factor, losses = best_inverse_temperature(totals)
    assert losses[factor] == min(losses.values()) == pytest.approx(losses_of(factor * logits).sum(), rel=1e-12)
    assert losses[factor] <= min(losses_of(step / 100 * logits).sum() for step in range(1, 2001)) * (1 + 1e-4)
    assert 1 in losses
    assert len(losses) <= (12 if sharpness < 0.5 else 7)


@pytest.mark.parametrize(
    "totals", [LossDerivatives(*sums) for sums in ((math.nan, 1.0, 1.0), (math.inf, 1.0, 1.0), (9.0, 1.0, 0.0))]
)
def test_totals_that_say_nothing_end_the_search(totals):
    factor, losses = best_inverse_temperature(lambda factor: totals)
    assert (factor, [*losses]) == (1, [1])


def test_processes_that_round_differently_choose_the_same_factor():
    """The second process computes other numbers, from other targets; `agree` returns those of the first."""
    model = make_model()
    model.softmax_bias.assign(2 * np.log(np.bincount(TEXT[1:], minlength=VOCAB) + 0.1))
    weights = model.get_weights()
    numbers = []
    first = scale_temperature(model, lambda: WINDOWS, lambda number: numbers.append(number) or number)
    model.set_weights(weights)
    agreed = iter(numbers)
    second = scale_temperature(model, lambda: [(inputs, inputs) for inputs, _ in WINDOWS], lambda number: next(agreed))
    assert second == first
    assert next(agreed, None) is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tied": True, "projection": "linear", "embedding_size": 4},
        {"tied": True, "projection": "affine", "embedding_size": 4},
        {"projection": "affine", "embedding_size": 4},
    ],
)
def test_scaling_multiplies_the_logits_and_nothing_else(options):
    model = make_model(**options)
    before, (_, states) = logits_of(model), model(TEXT[np.newaxis, :-1], model.initial_state(1))
    model.scale_logits(0.7)
    after, scaled_states = model(TEXT[np.newaxis, :-1], model.initial_state(1))
    np.testing.assert_allclose(after[0] - after[0][:, :1], 0.7 * (before - before[:, :1]), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(states[0].hidden, scaled_states[0].hidden)


@pytest.mark.parametrize("options", [{"tied": True}, {"mixture": 2}, {"mixture": 2, "tied": True}])
def test_logits_that_no_weights_scale_are_an_error(options):
    model = make_model(**options)
    with pytest.raises(ValueError, match="scale_logits"):
        model.scale_logits(0.7)
    with pytest.raises(ConfigError, match="temperature_scaling"):
        override(TEST, {"layers": (6,), "temperature_scaling": True} | options)


def test_a_scaled_model_has_the_score_that_was_found_and_needs_no_further_factor():
    model = make_model()
    model.softmax_bias.assign(2 * np.log(np.bincount(TEXT[1:], minlength=VOCAB) + 0.1))
    unscaled = losses_of(logits_of(model)).sum()
    scaling = scale_temperature(model, lambda: WINDOWS)
    assert 0.2 < scaling.inverse_temperature < 0.8
    assert scaling.unscaled == (pytest.approx(unscaled, rel=1e-9), 60)
    assert scaling.score == (pytest.approx(losses_of(logits_of(model)).sum(), rel=1e-9), 60)
    assert scale_temperature(model, lambda: WINDOWS).inverse_temperature == pytest.approx(1, abs=0.011)


def weights_in(weights):
    (name,) = (name for name in weights if name.endswith("softmax_weights"))
    return weights[name]


@pytest.fixture(scope="module")
def run(random_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "scaled"
    train.train(SCALED, random_corpus, folder, precision="float32")
    return folder


def test_a_run_keeps_its_factor_and_its_checkpoints_are_those_of_the_training(run, random_corpus, tmp_path):
    result = run_files.result(run)
    assert result["inverse_temperature"] != 1
    assert result["valid_perplexity"] < min(record["valid_perplexity"] for record in run_files.history(run))
    lm = ptb.load(run)
    perplexity = np.exp(-np.mean(lm.log_probabilities(random_corpus.test), dtype=np.float64))
    assert perplexity == pytest.approx(result["test_perplexity"], rel=1e-6)
    plain = tmp_path / "plain"
    train.train(override(SCALED, {"temperature_scaling": False}), random_corpus, plain, precision="float32")
    raw, scaled = (model_weights(RunFolder(folder).checkpoints.load().arrays) for folder in (plain, run))
    assert raw.keys() == scaled.keys()
    assert all(np.array_equal(raw[name], scaled[name]) for name in raw)
    weights, raw = lm.model.softmax_weights.numpy(), ptb.load(plain).model.softmax_weights.numpy()
    np.testing.assert_array_equal(weights, raw * np.float32(result["inverse_temperature"]))


@pytest.mark.slow
def test_a_finished_run_can_be_scaled_afterwards(run, random_corpus, tmp_path, monkeypatch):
    """Also if it is stopped while the factor is sought."""
    folder, changed = tmp_path / "run", {"precision": "float32", "resume_with_changes": True}
    plain = train.train(override(SCALED, {"temperature_scaling": False}), random_corpus, folder, precision="float32")
    assert "inverse_temperature" not in plain
    with monkeypatch.context() as patch:
        patch.setattr(train, "StopRequest", lambda **_: StopAt(1))
        with pytest.raises(SystemExit):
            train.train(SCALED, random_corpus, folder, **changed)
    unscaled, scaled = (ptb.load(path).model.softmax_weights.numpy() for path in (folder, run))
    np.testing.assert_array_equal(scaled, unscaled * np.float32(run_files.result(run)["inverse_temperature"]))
    result = train.train(SCALED, random_corpus, folder, precision="float32")
    assert {name: result[name] for name in SCORES} == {name: run_files.result(run)[name] for name in SCORES}


def test_a_run_that_begins_with_a_scaled_one_begins_with_its_trained_weights(run, random_corpus, tmp_path):
    config = override(SCALED, {"learning_rate": 1e-30, "num_epochs": 1})
    train.train(config, random_corpus, tmp_path / "new", init_from=run, precision="float32")
    new, old = (ptb.load(folder).read_weights().arrays for folder in (tmp_path / "new", run))
    assert all(np.array_equal(new[name], old[name]) for name in old)


@pytest.mark.parametrize("damage", ["{", '{"test_perplexity": 9.0}', '{"test_perplexity": 9.0, "inverse_temperature": NaN}'])
def test_a_damaged_result_is_not_used_and_can_be_written_again(damage, run, random_corpus, tmp_path, caplog):
    folder = shutil.copytree(run, tmp_path / "run")
    before = run_files.result(folder)
    (folder / "result.json").write_text(damage)
    if damage == "{":
        assert ptb.load(folder).inverse_temperature == 1
        assert str(folder / "result.json") in caplog.text
    else:
        with raises_one_line(RunError, folder / "result.json", "remove it"):
            ptb.load(folder).log_probabilities(random_corpus.test)
        (folder / "result.json").unlink()
    again = train.train(SCALED, random_corpus, folder, precision="float32")
    assert {name: again[name] for name in SCORES} == {name: before[name] for name in SCORES}


def test_the_factor_is_for_the_best_weights_alone(run, random_corpus):
    last = ptb.load(run, checkpoint="last")
    np.testing.assert_array_equal(last.model.softmax_weights, weights_in(last.read_weights().arrays))
    with raises_one_line(ConfigError, "temperature_scaling", "keep_best"):
        override(SCALED, {"averaging": "none"})


@pytest.mark.slow
def test_runs_that_share_a_model_keep_their_own_factors(run, random_corpus, tmp_path):
    other = tmp_path / "other"
    train.train(SCALED, random_corpus, other, seed=2, precision="float32")
    alone = [ptb.load(folder).log_probabilities(random_corpus.test) for folder in (other, run)]
    first, second = ptb.load(other), ptb.load(run)
    np.testing.assert_array_equal(first.log_probabilities(random_corpus.test), alone[0])
    second.take_over(first)
    np.testing.assert_array_equal(second.log_probabilities(random_corpus.test), alone[1])


def test_a_scaled_run_that_is_worse_than_guessing_has_no_result(random_corpus, tmp_path):
    """A factor near 0 would make it as good as guessing."""
    config = override(SCALED, {"learning_rate": 10.0, "num_epochs": 1})
    with raises_one_line(RunError, tmp_path / "run", "valid", "guessing"):
        train.train(config, random_corpus, tmp_path / "run", precision="float32")
    assert not (tmp_path / "run" / "result.json").exists()
