"""Averages of the weights over training steps, with which a run is validated and scored."""

from collections.abc import Callable, Sequence

import tensorflow as tf

NT_ASGD_PATIENCE = 5  # "nonmono" of AWD-LSTM


class WeightAverages:
    """Running means of all trained weights.

    "two_tailed" (Melis 2022, "Two-Tailed Averaging"): a short and a long average both include the weights after every step. At
    each validation, if the short one is at least as good, it replaces the long one and starts again. There is nothing to tune.
    Two means are kept: "short", and "before", of the weights that only the long average includes. So a step updates one mean.

    "nt_asgd" (Merity et al. 2018): one average, which starts once a validation is worse than the best of all but the last five,
    and includes the weights after every step from then on.

    The means and their counts are variables, so a checkpoint can hold them.
    """

    def __init__(self, kind: str, weights: Sequence):
        self.kind, self.weights = kind, list(weights)
        self.names = {"two_tailed": ("short", "before"), "nt_asgd": ("mean",), "none": ()}[kind]  # a step updates the first
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
        for name in self.names[:1]:
            count = self.counts[name].assign_add(self.active)
            share = self.active / tf.maximum(count, 1)
            for mean, weight in zip(self.means[name], self.weights):
                rate = tf.cast(share, mean.dtype)  # mean −= share · (mean − weight), in place
                tf.raw_ops.ResourceApplyGradientDescent(var=mean.handle, alpha=rate, delta=mean - weight.value)

    def validate(self, perplexity_of: Callable[[], float], earlier: Sequence[float]) -> float:
        """Return the validation perplexity of the average to use from now on, or of the weights if there is none yet.

        `perplexity_of` scores the model as it is; `earlier` are the results of the validations before.
        """
        if self.kind == "none" or not self.active.numpy():
            reached = perplexity_of()
            if self.kind == "nt_asgd" and len(earlier) > NT_ASGD_PATIENCE and reached > min(earlier[:-NT_ASGD_PATIENCE]):
                self.active.assign(1.0)
            return reached
        reached = self._with_weights(self._mean_of_all(), perplexity_of)
        if self.kind == "nt_asgd" or not self.counts["short"].numpy():
            return reached
        short = reached
        if self.counts["before"].numpy():  # otherwise both averages are the same
            short = self._with_weights(self.means["short"], perplexity_of)
        if not short <= reached:  # if one is NaN too
            return reached
        for before, mean in zip(self.means["before"], self.means["short"]):
            before.assign(mean)
        self.counts["before"].assign(self.counts["short"])
        self.counts["short"].assign(0.0)
        return short

    def chosen(self) -> dict:
        """Return the average that the last validation chose, arrays by their names in a checkpoint; {} if there is none."""
        if not any(count.numpy() for count in self.counts.values()):
            return {}
        return {f"weights/{weight.path}": array.numpy() for weight, array in zip(self.weights, self._mean_of_all())}

    def _mean_of_all(self):
        """Return the tensors of the mean over all weights that the kept means include, or the weights now if there are none."""
        counts = {name: float(count.numpy()) for name, count in self.counts.items()}
        total = sum(counts.values())
        if not total:
            return [weight.value for weight in self.weights]
        shares = {name: count / total for name, count in counts.items() if count}
        means = zip(*[self.means[name] for name in shares])  # those of a weight side by side
        return [tf.add_n([share * mean for share, mean in zip(shares.values(), of_weight)]) for of_weight in means]

    def _with_weights(self, arrays, function):
        kept = [weight.numpy() for weight in self.weights]
        for weight, array in zip(self.weights, arrays):
            weight.assign(array)
        try:
            return function()
        finally:
            for weight, array in zip(self.weights, kept):
                weight.assign(array)


def _variable(value):
    # Each replica computes the same value: the weights are the same on all.
    return tf.Variable(value, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
