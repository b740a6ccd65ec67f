"""The whole model: initial weights, losses against NumPy, and what Keras needs."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import oracle
from ptb.config import Config, Dropout, Model
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
def test_losses_and_logits_equal_numpy(options):
    model = LanguageModel(VOCAB, Model(layers=(6, 5), init_scale=0.8, **options))
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


def test_a_layer_of_its_own_draws_each_matrix_anew_from_one_seed():
    uniform = keras.initializers.RandomUniform(-0.3, 0.3, seed=4)
    layer = Recurrent(
        4,
        kernel_initializer=uniform,
        recurrent_initializer=OrthogonalBlocks(seed=2),
        cell="mogrifier_lstm",
        mogrifier_rounds=3,
        mogrifier_rank=2,
    )
    layer.build((None, None, 4))
    gates = np.split(layer.recurrent_kernel.numpy(), 4, 1)
    matrices = [weight.numpy() for weight in layer.extra_weights if weight.name.endswith("_a")]
    for one, other in [*itertools.combinations(gates, 2), *itertools.combinations(matrices, 2)]:
        assert one.shape == other.shape and not np.allclose(one, other)
    for gate in gates:
        np.testing.assert_allclose(gate.T @ gate, np.eye(4), atol=1e-6)
