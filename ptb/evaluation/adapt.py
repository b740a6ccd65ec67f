"""Evaluations without retraining, tuned on the validation text alone: temperature, Monte Carlo dropout, dynamic, cache.

Each is a function from a trained model and ids to log probabilities `[N - 1]`, so that they can be averaged as static ones are.
Dynamic evaluation and the cache adapt to the text that they score; their numbers stand in columns of their own.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property

import numpy as np
import tensorflow as tf

from ptb.config import ConfigError, Dropout
from ptb.data.windows import scoring_windows
from ptb.evaluation.cache import CacheSettings, cached_log_probabilities
from ptb.evaluation.dynamic import DynamicSettings, gradient_statistics, make_dynamic_score
from ptb.evaluation.score import Score, make_sampled_dropout_step, state_signature
from ptb.evaluation.temperature import LossDerivatives, best_inverse_temperature, make_tempered_step, score_tempered
from ptb.model.language_model import LanguageModel

METHODS = ("temperature", "mc_dropout", "cache", "dynamic", "dynamic_cache")
# The values that `hill_climb` tries, the rate and the decay per 5 tokens.
GRIDS = {
    "learning_rate": (7e-6, 1e-5, 1.5e-5, 2e-5, 3e-5, 5e-5, 7e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3),
    "decay": (5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2),
    "weight": (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3),
    "flatness": (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
}
# Where `hill_climb` begins: for dynamic evaluation the original's defaults.
FIRST_DYNAMIC, FIRST_CACHE = {"learning_rate": 5e-5, "decay": 2e-3}, {"weight": 0.05, "flatness": 0.5}
DROPOUT_PASSES = 20


class Adapter:
    """Scores texts under one trained model by one of METHODS. `tune` chooses its settings on the validation text."""

    def __init__(self, model: LanguageModel, train_ids: np.ndarray, num_steps: int = 20):
        self.model, self.train_ids, self.num_steps = model, train_ids, num_steps

    def tune(
        self,
        method: str,
        valid_ids: np.ndarray,
        report: Callable[[dict], None] = lambda trial: None,
        known: Iterable[dict] = (),
    ) -> dict:
        """Return the settings of a method with the best perplexity on `valid_ids`; `report` gets every new trial.

        A trial whose perplexity is not finite has None: too high a rate makes the weights diverge. `known` are trials that were
        reported before, of the same model and texts. They are not repeated, except for the temperature. Raises ConfigError for
        mc_dropout if the model has no dropout.
        """
        trials = _Trials(report, known)
        if method == "temperature":
            return self._tune_temperature(valid_ids, trials)
        if method == "mc_dropout":
            if replace(self.model.dropout_rates, locked=False) == Dropout():
                raise ConfigError("dropout: is 0, so mc_dropout would repeat the usual score; choose another method")
            return {"passes": DROPOUT_PASSES}
        rates = {} if method == "cache" else self._tune_rates(valid_ids, trials)
        return rates if method == "dynamic" else rates | self._tune_cache(valid_ids, rates, trials)

    def score(self, method: str, ids: np.ndarray, settings: dict) -> np.ndarray:
        """Return the log probabilities in nats of every token of a text but the first, `[N - 1]`."""
        if method == "temperature":
            return -self._tempered(ids, settings["inverse_temperature"])[0, :, 0]
        if method == "mc_dropout":
            return self._mc_dropout(ids, settings["passes"])
        scored = self._static(ids) if method == "cache" else self._dynamic(ids, settings)
        return scored[0] if method == "dynamic" else _with_cache(scored, ids, settings)

    def _tune_temperature(self, ids, trials):
        def totals(factor):
            results = self._tempered(ids, factor)
            trials.add({"inverse_temperature": factor}, results[..., 0])
            return LossDerivatives.of(results)

        return {"inverse_temperature": best_inverse_temperature(totals)[0]}

    def _tune_rates(self, ids, trials):
        return hill_climb(lambda rates: trials.perplexity(rates, lambda: -self._dynamic(ids, rates)[0]), FIRST_DYNAMIC)

    def _tune_cache(self, ids, rates, trials):
        """Return the settings of the cache, on top of dynamic evaluation if that has rates."""
        scored = self._dynamic(ids, rates) if rates else self._static(ids)
        return hill_climb(lambda cache: trials.perplexity(rates | cache, lambda: -_with_cache(scored, ids, cache)), FIRST_CACHE)

    @cached_property
    def _dynamic_score(self):
        return make_dynamic_score(self.model, gradient_statistics(self.model, self.train_ids))

    @cached_property
    def _static_step(self):
        model, ids = self.model, tf.TensorSpec([1, None], tf.int32)

        @tf.function(autograph=False, input_signature=[ids, ids, state_signature(model, 1)])
        def step(inputs, targets, state):
            outputs, state = model.outputs(inputs, state)
            return model.head.losses(outputs.features, targets)[0], outputs.raw[:, 0], state

        return step

    @cached_property
    def _tempered_step(self):
        return make_tempered_step(self.model)

    def _dynamic(self, ids, settings):
        chosen = DynamicSettings(learning_rate=settings["learning_rate"], decay=settings["decay"])
        return self._dynamic_score(ids, chosen.scaled_to(self.num_steps))

    def _static(self, ids):
        """Return the log probabilities and the outputs of the last layer, `[N - 1, size]`."""
        state, losses, features = self.model.initial_state(1), [], []
        for inputs, targets in scoring_windows(ids):
            loss, raw, state = self._static_step(inputs, targets, state)
            losses.append(loss.numpy())
            features.append(raw.numpy())
        return -np.concatenate(losses), np.concatenate(features)

    def _tempered(self, ids, inverse_temperature):
        return score_tempered(self._tempered_step, self.model, scoring_windows(ids), inverse_temperature)

    def _mc_dropout(self, ids, passes):
        """Return the log of the mean probability over passes with dropout, each with masks of its own."""
        model, total = self.model, np.full(len(ids) - 1, -np.inf)
        step = make_sampled_dropout_step(model)
        for number in range(passes):
            state, losses = model.initial_state(1), []
            for window, (inputs, targets) in enumerate(scoring_windows(ids)):
                loss, state = step(inputs, targets, state, tf.constant([number, window], tf.int32))
                losses.append(loss.numpy()[0])
            total = np.logaddexp(total, -np.concatenate(losses).astype(np.float64))
        return total - np.log(passes)


def hill_climb(perplexity: Callable[[dict], float], settings: dict) -> dict:
    """Return settings that no neighbouring value in GRIDS improves; `settings` is where the search begins.

    The settings take turns: each goes to the next value of its grid as long as that is better, up, then down. `perplexity` is
    called more than once with the same settings.
    """
    best, before = settings, None
    while best != before:
        before = best
        for name in settings:
            grid = GRIDS[name]
            for direction in (1, -1):
                place = grid.index(best[name]) + direction
                while 0 <= place < len(grid) and perplexity(best | {name: grid[place]}) < perplexity(best):
                    best, place = best | {name: grid[place]}, place + direction
    return best


class _Trials:
    """Perplexities by settings. Each is computed once; `report` gets the new ones."""

    def __init__(self, report, known):
        self._report = report
        self._perplexities = {_key(trial): trial["valid_perplexity"] or math.inf for trial in known}

    def perplexity(self, settings, losses):
        """Return the perplexity of settings, from `losses()` if it is not known; infinity if it is not finite."""
        if _key(settings) not in self._perplexities:
            self.add(settings, losses())
        return self._perplexities[_key(settings)]

    def add(self, settings, losses):
        reached = Score.of(losses).perplexity
        finite = reached if math.isfinite(reached) else None
        self._report({"valid_perplexity": finite} | settings)
        self._perplexities[_key(settings)] = finite or math.inf


def _with_cache(scored, ids, settings):
    """Return log probabilities with the cache. `scored` are those without it, and the outputs of the last layer."""
    return cached_log_probabilities(*scored, ids, CacheSettings(settings["weight"], settings["flatness"]))


def _key(settings: dict) -> tuple:
    return tuple(sorted((name, value) for name, value in settings.items() if name != "valid_perplexity"))
