"""The whole model: sizes, initial weights, dropout by the numbers, and its losses against NumPy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import oracle
from configs import CONFIGS
from ptb.model import LanguageModel


@pytest.mark.parametrize(
    ("name", "parameters"), [("small", 4_651_600), ("medium", 19_775_200), ("large", 66_022_000), ("test", 50_040)]
)
def test_parameter_counts_are_the_published_ones(name, parameters):
    model = CONFIGS[name].make_model(10_000)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == parameters


def test_weights_start_uniform_in_init_scale_but_for_the_lstm_biases():
    model = LanguageModel(500, 40, 2, init_scale=0.05, forget_bias=0.25)
    for variable in model.trainable_variables:
        values = variable.numpy()
        if variable.name == "bias":
            np.testing.assert_array_equal(values, np.repeat([0, 0.25, 0, 0], 40))
        else:
            assert np.abs(values).max() <= 0.05
            assert values.std() == pytest.approx(0.05 / np.sqrt(3), rel=0.1)
    first, second = model.recurrent_layers
    assert not np.array_equal(first.kernel, second.kernel)


def test_two_biases_start_uniform_too_and_the_forget_bias_is_added_once():
    (layer,) = LanguageModel(9, 500, 1, init_scale=0.05, forget_bias=0.25, two_biases=True).recurrent_layers
    one, other = layer.bias.numpy() - np.repeat([0, 0.25, 0, 0], 500), layer.recurrent_bias.numpy()
    for start in (one, other):
        assert np.abs(start).max() <= 0.05 + 1e-6
        assert start.std() == pytest.approx(0.05 / np.sqrt(3), rel=0.1)
    assert not np.allclose(one, other)


def test_the_seed_decides_the_weights():
    weights = [LanguageModel(30, 4, 2, seed=seed).get_weights() for seed in (1, 1, 2)]
    for one, same in zip(weights[0], weights[1]):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(weights[0][0], weights[2][0])


@pytest.mark.parametrize("options", [{}, {"one_hot_input": True}, {"two_biases": True}])
@pytest.mark.parametrize("rnn_mode", ["basic", "fused"])
def test_losses_are_numpys_and_calls_logits_agree_with_them(rnn_mode, options):
    model = LanguageModel(30, 6, 2, init_scale=0.8, rnn_mode=rnn_mode, **options)
    rng = np.random.default_rng(0)
    inputs, targets = rng.integers(0, 30, (2, 3, 7)).astype(np.int32)
    wanted = oracle.language_model_losses({"embedding": np.eye(30)} | oracle.weights_of(model), inputs, targets)
    features, state = model.features(inputs, model.initial_state(3))
    np.testing.assert_allclose(model.cross_entropy(features, targets), wanted, rtol=1e-4)
    logits, same_state = model(inputs, model.initial_state(3))
    log_probabilities = oracle.log_softmax(logits.numpy())
    np.testing.assert_allclose(-np.take_along_axis(log_probabilities, targets[..., None], -1)[..., 0], wanted, rtol=1e-4)
    tf.nest.map_structure(np.testing.assert_array_equal, state, same_state)


def test_keras_saves_it_whole(tmp_path):
    saved = LanguageModel(30, 6, 2, cell="gru", keep_prob=0.5, seed=3)
    saved.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"LanguageModel": LanguageModel})
    assert loaded.get_config() == saved.get_config()
    inputs = np.arange(12, dtype=np.int32).reshape(3, 4)
    for ours, theirs in zip(saved(inputs, saved.initial_state(3)), loaded(inputs, loaded.initial_state(3))):
        tf.nest.map_structure(np.testing.assert_array_equal, ours, theirs)


def test_a_policy_of_two_types_changes_nothing_and_is_refused_as_an_argument():
    inputs = np.zeros((3, 4), np.int32)
    expected, _ = LanguageModel(30, 6, 2)(inputs, LanguageModel(30, 6, 2).initial_state(3))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = LanguageModel(30, 6, 2)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(model(inputs, model.initial_state(3))[0], expected)
    with pytest.raises(ValueError, match="product_dtype='bfloat16'"):
        LanguageModel(30, 6, 2, dtype="mixed_bfloat16")


def test_dropout_without_a_seed_is_an_error():
    model = LanguageModel(30, 6, 2, keep_prob=0.5)
    with pytest.raises(ValueError, match="dropout_seed"):
        model(np.zeros((3, 4), np.int32), model.initial_state(3), training=True)


def test_lstm_weights_move_to_and_from_keras_unchanged():
    ours = LanguageModel(30, 6, 1).recurrent_layers[0]
    theirs = keras.layers.LSTM(6)
    theirs.build((None, None, 6))
    assert [(v.name, v.shape) for v in ours.variables] == [(v.name, v.shape) for v in theirs.cell.trainable_variables]
    weights = [np.random.default_rng(0).normal(size=variable.shape).astype(np.float32) for variable in ours.variables]
    for source, target in ((ours, theirs), (theirs, ours)):
        source.set_weights(weights)
        target.set_weights(source.get_weights())
        for got, wanted in zip(target.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(got, wanted)
        weights = [2 * weight for weight in weights]


def features(model, inputs, seed):
    return model.features(inputs, model.initial_state(len(inputs)), training=True, dropout_seed=tf.constant(seed))[0].numpy()


def test_dropout_draws_a_new_mask_at_each_time_step_and_follows_the_seed():
    model = LanguageModel(30, 200, 1, keep_prob=0.5, init_scale=0.5)
    inputs = np.zeros((4, 6), np.int32)
    masks = features(model, inputs, [1, 7]) == 0  # before the softmax
    assert masks.mean() == pytest.approx(0.5, abs=0.03)
    for t in range(1, 6):
        assert (masks[t] != masks[0]).mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(masks, features(model, inputs, [1, 7]) == 0)
    for other in ([1, 8], [2, 7]):
        assert (masks != (features(model, inputs, other) == 0)).mean() == pytest.approx(0.5, abs=0.05)


def test_dropout_drops_its_share_and_is_off_outside_training():
    model = LanguageModel(30, 64, 1, keep_prob=0.8, init_scale=0.5)
    inputs = np.zeros((50, 20), np.int32)
    dropped, _ = model.features(inputs, model.initial_state(50), True, tf.constant([0, 0]))
    assert (dropped.numpy() == 0).mean() == pytest.approx(0.2, abs=0.01)
    without, _ = model.features(inputs, model.initial_state(50))
    model.keep_prob = 1.0
    np.testing.assert_array_equal(without, model.features(inputs, model.initial_state(50), True, tf.constant([0, 0]))[0])


@pytest.mark.parametrize("rnn_mode", ["basic", "fused"])
def test_no_dropout_on_recurrent_connections(rnn_mode):
    """With an embedding of zeros dropout cannot touch the input, so a first layer that is still exact was reached by none."""
    model = LanguageModel(30, 16, 1, keep_prob=0.5, init_scale=0.5, rnn_mode=rnn_mode)
    model.embedding.assign(tf.zeros_like(model.embedding))
    rng = np.random.default_rng(0)
    state = tf.nest.map_structure(lambda t: tf.constant(rng.normal(size=t.shape), tf.float32), model.initial_state(4))
    inputs = np.zeros((4, 6), np.int32)
    dropped, last = model.features(inputs, state, training=True, dropout_seed=tf.constant([1, 1]))
    exact, exact_last = model.features(inputs, state)
    tf.nest.map_structure(np.testing.assert_array_equal, last, exact_last)
    kept = dropped.numpy() != 0
    np.testing.assert_allclose(dropped.numpy()[kept], 2 * exact.numpy()[kept], rtol=1e-6)


def test_the_first_and_the_last_dropout_can_be_left_out():
    """What is left stands between the layers, as `torch.nn.LSTM` has it: one layer has none, the second of two sees it."""
    inputs = np.arange(24, dtype=np.int32).reshape(4, 6)
    for layers in (1, 2):
        model = LanguageModel(30, 32, layers, keep_prob=0.5, drop_input=False, drop_output=False, init_scale=0.5)
        dropped, state = model.features(inputs, model.initial_state(4), True, tf.constant([1, 1]))
        without, exact = model.features(inputs, model.initial_state(4))
        assert np.array_equal(dropped, without) == (layers == 1)
        assert not (dropped.numpy() == 0).any()
        np.testing.assert_array_equal(state[0].hidden, exact[0].hidden)


def test_dropout_stands_on_the_embedding_between_the_layers_and_before_the_softmax(monkeypatch):
    """Each of the three with a mask of its own."""
    dropped = []

    def recorded(features, *arguments):
        dropped.append((features, stateless_dropout(features, *arguments)))
        return dropped[-1][1]

    stateless_dropout = tf.nn.experimental.stateless_dropout
    monkeypatch.setattr(tf.nn.experimental, "stateless_dropout", recorded)
    model = LanguageModel(30, 32, 2, keep_prob=0.5, init_scale=0.5)
    inputs = np.arange(24, dtype=np.int32).reshape(4, 6)
    seen_by_the_softmax = features(model, inputs, [1, 1])
    before, after = zip(*dropped)
    np.testing.assert_array_equal(before[0], model.embedding.numpy()[inputs.T])
    np.testing.assert_array_equal(before[1], model.recurrent_layers[0](after[0], model.initial_state(4)[0])[0])
    np.testing.assert_array_equal(before[2], model.recurrent_layers[1](after[1], model.initial_state(4)[1])[0])
    np.testing.assert_array_equal(seen_by_the_softmax, after[2])
    masks = [tensor.numpy() == 0 for tensor in after]
    for one, other in itertools.combinations(masks, 2):
        assert (one != other).mean() == pytest.approx(0.5, abs=0.1)
