"""The softmax head: from the features of the last layer to logits and losses over the vocabulary.

Most of the arithmetic of a small model is here, so the cross-entropy has a gradient written by hand.
"""

import math

import numpy as np
import tensorflow as tf

from ptb.model.kernels import matmul, static_shape
from ptb.runtime.devices import on_host

FIRST_WORDS = 128  # in which `cross_entropy` looks for a likely word on a CPU


class SoftmaxHead:
    """Softmax over the vocabulary. `weights [vocab, hidden]` and `bias [vocab]` are variables of the model.

    `first_words` is an argument of `cross_entropy`; it should be None on a GPU.
    """

    def __init__(self, weights, bias, product_dtype, first_words=FIRST_WORDS):
        self.weights, self.bias = weights, bias
        self.product_dtype, self.first_words = product_dtype, first_words

    def logits(self, features):
        """Return the logits `[batch, num_steps, vocab]` of features `[num_steps, batch, hidden]`."""
        num_steps, batch_size = tf.unstack(tf.shape(features)[:2])
        rows = tf.reshape(tf.transpose(features, [1, 0, 2]), [-1, features.shape[-1]])
        scores = logits(rows, self.weights.value, self.bias.value, self.product_dtype)
        return tf.reshape(scores, [batch_size, num_steps, self.bias.shape[0]])

    def losses(self, features, targets):
        """Return −log p(target) in nats, `[batch, num_steps]`, for features `[num_steps, batch, hidden]`."""
        return self._losses_of_rows(cross_entropy, features, targets, self.first_words)

    def sampled_losses(self, features, targets, num_samples, seed):
        """Return what to minimise if the vocabulary is large, and an estimate of `losses`: see `sampled_cross_entropy`."""
        return self._losses_of_rows(sampled_cross_entropy, features, targets, num_samples, seed)

    def _losses_of_rows(self, function, features, targets, *arguments):
        rows = tf.reshape(features, [-1, features.shape[-1]])
        with on_host():
            labels = tf.reshape(tf.transpose(targets), [-1])
        losses = function(rows, self.weights.value, self.bias.value, labels, self.product_dtype, *arguments)
        return tf.nest.map_structure(lambda values: tf.transpose(tf.reshape(values, tf.shape(features)[:2])), losses)


class MixtureHead(SoftmaxHead):
    """Mixture of softmaxes (Yang et al. 2018): p = Σ_k π_k softmax(z_k Wᵀ + b), π = softmax of the priors.

    The features `[num_steps, batch, K + K * size]` are the K priors, then the K vectors z_k.
    """

    def __init__(self, weights, bias, product_dtype, first_words=FIRST_WORDS, *, mixture):
        super().__init__(weights, bias, product_dtype, first_words)
        self.mixture = mixture

    def logits(self, features):
        """Return log p of all words, `[batch, num_steps, vocab]`."""
        priors, latents = self._split(features)
        by_component = tf.nn.log_softmax(super().logits(latents))  # [K * batch, num_steps, vocab]
        by_component = tf.reshape(by_component, [self.mixture, -1, *tf.unstack(tf.shape(by_component)[1:])])
        return tf.reduce_logsumexp(tf.transpose(priors, [2, 1, 0])[..., tf.newaxis] + by_component, 0)

    def losses(self, features, targets):
        """Return −log p(target) in nats, `[batch, num_steps]`."""
        priors, latents = self._split(features)
        with on_host():
            repeated = tf.tile(targets, [self.mixture, 1])
        losses = super().losses(latents, repeated)  # [K * batch, num_steps]
        losses = tf.reshape(losses, [self.mixture, -1, tf.shape(losses)[1]])
        return -tf.reduce_logsumexp(tf.transpose(priors, [2, 1, 0]) - losses, 0)

    def _split(self, features):
        """Return log π `[num_steps, batch, K]` and the vectors z `[num_steps, K * batch, size]`."""
        size = self.weights.shape[1]
        priors, latents = tf.split(features, [self.mixture, self.mixture * size], -1)
        latents = tf.reshape(latents, [*static_shape(features)[:2], self.mixture, size])
        latents = tf.transpose(latents, [0, 2, 1, 3])
        num_steps, _, batch_size, _ = static_shape(latents)
        return tf.nn.log_softmax(priors), tf.reshape(latents, [num_steps, self.mixture * batch_size, size])


def logits(features, weights, bias, product_dtype):
    """Return `features weightsᵀ + bias`, computed in `product_dtype`, in the type of the features.

    Shapes: `[rows, hidden]`, `[vocab, hidden]`, `[vocab]` → `[rows, vocab]`.
    """
    return tf.cast(_scores(features, weights, bias, product_dtype), features.dtype)


def _scores(features, weights, bias, product_dtype):
    """Return the logits in `product_dtype`."""
    features, weights, bias = [tf.cast(value, product_dtype) for value in (features, weights, bias)]
    return tf.nn.bias_add(tf.matmul(features, weights, transpose_b=True), bias)


