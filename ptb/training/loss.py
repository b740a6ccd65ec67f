"""What a training step minimises: the losses of a window, reduced, plus penalties."""

import tensorflow as tf

from ptb.config import Loss
from ptb.model.language_model import MaskPlaces
from ptb.runtime.devices import on_host


def loss_fn(model, config: Loss, inputs, targets, state, dropout_seed, burn_in: int = 0):
    """Return the scalar to minimise, the losses `[batch, steps]` of the targets that count, and the next window's state.

    `inputs` and `targets` are int32 `[batch, burn_in + steps]`. The first `burn_in` losses do not count: these steps carry the
    gradient further back than one update reaches. The next window begins `steps` after this one, and the state returned is the
    state there (ρ longer than the update interval in Element-Research's `rnn`; BPTT(h; h') of Williams & Peng 1990).
    """
    steps = inputs.shape[1] - burn_in
    places = MaskPlaces(len(model.recurrent_layers))
    with on_host():
        other_masks, samples = (tf.random.fold_in(dropout_seed, place) for place in (places.after_burn_in, places.samples))
        inputs, rest, targets = inputs[:, :steps], inputs[:, steps:], targets[:, -steps:]
    outputs, state = model.outputs(inputs, state, training=True, dropout_seed=dropout_seed)
    features = outputs.features
    if burn_in:
        more, _ = model.outputs(rest, state, training=True, dropout_seed=other_masks)
        features = tf.concat([features, more.features], 0)[-steps:]
    if config.softmax_samples:
        minimised, losses = model.head.sampled_losses(features, targets, config.softmax_samples, samples)
    else:
        minimised = losses = model.head.losses(features, targets)
    cost = tf.reduce_sum(minimised) / losses.shape[0] if config.reduction == "sum" else tf.reduce_mean(minimised)
    return cost + penalties(model, config, outputs), losses, state


def penalties(model, config: Loss, outputs):
    """Return the sum of the penalties of a configuration; 0 if it has none.

    AR and TAR are means over all elements of the last layer's output (AWD-LSTM, main.py): AR of the squares after dropout, TAR
    of the squared changes from one time step to the next before dropout.
    """
    total = 0.0
    if config.softmax_l2:
        total += config.softmax_l2 * tf.reduce_sum(tf.square(model.softmax_weights.value))
    if config.l2:
        total += config.l2 * tf.add_n([tf.nn.l2_loss(variable.value) for variable in model.trainable_variables])
    if config.projection_l2:
        total += config.projection_l2 * tf.nn.l2_loss(model.projection.value)
    if config.ar:
        total += config.ar * tf.reduce_mean(tf.square(outputs.dropped))
    if config.tar:
        total += config.tar * tf.reduce_mean(tf.square(outputs.raw[1:] - outputs.raw[:-1]))
    return total
