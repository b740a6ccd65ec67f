"""The softmax over the vocabulary and its cross-entropy: most of all arithmetic, so with a gradient of its own."""

import tensorflow as tf

from ptb.kernels import product


def logits(features, weights, bias, product_dtype):
    """Returns `features weightsᵀ + bias`: `[rows, hidden]`, `[vocab, hidden]`, `[vocab]` → `[rows, vocab]`."""
    return tf.nn.bias_add(product(features, weights, product_dtype, transpose_b=True), bias)


def cross_entropy(features, weights, bias, targets, product_dtype):
    """Returns −log p(target) in nats of each row, `[rows]`, for targets int32 `[rows]` and p = softmax(logits).

    The same as `tf.nn.sparse_softmax_cross_entropy_with_logits` of the logits. Their gradient is p minus one at the target; p
    is as large as all else together, so it is read by the three products and never changed: what the ones take off each
    product is a row for each target, subtracted afterwards.
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
