"""Evaluations without retraining, tuned on the validation text alone: temperature, Monte Carlo dropout, dynamic, cache.

Each is a function from a trained model and ids to log probabilities `[N - 1]`, so that they can be averaged as static ones are.
Dynamic evaluation and the cache adapt to the text that they score; their numbers stand in columns of their own.
"""

import math
from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np
import tensorflow as tf

from ptb.data.windows import scoring_windows
from ptb.evaluation.cache import CacheSettings, cached_log_probabilities
from ptb.evaluation.dynamic import DynamicSettings, gradient_statistics, make_dynamic_score
from ptb.evaluation.score import Score, make_sampled_dropout_step, state_signature
from ptb.evaluation.temperature import Totals, best_inverse_temperature, make_tempered_step, score_tempered
from ptb.model.language_model import LanguageModel

METHODS = ("temperature", "mc_dropout", "cache", "dynamic", "dynamic_cache")
# The values that `climb` tries, the rate and the decay per 5 tokens.
GRIDS = {
    "learning_rate": (7e-6, 1e-5, 1.5e-5, 2e-5, 3e-5, 5e-5, 7e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 7e-4, 1e-3),
    "decay": (5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2),
    "weight": (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3),
    "flatness": (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
}
# Where `climb` begins: for dynamic evaluation the original's defaults.
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
        reported before, of the same model and texts. They are not repeated, except for the temperature.
        """
        perplexities = {_key(trial): trial["valid_perplexity"] or math.inf for trial in known}

        def perplexity_with(score):
            def perplexity(settings):
                key = _key(settings)
                if key not in perplexities:
                    reached = Score.of(-score(settings)).perplexity
                    finite = reached if math.isfinite(reached) else None
                    report({"valid_perplexity": finite} | settings)
                    perplexities[key] = finite or math.inf
                return perplexities[key]

            return perplexity

        if method == "temperature":

            def totals(factor):
                results = self._tempered(valid_ids, factor)
                reached = Score.of(results[..., 0]).perplexity
                report({"valid_perplexity": reached if math.isfinite(reached) else None, "inverse_temperature": factor})
                return Totals.of(results)

            return {"inverse_temperature": best_inverse_temperature(totals)[0]}
        if method == "mc_dropout":
            return {"passes": DROPOUT_PASSES}
        rates = {}
        if method != "cache":
            rates = climb(perplexity_with(lambda settings: self._dynamic(valid_ids, settings)[0]), FIRST_DYNAMIC)
        if method == "dynamic":
            return rates
        scored = self._dynamic(valid_ids, rates) if rates else self._static(valid_ids)

        def with_cache(settings):
            return cached_log_probabilities(*scored, valid_ids, CacheSettings(settings["weight"], settings["flatness"]))

        perplexity = perplexity_with(with_cache)
        return rates | climb(lambda cache: perplexity(rates | cache), FIRST_CACHE)

    def score(self, method: str, ids: np.ndarray, settings: dict) -> np.ndarray:
        """Return the log probabilities in nats of every token of a text but the first, `[N - 1]`."""
        if method == "temperature":
            return -self._tempered(ids, settings["inverse_temperature"])[0, :, 0]
        if method == "mc_dropout":
            return self._mc_dropout(ids, settings["passes"])
        cache = CacheSettings(settings.get("weight", 0.0), settings.get("flatness", 0.0))
        if method == "cache":
            return cached_log_probabilities(*self._static(ids), ids, cache)
        log_probabilities, features = self._dynamic(ids, settings)
        return log_probabilities if method == "dynamic" else cached_log_probabilities(log_probabilities, features, ids, cache)

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


def climb(perplexity: Callable[[dict], float], settings: dict) -> dict:
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


def _key(settings: dict) -> tuple:
    return tuple(sorted((name, value) for name, value in settings.items() if name != "valid_perplexity"))
