"""Where dropout stands in the model, and what each rate drops."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from ptb.config import Dropout, Model
from ptb.model.cells import HiddenState
from ptb.model.language_model import LanguageModel

VOCAB = 30
SMALL = Model(layers=(6, 5), init_scale=0.8)
SEED = tf.constant([1, 7])


def random_ids(*shape):
    return np.random.default_rng(0).integers(0, VOCAB, shape).astype(np.int32)


def record_dropout(monkeypatch):
    """Return a list that grows by (features, rate, result) at each dropout."""
    calls, stateless_dropout = [], tf.nn.experimental.stateless_dropout

    def recorded(features, rate, seed):
        calls.append((features.numpy(), rate, stateless_dropout(features, rate, seed).numpy()))
        return calls[-1][2]

    monkeypatch.setattr(tf.nn.experimental, "stateless_dropout", recorded)
    return calls


def test_dropout_stands_before_the_first_layer_between_layers_and_after_the_last(monkeypatch):
    """Each place has a rate and a mask of its own."""
    calls = record_dropout(monkeypatch)
    model = LanguageModel(VOCAB, Model(layers=(32, 32, 32), init_scale=0.5), Dropout(input=0.25, hidden=0.5, output=0.75))
    inputs = np.arange(24, dtype=np.int32).reshape(4, 6)
    outputs, _ = model.outputs(inputs, model.initial_state(4), training=True, dropout_seed=SEED)
    before, rates, after = zip(*calls)
    assert rates == (0.25, 0.5, 0.5, 0.75)
    np.testing.assert_array_equal(before[0], model.embedding.numpy()[inputs.T])
    for layer, state, dropped, features, raw in zip(
        model.recurrent_layers, model.initial_state(4), after[:-1], before[1:], outputs.layers, strict=True
    ):
        np.testing.assert_array_equal(features, layer(dropped, state)[0])
        np.testing.assert_array_equal(features, raw)  # the outputs of layers are those before dropout
    np.testing.assert_array_equal(outputs.dropped, after[-1])
    masks = [tensor == 0 for tensor in after]
    for (one, p), (other, q) in itertools.combinations(zip(masks, rates), 2):
        assert (one != other).mean() == pytest.approx(p * (1 - q) + q * (1 - p), abs=0.1)


@pytest.mark.parametrize("place", ["input", "hidden", "output"])
def test_a_rate_of_zero_leaves_its_place_out(monkeypatch, place):
    calls = record_dropout(monkeypatch)
    rates = {"input": 0.25, "hidden": 0.5, "output": 0.75}
    model = LanguageModel(VOCAB, SMALL, Dropout(**rates | {place: 0.0}))
    model.outputs(random_ids(4, 6), model.initial_state(4), training=True, dropout_seed=SEED)
    assert [rate for _, rate, _ in calls] == [rate for name, rate in rates.items() if name != place]


def test_dropout_is_off_outside_training():
    model = LanguageModel(VOCAB, SMALL, Dropout.everywhere(0.5))
    inputs, state = random_ids(4, 6), model.initial_state(4)
    expected = LanguageModel(VOCAB, SMALL)(inputs, state)[0]
    np.testing.assert_array_equal(model(inputs, state)[0], expected)
    np.testing.assert_array_equal(model(inputs, state, dropout_seed=SEED)[0], expected)
    assert not np.allclose(model(inputs, state, training=True, dropout_seed=SEED)[0], expected)


def test_training_without_a_dropout_seed_is_an_error_if_a_rate_is_above_zero():
    model = LanguageModel(VOCAB, SMALL, Dropout(output=0.5))
    with pytest.raises(ValueError, match="dropout_seed"):
        model(random_ids(3, 4), model.initial_state(3), training=True)
    model = LanguageModel(VOCAB, SMALL)
    model(random_ids(3, 4), model.initial_state(3), training=True)


def test_no_dropout_on_recurrent_connections():
    """Dropout cannot change an embedding of zeros, so the layer stays exact unless dropout reaches the recurrence."""
    model = LanguageModel(VOCAB, Model(layers=(16,), init_scale=0.5), Dropout.everywhere(0.5))
    model.embedding.assign(tf.zeros_like(model.embedding))
    rng = np.random.default_rng(0)
    state = tf.nest.map_structure(lambda t: tf.constant(rng.normal(size=t.shape), tf.float32), model.initial_state(4))
    inputs = np.zeros((4, 6), np.int32)
    outputs, last = model.outputs(inputs, state, training=True, dropout_seed=SEED)
    exact, exact_last = model.outputs(inputs, state)
    tf.nest.map_structure(np.testing.assert_array_equal, last, exact_last)
    np.testing.assert_array_equal(outputs.raw, exact.raw)
    kept = outputs.dropped.numpy() != 0
    np.testing.assert_allclose(outputs.dropped.numpy()[kept], 2 * exact.raw.numpy()[kept], rtol=1e-6)


# Dropout inside the recurrence and of embeddings. With the tanh_rnn, an output tells what went in: atanh(h') = x W + h R.


def make_transparent(dropout_rates, units=20, layers=1, recurrent=None, tied=False):
    """Return a float64 model of tanh_rnn layers, W = 1 and R = `recurrent` (by default 0), with small random embeddings."""
    architecture = Model(layers=(units,) * layers, cell="tanh_rnn", tied=tied)
    model, rng = LanguageModel(VOCAB, architecture, dropout_rates, dtype="float64"), np.random.default_rng(3)
    model.embedding.assign(rng.uniform(0.01, 0.05, (VOCAB, units)))
    for layer in model.recurrent_layers:
        layer.kernel.assign(np.eye(units))
        layer.recurrent_kernel.assign(np.zeros((units, units)) if recurrent is None else recurrent)
    return model


def run_training(model, inputs, state=None, seed=SEED):
    """Return the inverse tanh of each layer's outputs in training, `[num_steps, batch, units]`."""
    state = model.initial_state(len(inputs)) if state is None else (HiddenState(tf.constant(state)),)
    outputs, _ = model.outputs(inputs, state, training=True, dropout_seed=seed)
    return [np.arctanh(layer.numpy()) for layer in outputs.layers]


