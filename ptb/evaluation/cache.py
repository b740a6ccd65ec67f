"""The neural cache: recent words are likely to come again (Grave, Joulin & Usunier 2017).

Like dynamic evaluation it adapts to the text that it is scored on, so its numbers are not comparable with static ones.
"""

from typing import NamedTuple

import numpy as np

BLOCK = 500  # positions scored at once


class CacheSettings(NamedTuple):
    """Settings of the cache: tune them on the validation text."""

    weight: float = 0.1  # λ: of the cache's probabilities; the model's have 1 - λ
    flatness: float = 1.0  # θ: of the similarity of hidden states
    size: int = 500  # positions


def cached_log_probabilities(log_probabilities, features, ids, settings: CacheSettings = CacheSettings()) -> np.ndarray:
    """Return log((1 - λ) p(w) + λ p_cache(w)) for each token w of a text but the first, `[N - 1]`.

    p_cache(w) = Σ softmax_i(θ h_t · h_i) over the last `size` positions i < t whose next word was w. `log_probabilities [N -
    1]` are the model's, `features [N - 1, size]` its hidden states h, `ids [N]` the text.
    """
    targets, reached = ids[1:], np.empty(len(ids) - 1)
    for start in range(0, len(targets), BLOCK):
        queries = np.arange(start, min(start + BLOCK, len(targets)))
        keys = np.arange(max(0, start - settings.size), queries[-1])
        age = queries[:, np.newaxis] - keys
        scores = settings.flatness * (features[queries] @ features[keys].T).astype(np.float64)
        scores = np.where((age > 0) & (age <= settings.size), scores, -np.inf)
        highest = scores.max(axis=1, keepdims=True, initial=-1e300)
        similarities = np.exp(scores - highest)
        matches = targets[queries][:, np.newaxis] == targets[keys]
        totals = similarities.sum(axis=1)
        cached = np.divide((similarities * matches).sum(axis=1), totals, out=np.zeros(len(queries)), where=totals > 0)
        weights = np.where(totals > 0, settings.weight, 0.0)  # nothing is cached at the first position
        reached[queries] = np.log((1 - weights) * np.exp(log_probabilities[queries].astype(np.float64)) + weights * cached)
    return reached
