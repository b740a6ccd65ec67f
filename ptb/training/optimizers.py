"""From gradients to updates: sums of repeated rows, the clip, plain SGD, and Keras's optimisers."""

from collections.abc import Callable

import keras
import tensorflow as tf

from ptb.config import SGD, Adam, Optimizer, RMSprop
from ptb.runtime import replicas
from ptb.runtime.devices import on_host


def make_optimizer(config: Optimizer):
    """Return a new Keras optimiser, or None for plain SGD, which needs none.

    It has a name; otherwise Keras would number it, and the paths of its variables.
    """
    match config:
        case SGD():
            return None
        case RMSprop():
            return keras.optimizers.RMSprop(rho=config.rho, epsilon=config.epsilon, name="rmsprop")
        case Adam():
            betas = {"beta_1": config.beta1, "beta_2": config.beta2}
            return FusedAdam(**betas, epsilon=config.epsilon, name="adam")
    raise ValueError(f"{type(config).__name__}: is no optimiser here")


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with one operation for each weight.

    Keras's own update has ten operations for each weight, and most of them write a copy of it.
    """

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        dtype = gradient.dtype
        step = tf.cast(self.iterations.value + 1, dtype)
        beta_1, beta_2 = tf.cast(self.beta_1, dtype), tf.cast(self.beta_2, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1**step,
            beta2_power=beta_2**step,
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=gradient,
        )


def sum_repeated_rows(slices: tf.IndexedSlices) -> tf.IndexedSlices:
    """Return the same gradient with the sum of all slices of a row in the first of them, and zeros in the others.

    This keeps the static shape. `tf.unique` would make the shape depend on the data, and the host wait for the GPU.
    """
    rows = slices.indices
    with on_host():
        order = tf.argsort(rows, stable=True)
        first = tf.gather(order, tf.searchsorted(tf.gather(rows, order), rows))
    return tf.IndexedSlices(tf.math.unsorted_segment_sum(slices.values, first, tf.size(rows)), rows, slices.dense_shape)


def clip_gradients(config: Optimizer, gradients: list, norm: tf.Tensor):
    """Return gradients, the factor that is still to be applied to them, and whether they were over the limit.

    `norm` is their global norm. The kinds of clip are those of `ptb.config.Optimizer`.
    """
    limit = config.clip_norm
    if config.clip == "element":
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        largest = tf.reduce_max([tf.reduce_max(tf.abs(gradient)) for gradient in gradients])
        limited = [tf.clip_by_value(gradient, -limit, limit) for gradient in gradients]
        return limited, tf.ones_like(norm), largest > limit
    reached = norm if config.clip == "unit" else tf.maximum(norm, limit)
    return gradients, tf.math.divide_no_nan(tf.cast(limit, norm.dtype), reached), norm > limit


def make_update(model, config: Optimizer, optimizer=None) -> Callable:
    """Return `update(gradients, factor, learning_rate)`, which changes the model's weights in place.

    `optimizer` is what `make_optimizer` gave; its variables exist from now on.
    """
    if optimizer is None:
        decay = config.weight_decay

        def update(gradients, factor, learning_rate):
            if decay:
                for variable in model.trainable_variables:
                    variable.assign(variable.value * (1 - learning_rate * decay))
            sgd_update(model.trainable_variables, gradients, factor * learning_rate)

        return update
    optimizer.build(model.trainable_variables)

    def update(gradients, factor, learning_rate):
        share = factor / replicas.num_replicas()  # Keras sums the gradients of the replicas
        dense = [share * tf.convert_to_tensor(gradient) for gradient in gradients]
        optimizer.learning_rate.assign(learning_rate)
        optimizer.apply(dense, model.trainable_variables)

    return update


def sgd_update(variables, gradients, rate):
    """Subtract `rate` times its gradient from each variable, in place."""
    for variable, gradient in zip(variables, gradients):
        handle = variable.value.handle
        if isinstance(gradient, tf.IndexedSlices):
            tf.raw_ops.ResourceScatterSub(resource=handle, indices=gradient.indices, updates=rate * gradient.values)
        else:
            tf.raw_ops.ResourceApplyGradientDescent(var=handle, alpha=rate, delta=gradient)
