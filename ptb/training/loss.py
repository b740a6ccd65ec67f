"""What a training step minimises: the losses of a window, reduced, plus penalties."""

import tensorflow as tf

from ptb.config import Loss
from ptb.runtime.devices import on_host


def loss_fn(model, config: Loss, inputs, targets, state, dropout_seed, burn_in: int = 0):
    """Return the scalar to minimise, the losses `[batch, steps]` of the targets that count, and the next window's state.

    `inputs` and `targets` are int32 `[batch, burn_in + steps]`. The first `burn_in` losses do not count: these steps carry the
    gradient further back than one update reaches. The next window begins `steps` after this one, and the state returned is the
    state there (ρ longer than the update interval in Element-Research's `rnn`; BPTT(h; h') of Williams & Peng 1990).
    """
    steps = inputs.shape[1] - burn_in
    num_layers = len(model.recurrent_layers)  # the masks of a window use places 0 to num_layers
    with on_host():
        other_masks, samples = (tf.random.fold_in(dropout_seed, num_layers + extra) for extra in (1, 2))
        inputs, rest, targets = inputs[:, :steps], inputs[:, steps:], targets[:, -steps:]
    outputs, state = model.outputs(inputs, state, training=True, dropout_seed=dropout_seed)
    features = outputs.dropped
    if burn_in:
        more, _ = model.outputs(rest, state, training=True, dropout_seed=other_masks)
        features = tf.concat([features, more.dropped], 0)[-steps:]
    if config.softmax_samples:
        minimised, losses = model.head.sampled_losses(features, targets, config.softmax_samples, samples)
    else:
        minimised = losses = model.head.losses(features, targets)
    cost = tf.reduce_sum(minimised) / losses.shape[0] if config.reduction == "sum" else tf.reduce_mean(minimised)
    if config.softmax_l2:
        cost += config.softmax_l2 * tf.reduce_sum(tf.square(model.softmax_weights.value))
    return cost, losses, state
