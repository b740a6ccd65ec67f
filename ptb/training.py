"""One step of truncated backpropagation through time: an objective, a clip and an optimiser, by default those of the paper."""

from typing import NamedTuple

import keras
import tensorflow as tf

from ptb import replicas
from ptb.devices import on_host


class Sums(NamedTuple):
    """What an epoch has come to, each a float64 scalar that stays on the device until somebody reads it."""

    loss: tf.Tensor  # nats
    tokens: tf.Tensor
    steps: tf.Tensor
    grad_norm: tf.Tensor
    clipped_steps: tf.Tensor
    largest_loss: tf.Tensor  # of a step, nats a token

    @classmethod
    def zero(cls):
        return cls(*[tf.zeros([], tf.float64) for _ in cls._fields])

    def read(self):
        """Returns the sums as Python's numbers, for which it waits until the device has them."""
        return Sums(*map(float, self))

    def after(self, loss, tokens, grad_norm, clipped):
        """Returns the sums with one more step in them."""
        step = [tf.cast(value, tf.float64) for value in (loss, tokens, 1, grad_norm, clipped)]
        totals = [total + value for total, value in zip(self, step)]
        return Sums(*totals, tf.maximum(self.largest_loss, step[0] / step[1]))


class Objective(NamedTuple):
    """What a step descends on: a `reduction` of the losses, and what is added to it."""

    reduction: str = "sum"  # over time, and averaged over the batch; "mean" is that of all losses
    softmax_l2: float = 0.0  # times the sum of the squared softmax weights
    num_steps: int | None = None  # how many of a window's last losses count; None: all
    softmax_samples: int = 0  # draws of words to estimate the softmax from; 0: exact


class Clip(NamedTuple):
    """What a gradient may be at most. Norms are global, of all variables' gradients as one vector."""

    limit: float
    kind: str = "norm"  # or "unit": the norm is made equal to the limit, always; or "element": each one in ± the limit
    repeats: str = "summed"  # or "apart": see make_train_step


PAPER = Objective()

OPTIMIZERS = {  # beside plain SGD; named, or Keras would number it, and its variables' paths with it
    # Torch's optim.rmsprop, as char-rnn uses it, divides by √m + 1e-8, Keras's by √(m + epsilon).
    "rmsprop": lambda: keras.optimizers.RMSprop(rho=0.95, epsilon=1e-16, name="rmsprop"),
}


def make_train_step(model, clip, optimizer=None, objective=PAPER):
    """Returns the compiled `train_step(inputs, targets, state, sums, learning_rate, dropout_seed) -> (state, sums)`.

    `inputs` and `targets` are int32 `[batch, steps]`, a window. By default the loss is summed over time and averaged over the
    batch, so its gradient is as many times that of the mean per token as the window has steps, which the published learning
    rates assume. `dropout_seed` is int32 `[2]`, the run's seed and the number of the step. It and `learning_rate`, a scalar,
    are to be arrays or tensors: for each new Python number TensorFlow would trace the step anew. Without an `optimizer` of
    Keras's the update is plain SGD.
    Called in the scope of a `tf.distribute.Strategy`, it makes the step that shares its rows among the strategy's replicas.

    The gradient of the embedding comes as one row for each input word. `clip.repeats="summed"` adds the rows of a repeated
    word up first, so that the norm is that of the true gradient, as in the paper's Lua code; "apart" takes the norm of the rows
    as they come, as `tf.clip_by_global_norm` does with `tf.IndexedSlices` and so the tutorial.
    """
    update = descend if optimizer is None else keras_update(optimizer, model)
    strategy = tf.distribute.get_strategy()

    def replica_step(inputs, targets, state, sums, learning_rate, dropout_seed):
        with on_host():
            inputs, targets = replicas.own_rows((inputs, targets))
        state = replicas.own_rows(state)
        with tf.GradientTape() as tape:
            cost, losses, state = cost_of(model, objective, inputs, targets, state, dropout_seed)
        variables = [variable.value for variable in model.trainable_variables]
        raw_gradients = replicas.mean(tape.gradient(cost, variables))
        gradients = [sum_repeats(g) if isinstance(g, tf.IndexedSlices) else g for g in raw_gradients]
        grad_norm = tf.linalg.global_norm(gradients if clip.repeats == "summed" else raw_gradients)
        gradients, factor, clipped = clipped_to(clip, gradients, grad_norm)
        update(variables, gradients, factor, learning_rate)
        loss, tokens = replicas.total(tf.reduce_sum(losses)), replicas.number() * tf.size(losses)
        return replicas.whole_batch(state), sums.after(loss, tokens, grad_norm, clipped)

    @tf.function(autograph=False)
    def train_step(*arguments):
        results = strategy.run(replica_step, arguments)
        return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], results)

    return train_step