def test_dropped_recurrent_weights_are_the_same_at_all_steps_and_drawn_again_in_each_window():
    recurrent = np.random.default_rng(4).uniform(0.05, 0.1, (20, 20))
    model = make_transparent(Dropout(weights=0.3), recurrent=recurrent)
    model.embedding.assign(np.zeros((VOCAB, 20)))
    masks = []
    for window in range(3):
        first, second = run_training(model, random_ids(20, 2), np.eye(20), tf.constant([1, window]))[0]
        masks.append(first / recurrent)  # row k of the batch has the state e_k, so it reads row k of R
        np.testing.assert_allclose(second, np.tanh(first) @ (recurrent * masks[-1]), rtol=1e-9)
        np.testing.assert_allclose(np.unique(masks[-1].round(9)), [0, 1 / 0.7])
        assert (masks[-1] == 0).mean() == pytest.approx(0.3, abs=0.08)
    for one, other in itertools.combinations(masks, 2):
        assert ((one == 0) != (other == 0)).mean() == pytest.approx(2 * 0.3 * 0.7, abs=0.1)


def test_only_recurrent_weights_are_dropped():
    model, inputs = make_transparent(Dropout(weights=0.5), layers=2), random_ids(4, 6)
    exact, _ = model.outputs(inputs, model.initial_state(4))
    for layer, expected in zip(run_training(model, inputs), exact.layers, strict=True):
        np.testing.assert_allclose(np.tanh(layer), expected, rtol=1e-12)


