"""The neural cache against brute force."""

import numpy as np
import pytest

from ptb.evaluation.cache import BLOCK, CacheSettings, cached_log_probabilities


def brute_force(log_probabilities, features, ids, settings):
    """Grave, Joulin & Usunier (2017), equations 2 and 3: one position after another."""
    reached, cached = [], []
    for position, target in enumerate(ids[1:]):
        p = np.exp(log_probabilities[position])
        recent = cached[-settings.size :]
        if recent:
            weights = [np.exp(settings.flatness * features[position] @ hidden) for hidden, _ in recent]
            hits = sum(weight for weight, (_, word) in zip(weights, recent) if word == target)
            p = (1 - settings.weight) * p + settings.weight * hits / sum(weights)
        reached.append(np.log(p))
        cached.append((features[position], target))
    return np.array(reached)


@pytest.mark.parametrize("settings", [CacheSettings(), CacheSettings(0.3, 0.5, 7), CacheSettings(0.02, 3.0, BLOCK + 20)])
def test_it_equals_brute_force_across_blocks(settings):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 9, 2 * BLOCK + 50)
    features = rng.normal(size=(len(ids) - 1, 4))
    log_probabilities = np.log(rng.uniform(0.01, 0.5, len(ids) - 1))
    expected = brute_force(log_probabilities, features, ids, settings)
    reached = cached_log_probabilities(log_probabilities, features, ids, settings)
    assert reached.shape == (len(ids) - 1,)
    np.testing.assert_allclose(reached, expected, rtol=1e-9)
    assert np.abs(reached - log_probabilities).max() > 0.01


def test_similarities_too_large_for_exp():
    ids, features = np.array([1, 2, 1, 2, 1, 2]), np.full((5, 1), 1e3, np.float32)
    reached = cached_log_probabilities(np.log(np.full(5, 0.1)), features, ids, CacheSettings(weight=0.5))
    # Words 2, 1, 2, 1, 2 come next: all that are cached have one weight.
    np.testing.assert_allclose(np.exp(reached), [0.1, *(0.05 + 0.5 * np.array([0, 1 / 2, 1 / 3, 2 / 4]))], rtol=1e-6)


def test_a_cache_of_weight_zero_changes_nothing():
    rng = np.random.default_rng(1)
    log_probabilities = np.log(rng.uniform(0.01, 0.5, 30)).astype(np.float32)
    reached = cached_log_probabilities(log_probabilities, rng.normal(size=(30, 4)), np.arange(31), CacheSettings(weight=0.0))
    np.testing.assert_allclose(reached, log_probabilities, rtol=1e-6)