def cost_of(model, objective, inputs, targets, state, dropout_seed):
    """Returns what a step descends on, a scalar; the losses of the targets that count; and the state for the next window.

    Where only the last `objective.num_steps` of a window count, the next window begins that many steps after this one, and what
    lies before them is there to carry the gradient further back than one update reaches: ρ longer than the update interval in
    Element-Research's `rnn`, BPTT(h; h') of Williams & Peng (1990).
    """
    count = objective.num_steps or inputs.shape[1]
    layers = len(model.recurrent_layers)  # their masks, and those before the softmax, fold in 0 to this
    with on_host():
        other_masks, samples = tf.random.fold_in(dropout_seed, layers + 1), tf.random.fold_in(dropout_seed, layers + 2)
        inputs, rest, targets = inputs[:, :count], inputs[:, count:], targets[:, -count:]
    features, state = model.features(inputs, state, training=True, dropout_seed=dropout_seed)
    if rest.shape[1]:
        more, _ = model.features(rest, state, training=True, dropout_seed=other_masks)
        features = tf.concat([features, more], 0)[-count:]
    if objective.softmax_samples:
        descended, losses = model.sampled_cross_entropy(features, targets, objective.softmax_samples, samples)
    else:
        descended = losses = model.cross_entropy(features, targets)
    cost = tf.reduce_sum(descended) / losses.shape[0] if objective.reduction == "sum" else tf.reduce_mean(descended)
    if objective.softmax_l2:
        cost += objective.softmax_l2 * tf.reduce_sum(tf.square(model.softmax_weights.value))
    return cost, losses, state


def clipped_to(clip, gradients, norm):
    """Returns gradients, the factor that is still to be put to them, and whether they were over the limit."""
    if clip.kind == "element":
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        largest = tf.reduce_max([tf.reduce_max(tf.abs(gradient)) for gradient in gradients])
        limited = [tf.clip_by_value(gradient, -clip.limit, clip.limit) for gradient in gradients]
        return limited, tf.ones_like(norm), largest > clip.limit
    reached = norm if clip.kind == "unit" else tf.maximum(norm, clip.limit)
    return gradients, tf.math.divide_no_nan(tf.cast(clip.limit, norm.dtype), reached), norm > clip.limit


def sum_repeats(slices):
    """Returns the same gradient with all that belongs to one row of the variable in the first of its slices, the others zero.

    That keeps the shape: `tf.unique` would make it depend on the data, and the program wait until the GPU has told it.
    """
    rows = slices.indices
    with on_host():
        order = tf.argsort(rows, stable=True)
        first = tf.gather(order, tf.searchsorted(tf.gather(rows, order), rows))
    return tf.IndexedSlices(tf.math.unsorted_segment_sum(slices.values, first, tf.size(rows)), rows, slices.dense_shape)


def descend(variables, gradients, factor, learning_rate):
    """Subtracts `factor * learning_rate` times its gradient from each variable, in place."""
    rate = factor * learning_rate
    for variable, gradient in zip(variables, gradients):
        if isinstance(gradient, tf.IndexedSlices):
            tf.raw_ops.ResourceScatterSub(resource=variable.handle, indices=gradient.indices, updates=rate * gradient.values)
        else:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)


def keras_update(optimizer, model):
    """Returns what does the same as `descend` with an optimiser of Keras's, whose variables exist from now on."""
    optimizer.build(model.trainable_variables)

    def update(variables, gradients, factor, learning_rate):
        share = factor / replicas.number()  # Keras adds up what its replicas bring
        dense = [share * tf.convert_to_tensor(gradient) for gradient in gradients]
        optimizer.learning_rate.assign(learning_rate)
        optimizer.apply(dense, model.trainable_variables)

    return update
