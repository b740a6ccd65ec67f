"""One step of truncated backpropagation through time with plain SGD, as in the paper."""

from typing import NamedTuple

import tensorflow as tf


class Sums(NamedTuple):
    """What an epoch adds up, each a float64 scalar that stays on the device until somebody reads it."""

    loss: tf.Tensor  # nats
    tokens: tf.Tensor
    steps: tf.Tensor
    grad_norm: tf.Tensor
    clipped_steps: tf.Tensor

    @classmethod
    def zero(cls):
        return cls(*[tf.zeros([], tf.float64) for _ in cls._fields])


def make_train_step(model, max_grad_norm, norm_of_repeats="summed"):
    """Returns the compiled `train_step(inputs, targets, state, sums, learning_rate, dropout_seed) -> (state, sums)`.

    `inputs` and `targets` are int32 `[batch, num_steps]`. The loss is summed over time and averaged over the batch, so its
    gradient is `num_steps` times that of the mean per token, which the published learning rates assume. `dropout_seed` is
    int32 `[2]`, the run's seed and the number of the step. Nothing that changes from step to step is traced again.

    The gradient is scaled down where its global norm, all variables taken as one vector, exceeds `max_grad_norm`. That of the
    embedding comes as one row for each input word. `norm_of_repeats="summed"` adds the rows of a repeated word up first, so
    that the norm is that of the true gradient, as in the paper's Lua code; "apart" takes the norm of the rows as they come, as
    `tf.clip_by_global_norm` does with `tf.IndexedSlices` and so the tutorial.
    """

    @tf.function(autograph=False)
    def train_step(inputs, targets, state, sums, learning_rate, dropout_seed):
        with tf.GradientTape() as tape:
            losses, state = model.losses_of(inputs, targets, state, training=True, dropout_seed=dropout_seed)
            cost = tf.reduce_sum(losses) / losses.shape[0]
        variables = [variable.value for variable in model.trainable_variables]
        raw_gradients = tape.gradient(cost, variables)
        gradients = [sum_repeats(g) if isinstance(g, tf.IndexedSlices) else g for g in raw_gradients]
        grad_norm = tf.linalg.global_norm(gradients if norm_of_repeats == "summed" else raw_gradients)
        descend(variables, gradients, learning_rate * max_grad_norm / tf.maximum(grad_norm, max_grad_norm))
        step = Sums(tf.reduce_sum(losses), tf.size(losses), 1, grad_norm, grad_norm > max_grad_norm)
        return state, Sums(*[total + tf.cast(value, tf.float64) for total, value in zip(sums, step)])

    return train_step


def sum_repeats(slices):
    """Returns the same gradient with all that belongs to one row of the variable in the first of its slices, the others zero.

    That keeps the shape: `tf.unique` would make it depend on the data, and the program wait until the GPU has told it.
    """
    count = slices.indices.shape[0]
    alike = slices.indices[:, tf.newaxis] == slices.indices[tf.newaxis]
    first = tf.reduce_min(tf.where(alike, tf.range(count), count), axis=-1)
    return tf.IndexedSlices(tf.math.unsorted_segment_sum(slices.values, first, count), slices.indices)


def descend(variables, gradients, rate):
    """Subtracts `rate` times its gradient from each variable, in place."""
    for variable, gradient in zip(variables, gradients):
        if isinstance(gradient, tf.IndexedSlices):
            variable.scatter_sub(tf.IndexedSlices(rate * gradient.values, gradient.indices))
        else:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)
