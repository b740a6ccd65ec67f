"""Temperature, Monte Carlo dropout, cache and dynamic evaluation of a trained model, and the choice of settings on valid."""

import numpy as np
import pytest

from helpers import oracle
from helpers.texts import raises_one_line
from ptb.config import ConfigError, Dropout, Model
from ptb.evaluation import adapt
from ptb.evaluation.adapt import METHODS, Adapter
from ptb.evaluation.cache import CacheSettings, cached_log_probabilities
from ptb.evaluation.dynamic import DynamicSettings, gradient_statistics, make_dynamic_score
from ptb.model.language_model import LanguageModel

VOCAB = 12
rng = np.random.default_rng(0)
TRAIN = rng.integers(0, VOCAB, 1300).astype(np.int32)
VALID, TEST = (rng.integers(0, VOCAB, 26).astype(np.int32) for _ in range(2))


DROPOUT = Dropout(input=0.3, hidden=0.3, output=0.3, state=0.2)


def make_adapter(dropout=DROPOUT, **options):
    architecture = Model(layers=(5,), init_scale=0.9, **options)
    model = LanguageModel(VOCAB, architecture, dropout, dtype="float64")
    return Adapter(model, TRAIN, num_steps=10)


@pytest.fixture(scope="module")
def adapter():
    return make_adapter()


@pytest.fixture(autouse=True)
def small_grids(monkeypatch):
    grids = {"learning_rate": (1e-4, 1e-3, 1e-2), "decay": (1e-3, 2e-3, 1e-2), "weight": (0.05, 0.2), "flatness": (0.1, 0.5)}
    monkeypatch.setattr(adapt, "GRIDS", grids)
    monkeypatch.setattr(adapt, "FIRST_DYNAMIC", {"learning_rate": 1e-4, "decay": 2e-3})


def log_p(model, ids):
    """Return log p of every word `[N - 1, vocab]` from NumPy."""
    return oracle.log_probabilities(oracle.weights_of(model), ids[np.newaxis, :-1], model.architecture)[0]


def of_targets(log_p, ids):
    return log_p[np.arange(len(ids) - 1), ids[1:]]


@pytest.mark.parametrize("options", [{}, {"mixture": 2, "tied": True}], ids=["softmax", "mixture"])
@pytest.mark.parametrize("factor", [1.0, 0.8])
def test_the_inverse_temperature_multiplies_the_logits(factor, options):
    adapter = make_adapter(**options)
    expected = of_targets(oracle.log_softmax(factor * log_p(adapter.model, TEST)), TEST)
    np.testing.assert_allclose(adapter.score("temperature", TEST, {"inverse_temperature": factor}), expected, rtol=1e-9)


def test_monte_carlo_dropout_is_the_log_of_the_mean_probability_of_passes_with_masks_of_their_own(adapter):
    model = adapter.model
    passes = []
    for number in range(3):
        logits, _ = model(TEST[np.newaxis, :-1], model.initial_state(1), training=True, dropout_seed=[number, 0])
        passes.append(np.exp(of_targets(oracle.log_softmax(logits.numpy()[0]), TEST)))
    assert np.std(passes, axis=0).min() > 0
    expected = np.log(np.mean(passes, axis=0))
    np.testing.assert_allclose(adapter.score("mc_dropout", TEST, {"passes": 3}), expected, rtol=1e-9)


@pytest.mark.parametrize("locked", [False, True])
def test_monte_carlo_dropout_needs_dropout(locked):
    with raises_one_line(ConfigError, "dropout", "mc_dropout"):
        make_adapter(Dropout(locked=locked)).tune("mc_dropout", VALID)
    assert make_adapter(Dropout(weights=0.1, locked=locked)).tune("mc_dropout", VALID)


def test_the_cache_reads_the_outputs_of_the_last_layer(adapter):
    model = adapter.model
    outputs, _ = model.outputs(TEST[np.newaxis, :-1], model.initial_state(1))
    settings = {"weight": 0.2, "flatness": 0.5}
    expected = cached_log_probabilities(
        of_targets(log_p(model, TEST), TEST), outputs.layers[-1].numpy()[:, 0], TEST, CacheSettings(0.2, 0.5)
    )
    np.testing.assert_allclose(adapter.score("cache", TEST, settings), expected, rtol=1e-9)


