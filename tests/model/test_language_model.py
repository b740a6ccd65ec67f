"""The whole model: initial weights, losses against NumPy, where dropout stands, and what Keras needs."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import oracle
from ptb.config import Config, Dropout, Model
from ptb.model.cells import HiddenState
from ptb.model.initializers import OrthogonalBlocks
from ptb.model.language_model import LanguageModel, Recurrent, build_model

VOCAB = 30
SMALL = Model(layers=(6, 5), init_scale=0.8)
SEED = tf.constant([1, 7])


def random_ids(*shape):
    return np.random.default_rng(0).integers(0, VOCAB, shape).astype(np.int32)


def test_weights_start_uniform_in_init_scale_except_the_biases_of_the_lstm():
    model = LanguageModel(500, Model(layers=(40, 40), init_scale=0.05, forget_bias=0.25))
    for variable in model.trainable_variables:
        values = variable.numpy()
        if variable.name == "bias":
            np.testing.assert_array_equal(values, np.repeat([0, 0.25, 0, 0], 40))
        else:
            assert np.abs(values).max() <= 0.05
            assert values.std() == pytest.approx(0.05 / np.sqrt(3), rel=0.1)
    first, second = model.recurrent_layers
    assert not np.array_equal(first.kernel, second.kernel)
    assert not np.array_equal(first.kernel, first.recurrent_kernel)


def test_two_biases_start_uniform_and_the_forget_bias_is_added_once():
    architecture = Model(layers=(500,), init_scale=0.05, forget_bias=0.25, two_biases=True)
    (layer,) = LanguageModel(9, architecture).recurrent_layers
    starts = layer.bias.numpy() - np.repeat([0, 0.25, 0, 0], 500), layer.recurrent_bias.numpy()
    for start in starts:
        assert np.abs(start).max() <= 0.05 + 1e-6
        assert start.std() == pytest.approx(0.05 / np.sqrt(3), rel=0.1)
    assert not np.allclose(*starts)


def test_orthogonal_recurrence_makes_one_orthogonal_matrix_per_gate():
    model = LanguageModel(9, Model(layers=(6, 6), orthogonal_recurrence=True), seed=3)
    blocks = [block for layer in model.recurrent_layers for block in np.split(layer.recurrent_kernel.numpy(), 4, axis=1)]
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, np.eye(6), atol=1e-5)
    assert len({block.tobytes() for block in blocks}) == 8
    assert np.abs(model.recurrent_layers[0].kernel).max() <= 0.1  # the other weights stay uniform


@pytest.mark.parametrize("options", [{}, {"orthogonal_recurrence": True}])
def test_the_seed_decides_the_weights(options):
    weights = [LanguageModel(VOCAB, Model(layers=(4, 4), **options), seed=seed).get_weights() for seed in (1, 1, 2)]
    for one, same in zip(weights[0], weights[1], strict=True):
        np.testing.assert_array_equal(one, same)
    for one, other in zip(weights[0], weights[2]):
        assert not np.array_equal(one, other) or not one.any()  # biases are zero


@pytest.mark.parametrize("options", [{}, {"one_hot_input": True}, {"two_biases": True}])
@pytest.mark.parametrize("rnn_mode", ["stepwise", "fused"])
def test_losses_and_logits_equal_numpy(rnn_mode, options):
    model = LanguageModel(VOCAB, Model(layers=(6, 5), init_scale=0.8, **options), rnn_mode=rnn_mode)
    inputs, targets = random_ids(2, 3, 7)
    expected = oracle.language_model_losses({"embedding": np.eye(VOCAB)} | oracle.weights_of(model), inputs, targets)
    outputs, state = model.outputs(inputs, model.initial_state(3))
    np.testing.assert_allclose(model.head.losses(outputs.dropped, targets), expected, rtol=1e-4)
    logits, same_state = model(inputs, model.initial_state(3))
    log_p = oracle.log_softmax(logits.numpy())
    np.testing.assert_allclose(-np.take_along_axis(log_p, targets[..., None], -1)[..., 0], expected, rtol=1e-4)
    tf.nest.map_structure(np.testing.assert_array_equal, state, same_state)


ARCHITECTURES = {
    "tied": {"layers": (6, 5, 6), "tied": True},
    "embedding size": {"layers": (6, 5), "embedding_size": 4},
    "tied, embedding size": {"layers": (6, 4), "embedding_size": 4, "tied": True},
    "linear projection": {"layers": (6, 5), "projection": "linear"},
    "affine projection, tied": {"layers": (6, 5), "projection": "affine", "embedding_size": 4, "tied": True},
    "sum": {"layers": (5, 5, 5), "sum_layers": True},
    "sum, projection, tied": {"layers": (5, 5), "sum_layers": True, "projection": "linear", "embedding_size": 4, "tied": True},
    "mixture, tied": {"layers": (6, 5), "embedding_size": 4, "mixture": 3, "tied": True},
    "mixture": {"layers": (6, 5), "embedding_size": 4, "mixture": 2},
    "mogrifier": {"layers": (5, 5), "cell": "mogrifier_lstm", "mogrifier_rank": 2, "sum_layers": True, "tied": True},
    "capped": {"layers": (6, 5), "cell": "capped_lstm", "two_biases": True},
}


def make_model(options, **others):
    """Return a float64 model with random weights, biases included."""
    model, rng = LanguageModel(VOCAB, Model(**options), dtype="float64", **others), np.random.default_rng(5)
    model.set_weights([rng.normal(0, 0.7, weights.shape) for weights in model.get_weights()])
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_probabilities_of_every_architecture_equal_numpy(name):
    model, (inputs, targets) = make_model(ARCHITECTURES[name]), random_ids(2, 3, 7)
    expected = oracle.log_probabilities(oracle.weights_of(model), inputs, model.architecture)
    outputs, _ = model.outputs(inputs, model.initial_state(3))
    logits, _ = model(inputs, model.initial_state(3))
    np.testing.assert_allclose(oracle.log_softmax(logits.numpy()), expected, rtol=1e-9, atol=1e-12)
    if model.architecture.mixture:
        np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-12)  # normalised already
    losses = -np.take_along_axis(expected, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(model.head.losses(outputs.features, targets), losses, rtol=1e-9)


def test_tied_weights_are_one_variable():
    for is_tied in (True, False):
        model = LanguageModel(VOCAB, Model(layers=(6, 6), tied=is_tied))
        assert (model.softmax_weights is model.embedding) == is_tied
        names = [variable.name for variable in model.trainable_variables]
        assert ("softmax_weights" in names) == (not is_tied)
        assert len({*names}) == len(names) - 3  # both layers have a kernel, a recurrent_kernel and a bias


def test_the_gradient_of_a_tied_embedding_is_that_of_the_input_and_that_of_the_output():
    model, (inputs, targets) = make_model({"layers": (6,), "tied": True}), random_ids(2, 3, 7)
    with tf.GradientTape() as tape:
        outputs, _ = model.outputs(inputs, model.initial_state(3))
        total = tf.reduce_sum(model.head.losses(outputs.features, targets))
    gradient = tf.convert_to_tensor(tape.gradient(total, model.embedding.value))
    weights = oracle.weights_of(model)
    weights["softmax_weights"] = weights["embedding"]
    parts = oracle.language_model_gradients(weights, inputs, targets, np.ones(inputs.shape))
    np.testing.assert_allclose(gradient, parts["embedding"] + parts["softmax_weights"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cell", ["gru", "peephole_lstm", "sigmoid_rnn"])
def test_layers_pass_their_outputs_on_and_have_a_state_each(cell):
    model = LanguageModel(VOCAB, Model(layers=(6, 5), cell=cell, init_scale=0.8), rnn_mode="stepwise", dtype="float64")
    inputs, rng = random_ids(3, 4), np.random.default_rng(1)
    state = tf.nest.map_structure(lambda t: tf.constant(rng.normal(size=t.shape)), model.initial_state(3))
    outputs, new_state = model.outputs(inputs, state)
    features = model.embedding.numpy()[inputs.T]
    for layer, before, after, got in zip(model.recurrent_layers, state, new_state, outputs.layers, strict=True):
        features, *expected = oracle.CELLS[cell](features, *[tensor.numpy() for tensor in before], *layer.get_weights())
        np.testing.assert_allclose(got, features, rtol=1e-9)
        np.testing.assert_allclose(tf.stack(after), expected, rtol=1e-9)
    np.testing.assert_array_equal(outputs.raw, outputs.layers[-1])
    np.testing.assert_array_equal(outputs.dropped, outputs.raw)  # outside training


def test_products_in_bfloat16_reach_every_layer_and_the_head():
    inputs, targets = random_ids(2, 3, 7)
    results = []
    for product_dtype in (None, "bfloat16"):
        model = LanguageModel(VOCAB, SMALL, product_dtype=product_dtype)
        first, _ = model.outputs(inputs, model.initial_state(3))[0].layers
        alone = model.recurrent_layers[1](tf.ones([1, 3, 6]), model.initial_state(3)[1])[0]  # without the error of the first
        features = tf.ones([1, 3, 5])
        results.append([first, alone, model.head.losses(features, targets[:, :1]), model.head.logits(features)])
        assert all(tensor.dtype == tf.float32 for tensor in results[-1])
    for exact, rounded in zip(*results):
        assert 1e-5 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 3e-2
    model.set_product_dtype("float32")
    np.testing.assert_array_equal(model.outputs(inputs, model.initial_state(3))[0].layers[0], results[0][0])
    np.testing.assert_array_equal(model.head.logits(features), results[0][3])


def test_a_policy_of_two_types_has_no_effect_and_is_rejected_as_an_argument():
    inputs = random_ids(3, 4)
    expected, _ = LanguageModel(VOCAB, SMALL)(inputs, LanguageModel(VOCAB, SMALL).initial_state(3))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = LanguageModel(VOCAB, SMALL)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(model(inputs, model.initial_state(3))[0], expected)
    with pytest.raises(ValueError, match="product_dtype"):
        LanguageModel(VOCAB, SMALL, dtype="mixed_bfloat16")


def test_build_model_passes_the_configuration_and_its_options_on():
    config = Config(model=Model(layers=(3,), cell="gru"), dropout=Dropout(hidden=0.25))
    model = build_model(config, 9, rnn_mode="stepwise", product_dtype="bfloat16", seed=5, dtype="float64")
    assert (model.architecture, model.dropout_rates) == (config.model, config.dropout)
    assert (model.vocab_size, model.seed, model.dtype, model.product_dtype) == (9, 5, "float64", tf.bfloat16)


def test_paths_of_the_variables_do_not_depend_on_how_many_models_there_are():
    one, other = (LanguageModel(VOCAB, SMALL) for _ in range(2))
    paths = [variable.path for variable in one.trainable_variables]
    assert paths == [variable.path for variable in other.trainable_variables]
    assert {"language_model/embedding", "lstm_0/kernel", "lstm_1/recurrent_kernel"} <= {*paths}


def test_lstm_weights_move_to_and_from_keras_unchanged():
    ours = LanguageModel(VOCAB, Model(layers=(6,))).recurrent_layers[0]
    theirs = keras.layers.LSTM(6)
    theirs.build((None, None, 6))
    assert [(v.name, v.shape) for v in ours.variables] == [(v.name, v.shape) for v in theirs.cell.trainable_variables]
    weights = [np.random.default_rng(0).normal(size=variable.shape).astype(np.float32) for variable in ours.variables]
    for source, target in ((ours, theirs), (theirs, ours)):
        source.set_weights(weights)
        target.set_weights(source.get_weights())
        for got, expected in zip(target.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(got, expected)
        weights = [2 * weight for weight in weights]


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "gru", "bias_initializer": "ones"},
        {"cell": "mogrifier_lstm", "mogrifier_rounds": 2, "mogrifier_rank": 1},
        {"two_biases": True, "forget_bias": 0.5, "recurrent_initializer": OrthogonalBlocks(seed=2)},
    ],
)
def test_keras_rebuilds_a_layer_from_its_configuration(options):
    uniform = keras.initializers.RandomUniform(-0.3, 0.3, seed=4)
    layer = Recurrent(4, name="layer", **{"kernel_initializer": uniform, "recurrent_initializer": uniform} | options)
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert copy.get_config() == layer.get_config()
    for each in (layer, copy):
        each.build((None, None, 3))
    for one, other in zip(layer.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


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


@pytest.mark.parametrize("rnn_mode", ["stepwise", "fused"])
def test_no_dropout_on_recurrent_connections(rnn_mode):
    """Dropout cannot change an embedding of zeros, so the layer stays exact unless dropout reaches the recurrence."""
    model = LanguageModel(VOCAB, Model(layers=(16,), init_scale=0.5), Dropout.everywhere(0.5), rnn_mode=rnn_mode)
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
