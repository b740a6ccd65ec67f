"""The softmax over the vocabulary and its cross-entropy: a third to a half of all arithmetic, so with a gradient of its own."""

import tensorflow as tf

from ptb.kernels import product


def logits(features, weights, bias, product_dtype):
    """Returns `features weightsᵀ + bias`: `[rows, hidden]`, `[vocab, hidden]`, `[vocab]` → `[rows, vocab]`."""
    return product(features, weights, product_dtype, transpose_b=True) + bias


def cross_entropy(features, weights, bias, targets, product_dtype):
    """Returns −log softmax(logits)[target] in nats of each row `[rows]`, for targets int32 `[rows]`.

    The same as `tf.nn.sparse_softmax_cross_entropy_with_logits` of the logits. The gradient keeps the probabilities alone.
    """

    @tf.custom_gradient
    def run(features, weights, bias):
        scores = logits(features, weights, bias, product_dtype)
        probabilities = tf.nn.softmax(scores)
        # log Σ exp, from what the softmax has summed already: the largest p is at least 1 / vocab, so it never rounds to 0.
        log_normaliser = tf.reduce_max(scores, -1) - tf.math.log(tf.reduce_max(probabilities, -1))
        losses = log_normaliser - tf.gather(scores, targets, batch_dims=1)

        def gradient(d_losses):
            label = tf.one_hot(targets, weights.shape[0], dtype=probabilities.dtype)
            d_scores = (probabilities - label) * d_losses[:, tf.newaxis]
            return (
                product(d_scores, weights, product_dtype),
                product(d_scores, features, product_dtype, transpose_a=True),
                tf.reduce_sum(d_scores, 0),
            )

        return losses, gradient

    return run(features, weights, bias)
