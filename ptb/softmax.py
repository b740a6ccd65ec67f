"""The softmax over the vocabulary and its cross-entropy: most of all arithmetic, so with a gradient of its own."""

import math

import tensorflow as tf

from ptb.devices import on_host
from ptb.kernels import product


def logits(features, weights, bias, product_dtype):
    """Returns `features weightsᵀ + bias`: `[rows, hidden]`, `[vocab, hidden]`, `[vocab]` → `[rows, vocab]`."""
    return tf.nn.bias_add(product(features, weights, product_dtype, transpose_b=True), bias)


def cross_entropy(features, weights, bias, targets, product_dtype):
    """Returns −log p(target) in nats of each row, `[rows]`, for targets int32 `[rows]` and p = softmax(logits).

    The same as `tf.nn.sparse_softmax_cross_entropy_with_logits` of the logits. Their gradient is p minus one at the target; p
    is as large as all else together, so no copy less the ones is made: the three products read p itself, and what the ones
    take off each is a row for each target, subtracted afterwards.
    """

    @tf.custom_gradient
    def run(features, weights, bias):
        scores = logits(features, weights, bias, product_dtype)
        p = tf.nn.softmax(scores)
        # log Σ exp, from what the softmax has summed already: the largest p is at least 1 / vocab, so it never rounds to 0.
        log_normaliser = tf.reduce_max(scores, -1) - tf.math.log(tf.reduce_max(p, -1))
        losses = log_normaliser - tf.gather(scores, targets, batch_dims=1)

        def gradient(d_losses):
            rows, d = targets[:, tf.newaxis], d_losses[:, tf.newaxis]
            d_features = d * (product(p, weights, product_dtype) - tf.gather(weights, targets))
            d_weights = product(p, d * features, product_dtype, transpose_a=True)
            d_bias = tf.linalg.matvec(p, d_losses, transpose_a=True)
            return (
                d_features,
                tf.tensor_scatter_nd_sub(d_weights, rows, d * features),
                tf.tensor_scatter_nd_sub(d_bias, rows, d_losses),
            )

        return losses, gradient

    return run(features, weights, bias)


def sampled_cross_entropy(features, weights, bias, targets, product_dtype, num_samples, seed):
    """What to descend on in place of `cross_entropy` where the vocabulary is large, and an estimate of that, each `[rows]`.

    Both take the target and a set of words, the same for all rows: those of `num_samples` draws, with repeats, from a seed,
    int32 `[2]`. So a step touches few rows of the weights, however many there are. The first is the loss of a softmax over the
    target and the set, each score less the log of the probability that the word is in such a set (Jean et al. 2015, "On Using
    Very Large Target Vocabulary"; so does `tf.nn.sampled_softmax_loss`, whose own draws do not follow from a seed that changes
    from step to step). On average over sets its minimum lies near that of `cross_entropy`, but its value is lower. The second
    leaves the target's score as it is, which is there for certain: its sum of exponentials is that of the whole vocabulary, on
    average over sets.
    """
    vocab_size = weights.shape[0]

    def log_of_being_in_the_set(words):
        in_one_draw = tf.math.log1p(1 / (tf.cast(words, features.dtype) + 1)) / math.log(vocab_size + 1)
        return tf.math.log(-tf.math.expm1(num_samples * tf.math.log1p(-in_one_draw)))

    with on_host():
        words = tf.sort(zipf_draws(num_samples, vocab_size, seed))
        is_repeat = tf.concat([[False], words[1:] == words[:-1]], 0)
        excluded = is_repeat | (words == targets[:, tf.newaxis])
    target_scores = tf.reduce_sum(features * tf.gather(weights, targets), -1) + tf.gather(bias, targets)
    word_scores = logits(features, tf.gather(weights, words), tf.gather(bias, words), product_dtype)
    word_scores = tf.where(excluded, word_scores.dtype.min, word_scores - log_of_being_in_the_set(words))
    margins = tf.reduce_logsumexp(word_scores, -1) - target_scores
    return tf.nn.softplus(margins + log_of_being_in_the_set(targets)), tf.nn.softplus(margins)


def zipf_draws(count, vocab_size, seed):
    """Returns `count` ids below `vocab_size`, int32, each k with probability log((k + 2) / (k + 1)) / log(vocab_size + 1).

    Ids are in order of descending frequency, which this follows by Zipf's law.
    """
    uniform = tf.random.stateless_uniform([count], seed, dtype=tf.float64)
    words = tf.cast(tf.exp(uniform * math.log(vocab_size + 1)), tf.int32) - 1
    return tf.minimum(words, vocab_size - 1)  # where exp has rounded up