def test_the_mask_of_the_recurrent_state_is_the_same_at_all_steps_and_different_over_rows_layers_and_windows():
    model, inputs = make_transparent(Dropout(state=0.4), layers=2, recurrent=0.5 * np.eye(20)), random_ids(30, 6)
    masks = []
    for window in range(2):
        below = model.embedding.numpy()[inputs.T]
        for layer in run_training(model, inputs, seed=tf.constant([1, window])):
            hidden = np.tanh(layer)
            mask = (layer[1:] - below[1:]) / (0.5 * hidden[:-1])
            for step in mask[1:]:
                np.testing.assert_allclose(step, mask[0], atol=1e-9)
            masks += [mask[0].round(9)]
            np.testing.assert_allclose(np.unique(masks[-1]), [0, 1 / 0.6])
            below = hidden  # the output goes up undropped
    for one, other in itertools.combinations(masks, 2):
        assert (one != other).mean() == pytest.approx(2 * 0.4 * 0.6, abs=0.1)
    for one, other in itertools.combinations(masks[0][:5], 2):
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("tied", [False, True])
def test_rows_of_the_embedding_are_dropped_by_word_type_for_the_input_alone(tied):
    model, inputs = make_transparent(Dropout(embedding=0.3), tied=tied), random_ids(40, 15)
    dropped = []
    for window in range(2):
        seed = tf.constant([1, window])
        (seen,) = run_training(model, inputs, seed=seed)
        scales = seen / model.embedding.numpy()[inputs.T]
        by_word = [np.unique(scales[word == inputs.T].round(9)) for word in range(VOCAB)]
        assert {len(values) for values in by_word} == {1}  # all elements of all occurrences have one factor
        factors = np.concatenate(by_word)
        np.testing.assert_allclose(np.unique(factors), [0, 1 / 0.7])
        dropped.append(factors == 0)
        logits, _ = model(inputs, model.initial_state(40), training=True, dropout_seed=seed)
        full = np.tanh(seen) @ model.softmax_weights.numpy().T + model.softmax_bias.numpy()
        np.testing.assert_allclose(logits, full.transpose(1, 0, 2), rtol=1e-9)
    assert 0.1 < np.mean(dropped) < 0.5
    assert not np.array_equal(*dropped)


def test_locked_dropout_is_the_same_at_all_steps_at_each_place():
    rates = Dropout(input=0.5, hidden=0.5, output=0.5, projected=0.5, locked=True)
    architecture = Model(layers=(16, 16), projection="linear", cell="tanh_rnn", init_scale=0.5)
    model = LanguageModel(VOCAB, architecture, rates, dtype="float64")
    inputs = random_ids(4, 6)
    outputs, _ = model.outputs(inputs, model.initial_state(4), training=True, dropout_seed=SEED)
    places = [outputs.dropped.numpy() == 0, outputs.features.numpy() == 0]
    for mask in places:
        assert (mask == mask[0]).all()
        assert len({row.tobytes() for row in mask[0]}) == 4
    np.testing.assert_allclose(outputs.dropped, outputs.raw * 2 * ~places[0], rtol=1e-12)
    projected = outputs.dropped.numpy() @ model.projection.numpy()
    np.testing.assert_allclose(outputs.features, projected * 2 * ~places[1], rtol=1e-12)
    scanned = model.embedding.numpy()[inputs.T]
    kernel = model.recurrent_layers[0].kernel.numpy()
    seen = np.arctanh(outputs.layers[0].numpy())
    seen[1:] -= outputs.layers[0].numpy()[:-1] @ model.recurrent_layers[0].recurrent_kernel.numpy()
    mask = np.stack([np.linalg.lstsq(kernel.T, step.T, rcond=None)[0].T for step in seen]) / scanned
    np.testing.assert_allclose(mask, np.broadcast_to(mask[0], mask.shape), atol=1e-6)
    assert {*np.unique(mask.round(5))} == {0, 2}


def test_every_rate_acts_in_training_alone():
    inputs, architecture = random_ids(4, 3), Model(layers=(6, 6), projection="linear", init_scale=0.8)
    model = LanguageModel(VOCAB, architecture)
    exact, _ = model(inputs, model.initial_state(4))
    for name in ("input", "hidden", "output", "projected", "state", "embedding", "weights"):
        model = LanguageModel(VOCAB, architecture, Dropout(**{name: 0.5}))
        np.testing.assert_array_equal(model(inputs, model.initial_state(4))[0], exact)
        assert not np.allclose(model(inputs, model.initial_state(4), training=True, dropout_seed=SEED)[0], exact)