@pytest.mark.slow
def test_dynamic_evaluation_has_rates_per_five_tokens_and_the_cache_comes_on_top(adapter):
    model = adapter.model
    score = make_dynamic_score(model, gradient_statistics(model, TRAIN))
    settings = {"learning_rate": 1e-3, "decay": 5e-3}
    expected, features = score(TEST, DynamicSettings(learning_rate=2e-3, decay=1e-2, num_steps=10))
    np.testing.assert_allclose(adapter.score("dynamic", TEST, settings), expected, rtol=1e-9)
    both = adapter.score("dynamic_cache", TEST, settings | {"weight": 0.2, "flatness": 0.5})
    np.testing.assert_allclose(both, cached_log_probabilities(expected, features, TEST, CacheSettings(0.2, 0.5)), rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_the_settings_are_the_best_of_the_trials_on_valid(adapter, method):
    trials = []
    settings = adapter.tune(method, VALID, trials.append)
    if method == "mc_dropout":
        assert settings == {"passes": adapt.DROPOUT_PASSES}
        assert not trials
        return
    best = min(trials, key=lambda trial: trial["valid_perplexity"])
    expected = np.exp(-np.mean(adapter.score(method, VALID, settings), dtype=np.float64))
    assert best["valid_perplexity"] == pytest.approx(expected, rel=1e-9)
    assert len({trial["valid_perplexity"] for trial in trials}) > 2
    assert settings.items() >= {name: value for name, value in best.items() if name != "valid_perplexity"}.items()


def test_the_rates_that_are_tried(adapter, monkeypatch):
    """From the first settings on, a rate goes to the next value while that is better, up and then down; no setting twice."""
    monkeypatch.setattr(adapter, "_dynamic", lambda ids, s: (-np.full(9, abs(s["learning_rate"] - 1e-2) + s["decay"]), None))
    trials = []
    assert adapter.tune("dynamic", VALID, trials.append) == {"learning_rate": 1e-2, "decay": 1e-3}
    tried = [(trial["learning_rate"], trial["decay"]) for trial in trials]
    assert sorted(tried[:2]) == [(1e-4, 2e-3), (1e-3, 2e-3)]
    assert tried[2:] == [(1e-2, 2e-3), (1e-2, 1e-2), (1e-2, 1e-3), (1e-3, 1e-3)]
    assert adapter.tune("dynamic", VALID, trials.append, known=trials[:3]) == {"learning_rate": 1e-2, "decay": 1e-3}
    assert trials[6:] == trials[3:6]


def test_the_cache_settings_that_are_tried_end_between_worse_neighbours(adapter, monkeypatch):
    """The best value of each setting depends on the other one, so that one turn of each does not find them."""
    monkeypatch.setattr(adapt, "GRIDS", {"weight": (0.02, 0.05, 0.1, 0.2), "flatness": (0.25, 0.5, 1.0, 2.0)})

    def log_probabilities(scored, features, ids, settings):
        weight, flatness = np.log2(settings.weight / 0.05), np.log2(settings.flatness / 0.5)
        return -np.full(9, (weight - flatness) ** 2 / 2 + (flatness - 2) ** 2)

    monkeypatch.setattr(adapt, "cached_log_probabilities", log_probabilities)
    trials = []
    assert adapter.tune("cache", VALID, trials.append) == {"weight": 0.2, "flatness": 2.0}
    tried = [(trial["weight"], trial["flatness"]) for trial in trials]
    assert len(set(tried)) == len(tried)
    assert {(0.1, 2.0), (0.2, 1.0)} <= set(tried)


def test_a_rate_that_diverges_is_none_and_not_chosen(adapter, monkeypatch):
    """NaN at the highest rate, whether it is computed or known."""

    def dynamic(ids, settings):
        rate = settings["learning_rate"]
        return np.full(9, np.nan if rate > 5e-3 else rate - settings["decay"]), None

    monkeypatch.setattr(adapter, "_dynamic", dynamic)
    trials = []
    for known in ([], trials):
        settings = adapter.tune("dynamic", VALID, trials.append, known)
        assert settings["learning_rate"] == 1e-3
    (diverged,) = {trial["valid_perplexity"] for trial in trials if trial["learning_rate"] > 5e-3}
    assert diverged is None
