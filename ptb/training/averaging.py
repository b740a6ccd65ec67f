"""Averages of the weights over training steps, with which a run is validated and scored."""

from collections.abc import Callable, Sequence

import tensorflow as tf

NT_ASGD_PATIENCE = 5  # "nonmono" of AWD-LSTM


class WeightAverages:
    """Running means of all trained weights.

    "two_tailed" (Melis 2022, "Two-Tailed Averaging"): a short and a long average both include the weights after every step. At
    each validation, if the short one is at least as good, it replaces the long one and starts again. There is nothing to tune.

    "nt_asgd" (Merity et al. 2018): one average, which starts once a validation is worse than the best of all but the last five,
    and includes the weights after every step from then on.

    The means and their counts are variables, so a checkpoint can hold them.
    """

    def __init__(self, kind: str, weights: Sequence):
        self.kind, self.weights = kind, list(weights)
        self.names = {"two_tailed": ("short", "long"), "nt_asgd": ("mean",), "none": ()}[kind]
        self.counts = {name: _variable(tf.zeros([], tf.float32)) for name in self.names}
        self.means = {name: [_variable(weight.value) for weight in self.weights] for name in self.names}
        self.active = _variable(tf.constant(kind == "two_tailed", tf.float32))  # whether iterates are taken

    def variables(self) -> dict:
        """Return all variables by their names in a checkpoint."""
        if self.kind == "none":
            return {}
        counts = {f"average/{name}/count": count for name, count in self.counts.items()}
        paths = [weight.path for weight in self.weights]
        means = {f"average/{name}/{path}": mean for name in self.names for path, mean in zip(paths, self.means[name])}
        return counts | means | {"average/active": self.active}

    def update(self) -> None:
        """Take the current weights into the averages; part of the training step."""
        for name in self.names:
            count = self.counts[name].assign_add(self.active)
            share = self.active / tf.maximum(count, 1)
            for mean, weight in zip(self.means[name], self.weights):
                mean.assign_add(tf.cast(share, mean.dtype) * (weight.value - mean))

    def validate(self, perplexity_of: Callable[[], float], earlier: Sequence[float]) -> float:
        """Return the validation perplexity of the average to use from now on, or of the weights if there is none yet.

        `perplexity_of` scores the model as it is; `earlier` are the results of the validations before.
        """
        if self.kind == "none" or not self.active.numpy():
            reached = perplexity_of()
            if self.kind == "nt_asgd" and len(earlier) > NT_ASGD_PATIENCE and reached > min(earlier[:-NT_ASGD_PATIENCE]):
                self.active.assign(1.0)
            return reached
        results = {name: self._with_average(name, perplexity_of) for name in self.names if self.counts[name].numpy()}
        if self.kind == "nt_asgd":
            return results["mean"]
        if "short" in results and results["short"] <= results["long"]:
            for long, short in zip(self.means["long"], self.means["short"]):
                long.assign(short)
            self.counts["long"].assign(self.counts["short"])
            self.counts["short"].assign(0.0)
            return results["short"]
        return results["long"]

    def chosen(self) -> dict:
        """Return the arrays of the weights that the last validation scored, by their names in a checkpoint."""
        name = self.names[-1] if self.names else None
        averaged = name is not None and self.counts[name].numpy()
        arrays = self.means[name] if averaged else [weight.value for weight in self.weights]
        return {f"weights/{weight.path}": array.numpy() for weight, array in zip(self.weights, arrays)}

    def _with_average(self, name, function):
        kept = [weight.numpy() for weight in self.weights]
        for weight, mean in zip(self.weights, self.means[name]):
            weight.assign(mean)
        try:
            return function()
        finally:
            for weight, array in zip(self.weights, kept):
                weight.assign(array)


def _variable(value):
    # Each replica computes the same value: the weights are the same on all.
    return tf.Variable(value, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