def cross_entropy(features, weights, bias, targets, product_dtype, first_words=FIRST_WORDS):
    """Return −log p(target) in nats of each row, `[rows]`, for targets int32 `[rows]` and p = softmax(logits).

    Same result as `tf.nn.sparse_softmax_cross_entropy_with_logits`. The gradient of the logits is p − one_hot(target). p is as
    large as everything else together. So it is kept in `product_dtype`, without a copy: the three products are computed with
    p, then the rows of the targets are subtracted from the results.

    log Σ exp follows from the score and the p of any word whose p is not rounded to 0. A search for the likeliest word would
    take two more passes over the matrix. So the search covers the target and the `first_words` of the vocabulary, which are the
    most frequent ones. If the p of all of these is rounded to 0 in some row, log Σ exp is computed from all scores. This
    condition would make a GPU report to the host, so None searches the whole vocabulary instead.
    """
    dtype = features.dtype
    searches_all = first_words is None or first_words >= weights.shape[0]

    def product(p, factor, **transposes):
        return tf.cast(matmul(p, factor, product_dtype, **transposes), dtype)

    @tf.custom_gradient
    def run(features, weights, bias):
        scores = _scores(features, weights, bias, product_dtype)
        p = tf.nn.softmax(scores)
        score, p_of_score = [_likeliest(values, targets, first_words, dtype) for values in (scores, p)]
        usual = score - tf.math.log(p_of_score)
        if searches_all:
            log_normaliser = usual
        else:
            is_usual = tf.reduce_all(p_of_score >= np.finfo(dtype.as_numpy_dtype).tiny)  # false for NaN too
            log_normaliser = tf.cond(is_usual, lambda: usual, lambda: tf.reduce_logsumexp(tf.cast(scores, dtype), -1))
        losses = log_normaliser - tf.cast(tf.gather(scores, targets, batch_dims=1), dtype)

        def gradient(d_losses):
            rows, d = targets[:, tf.newaxis], d_losses[:, tf.newaxis]
            d_features = d * (product(p, weights) - tf.gather(weights, targets))
            d_weights = product(p, d * features, transpose_a=True)
            d_bias = product(p, d, transpose_a=True)[:, 0]
            rounded = tf.cast(tf.cast(d_losses, product_dtype), dtype)  # as in the product: the sum over words stays 0
            return (
                d_features,
                tf.tensor_scatter_nd_sub(d_weights, rows, d * features),
                tf.tensor_scatter_nd_sub(d_bias, rows, rounded),
            )

        return losses, gradient

    return run(features, weights, bias)


def _likeliest(values, targets, first_words, dtype):
    """Return the largest value of each row among the target and the first words."""
    of_target = tf.gather(values, targets, batch_dims=1)
    return tf.cast(tf.maximum(tf.reduce_max(values[:, :first_words], -1), of_target), dtype)


def sampled_cross_entropy(features, weights, bias, targets, product_dtype, num_samples, seed):
    """Return what to minimise instead of `cross_entropy` if the vocabulary is large, and an estimate of that, each `[rows]`.

    Both use the target and a set of words, the same for all rows: those of `num_samples` draws with repeats from `seed`, int32
    `[2]`. A step therefore touches few rows of the weights. The first is the loss of a softmax over the target and the set,
    with log P(word is in such a set) subtracted from each score (Jean et al. 2015, "On Using Very Large Target Vocabulary";
    like `tf.nn.sampled_softmax_loss`, whose own draws do not follow from a seed per step). In expectation over sets its minimum
    is near that of `cross_entropy`, but its value is lower. The second keeps the target's score unchanged, because the target
    is always there: in expectation over sets its sum of exponentials is that of the whole vocabulary.
    """
    vocab_size = weights.shape[0]

    def log_inclusion_probability(words):
        in_one_draw = tf.math.log1p(1 / (tf.cast(words, features.dtype) + 1)) / math.log(vocab_size + 1)
        return tf.math.log(-tf.math.expm1(num_samples * tf.math.log1p(-in_one_draw)))

    with on_host():
        words = tf.sort(zipf_draws(num_samples, vocab_size, seed))
        is_repeat = tf.concat([[False], words[1:] == words[:-1]], 0)
        excluded = is_repeat | (words == targets[:, tf.newaxis])
    target_scores = tf.reduce_sum(features * tf.gather(weights, targets), -1) + tf.gather(bias, targets)
    word_scores = logits(features, tf.gather(weights, words), tf.gather(bias, words), product_dtype)
    word_scores = tf.where(excluded, word_scores.dtype.min, word_scores - log_inclusion_probability(words))
    margins = tf.reduce_logsumexp(word_scores, -1) - target_scores
    return tf.nn.softplus(margins + log_inclusion_probability(targets)), tf.nn.softplus(margins)


def zipf_draws(count, vocab_size, seed):
    """Return `count` ids below `vocab_size`, int32; id k has probability log((k + 2) / (k + 1)) / log(vocab_size + 1).

    Ids are in order of descending frequency, and word frequencies follow Zipf's law.
    """
    uniform = tf.random.stateless_uniform([count], seed, dtype=tf.float64)
    words = tf.cast(tf.exp(uniform * math.log(vocab_size + 1)), tf.int32) - 1
    return tf.minimum(words, vocab_size - 1)  # exp may round up
