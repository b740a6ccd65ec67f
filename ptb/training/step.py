"""One step of truncated backpropagation through time: loss, gradients, clip, update."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from ptb.config import Config
from ptb.runtime import replicas
from ptb.runtime.devices import on_host
from ptb.training.averaging import WeightAverages
from ptb.training.loss import loss_fn
from ptb.training.optimizers import clip_gradients, make_update, sum_repeated_rows


class Sums(NamedTuple):
    """Sums over the steps of an epoch, each a float64 scalar that stays on the device until it is read."""

    loss: tf.Tensor  # nats
    tokens: tf.Tensor
    steps: tf.Tensor
    grad_norm: tf.Tensor
    clipped_steps: tf.Tensor
    largest_loss: tf.Tensor  # of one step, nats per token

    @classmethod
    def zero(cls):
        return cls(*[tf.zeros([], tf.float64) for _ in cls._fields])

    def read(self):
        """Return the sums as Python numbers; waits until the device has computed them."""
        return Sums(*map(float, self))

    def after(self, loss, tokens, grad_norm, clipped):
        """Return the sums with one more step."""
        step = [tf.cast(value, tf.float64) for value in (loss, tokens, 1, grad_norm, clipped)]
        totals = [total + value for total, value in zip(self, step)]
        return Sums(*totals, tf.maximum(self.largest_loss, step[0] / step[1]))


def make_train_step(model, config: Config, optimizer=None, averages: WeightAverages | None = None) -> Callable:
    """Return the compiled `train_step(inputs, targets, state, sums, learning_rate, dropout_seed) -> (state, sums)`.

    `inputs` and `targets` are int32 `[batch, config.burn_in + num_steps]`, one window. `dropout_seed` is int32 `[2]`: the seed
    of the run and the number of the step. It and the scalar `learning_rate` must be arrays or tensors; TensorFlow would trace
    the step again for each new Python number. `optimizer` is what `make_optimizer` gave, None for plain SGD. `averages`
    take the weights after each step.

    With `loss.reduction="sum"` the loss is summed over time and averaged over the batch, so its gradient is num_steps times
    that of the mean per token. The published learning rates assume this.

    The embedding's gradient has one row per input word. Rows of a repeated word are summed before the norm is taken, so that it
    is the norm of the true gradient, as in the paper's Lua code. (`tf.clip_by_global_norm`, and with it the tutorial, measures
    the rows of `tf.IndexedSlices` separately; docs/results.md says what that changes.)

    Called in the scope of a `tf.distribute.Strategy`, this makes the step that shares its rows among the replicas.
    """
    update = make_update(model, config.optimizer, optimizer)
    strategy = tf.distribute.get_strategy()

    def replica_step(inputs, targets, state, sums, learning_rate, dropout_seed):
        with on_host():
            inputs, targets = replicas.local_shard((inputs, targets))
        state = replicas.local_shard(state)
        with tf.GradientTape() as tape:
            cost, losses, state = loss_fn(model, config.loss, inputs, targets, state, dropout_seed, config.burn_in)
        variables = [variable.value for variable in model.trainable_variables]
        gradients = replicas.mean(tape.gradient(cost, variables))
        gradients = [sum_repeated_rows(g) if isinstance(g, tf.IndexedSlices) else g for g in gradients]
        grad_norm = tf.linalg.global_norm(gradients)
        gradients, factor, clipped = clip_gradients(config.optimizer, gradients, grad_norm)
        update(gradients, factor, learning_rate)
        if averages:
            averages.update()
        loss, tokens = replicas.total(tf.reduce_sum(losses)), replicas.num_replicas() * tf.size(losses)
        return replicas.gather_batch(state), sums.after(loss, tokens, grad_norm, clipped)

    @tf.function(autograph=False)
    def train_step(*arguments):
        results = strategy.run(replica_step, arguments)
        return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], results)

    return train_step
