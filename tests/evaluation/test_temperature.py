"""Temperature scaling: the factor of the logits that is best on a text, and the run that keeps it."""

import numpy as np
import pytest

import ptb
import train
from configs import TEST
from helpers import oracle, run_files
from helpers.texts import raises_one_line
from helpers.training_runs import StopAt
from ptb.config import ConfigError, Model, override
from ptb.evaluation.temperature import best_inverse_temperature, make_tempered_step, scale_temperature, score_tempered
from ptb.model.language_model import LanguageModel
from ptb.runs.folder import RunFolder
from ptb.training.state import model_weights

VOCAB = 9
rng = np.random.default_rng(5)
TEXT = rng.integers(0, VOCAB, 61).astype(np.int32)
WINDOWS = [(TEXT[np.newaxis, start : start + 20], TEXT[np.newaxis, start + 1 : start + 21]) for start in (0, 20, 40)]
SCALED = override(TEST, {"layers": (12,), "num_epochs": 4, "temperature_scaling": True, "averaging": "two_tailed"})


def make_model(init_scale=0.5, **options):
    return LanguageModel(VOCAB, Model(layers=(6,), init_scale=init_scale, **options), dtype="float64", seed=3)


def logits_of(model):
    """Return the logits of the text from NumPy, `[60, vocab]`."""
    return oracle.log_probabilities(oracle.weights_of(model), TEXT[np.newaxis, :-1], model.architecture)[0]


def losses_of(logits):
    return -oracle.log_softmax(logits)[np.arange(len(logits)), TEXT[1:]]


def test_the_step_returns_the_loss_and_its_derivatives_by_a_further_factor():
    """Against central differences of NumPy's loss."""
    model = make_model()
    results = score_tempered(make_tempered_step(model), model, WINDOWS, 0.8)[0]
    logits, h = 0.8 * logits_of(model), 1e-4
    below, at, above = (losses_of(factor * logits) for factor in (1 - h, 1, 1 + h))
    np.testing.assert_allclose(results[:, 0], at, rtol=1e-9)
    np.testing.assert_allclose(results[:, 1], (above - below) / (2 * h), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(results[:, 2], (above - 2 * at + below) / h**2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sharpness", [-0.3, 0.05, 0.7, 1.0, 3.0, 20.0])
def test_the_factor_is_the_best_of_all_of_two_digits(sharpness):
    """The logits are log p of the text's own word counts, and noise, so that the best factor depends on the sharpness."""
    counts = np.log(np.bincount(TEXT[1:], minlength=VOCAB) + 0.1)
    logits = sharpness * np.tile(counts, (60, 1)) + rng.normal(size=(60, VOCAB)) / 10
    passes = []

    def score(factor):
        p = np.exp(oracle.log_softmax(factor * logits))
        mean = (p * factor * logits).sum(-1)
        slope = mean - factor * logits[np.arange(60), TEXT[1:]]
        variance = (p * (factor * logits) ** 2).sum(-1) - mean**2
        return np.stack([losses_of(factor * logits), slope, variance], -1)[np.newaxis]

    factor, best = best_inverse_temperature(score, lambda factor, score: passes.append((factor, score)))
    grid = [round(0.01 * step, 2) for step in range(1, 2001)]
    losses = [losses_of(value * logits).sum() for value in grid]
    assert best.loss == min(score.loss for _, score in passes)
    assert best.loss == pytest.approx(losses_of(factor * logits).sum(), rel=1e-12)
    assert best.loss <= min(losses) * (1 + 1e-4)
    assert passes[0][0] == 1
    assert len(passes) <= (12 if sharpness < 0.5 else 7)


def test_scores_that_are_not_finite_end_the_search():
    factor, score = best_inverse_temperature(lambda factor: np.full((1, 5, 3), np.nan))
    assert factor == 1
    assert np.isnan(score.loss)


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
    factor, score = scale_temperature(model, lambda: WINDOWS)
    assert 0.2 < factor < 0.8
    assert score.loss == pytest.approx(losses_of(logits_of(model)).sum(), rel=1e-9)
    assert scale_temperature(model, lambda: WINDOWS)[0] == pytest.approx(1, abs=0.011)


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


def test_a_finished_run_can_be_scaled_afterwards(run, random_corpus, tmp_path, monkeypatch):
    """Also if it is stopped while the factor is sought."""
    folder, changed = tmp_path / "run", {"precision": "float32", "resume_with_changes": True}
    plain = train.train(override(SCALED, {"temperature_scaling": False}), random_corpus, folder, precision="float32")
    assert "inverse_temperature" not in plain
    stop = StopAt(1)
    stop.__class__ = type("Stop", (StopAt,), {"__enter__": lambda self: self, "__exit__": lambda *_: None})
    with monkeypatch.context() as patch:
        patch.setattr(train, "StopRequest", lambda **_: stop)
        with pytest.raises(SystemExit):
            train.train(SCALED, random_corpus, folder, **changed)
    unscaled, scaled = (ptb.load(path).model.softmax_weights.numpy() for path in (folder, run))
    np.testing.assert_array_equal(scaled, unscaled * np.float32(run_files.result(run)["inverse_temperature"]))
    result = train.train(SCALED, random_corpus, folder, precision="float32")
    assert result == run_files.result(run) | {name: result[name] for name in ("training_seconds", "precision")}


def test_a_run_that_begins_with_a_scaled_one_begins_with_its_trained_weights(run, random_corpus, tmp_path):
    config = override(SCALED, {"learning_rate": 1e-30, "num_epochs": 1})
    train.train(config, random_corpus, tmp_path / "new", init_from=run, precision="float32")
    new, old = (ptb.load(folder).read_weights() for folder in (tmp_path / "new", run))
    assert all(np.array_equal(new[name], old[name]) for name in old)


def test_a_damaged_result_is_written_again_with_the_same_factor(run, random_corpus):
    before = (run / "result.json").read_bytes()
    (run / "result.json").unlink()
    train.train(SCALED, random_corpus, run, precision="float32")
    assert (run / "result.json").read_bytes() == before


def test_a_change_to_a_model_that_cannot_be_scaled_is_one_line(tmp_path):
    with raises_one_line(ConfigError, "temperature_scaling", "projection"):
        override(TEST, {"temperature_scaling": True, "tied": True})
