"""One training step against the same in NumPy: the scale of the loss, the global norm, repeated words, the update."""

import numpy as np
import pytest
import tensorflow as tf

import placement
from configs import CONFIGS
from ptb.model import LanguageModel
from ptb.training import Clip, Objective, Sums, make_train_step, sum_repeats

BATCH, STEPS, VOCAB = 4, 5, 11
SEED = np.array([0, 0], np.int32)


def window():
    inputs, targets = np.random.default_rng(0).integers(0, VOCAB, (2, BATCH, STEPS)).astype(np.int32)
    inputs[:, 0] = 3  # a word that is repeated within the window
    return inputs, targets


def losses_of(model, inputs, targets):
    return model.cross_entropy(model.features(inputs, model.initial_state(BATCH))[0], targets)


def gradients_of_mean_loss(model, inputs, targets):
    """Dense gradients of the mean loss per token, by automatic differentiation through one-hot inputs and stock ops."""
    table = tf.convert_to_tensor(model.embedding.value)
    variables = [variable.value for variable in model.trainable_variables if variable is not model.embedding]
    with tf.GradientTape() as tape:
        tape.watch(table)
        features = tf.one_hot(inputs.T, VOCAB) @ table
        for layer, state in zip(model.recurrent_layers, model.initial_state(BATCH)):
            features, _ = layer(features, state)
        logits = features @ tf.transpose(model.softmax_weights.value) + model.softmax_bias.value
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets.T, logits))
    gradients = tape.gradient(loss, [table, *variables])
    return float(loss), [gradient.numpy().astype(np.float64) for gradient in gradients]


def step(model, max_grad_norm, rate=0.5, kind="norm", norm_of_repeats="summed", **choices):
    """Trains one step. Returns what each variable has changed by, and the sums."""
    before = [variable.numpy() for variable in model.trainable_variables]
    train_step = make_train_step(model, Clip(max_grad_norm, kind, norm_of_repeats), **choices)
    _, sums = train_step(*window(), model.initial_state(BATCH), Sums.zero(), np.float32(rate), SEED)
    return [variable.numpy() - old for variable, old in zip(model.trainable_variables, before)], sums


@pytest.fixture
def model():
    return LanguageModel(VOCAB, 6, 2, init_scale=0.6, rnn_mode="basic")


def test_the_loss_is_summed_over_time_and_averaged_over_the_batch(model):
    mean_loss, gradients = gradients_of_mean_loss(model, *window())
    changes, sums = step(model, max_grad_norm=1e9)
    assert float(sums.loss) == pytest.approx(mean_loss * BATCH * STEPS, rel=1e-5)
    assert float(sums.tokens) == BATCH * STEPS
    for change, gradient in zip(changes, gradients):
        np.testing.assert_allclose(change, -0.5 * STEPS * gradient, rtol=1e-3, atol=1e-6)


def test_the_global_norm_is_that_of_all_gradients_as_one_vector_with_repeated_words_summed(model):
    _, gradients = gradients_of_mean_loss(model, *window())
    norm = STEPS * np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    changes, sums = step(model, max_grad_norm=norm / 4)
    assert float(sums.grad_norm) == pytest.approx(norm, rel=1e-4)
    assert float(sums.clipped_steps) == 1
    for change, gradient in zip(changes, gradients):
        np.testing.assert_allclose(change, -0.5 * STEPS * gradient / 4, rtol=1e-3, atol=1e-6)


def test_a_norm_below_the_limit_is_left_alone(model):
    changes, sums = step(model, max_grad_norm=1e3)
    assert 0 < float(sums.grad_norm) < 1e3
    assert float(sums.clipped_steps) == 0
    unclipped, _ = step(LanguageModel(VOCAB, 6, 2, init_scale=0.6, rnn_mode="basic"), max_grad_norm=1e9)
    tolerance = 1e-5 if tf.config.list_physical_devices("GPU") else 0  # whose sums have no fixed order
    for change, wanted in zip(changes, unclipped):
        np.testing.assert_allclose(change, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())


def test_repeats_apart_is_what_tensorflows_clipping_measures(model):
    inputs, targets = window()
    with tf.GradientTape() as tape:
        losses = losses_of(model, inputs, targets)
        cost = tf.reduce_sum(losses) / BATCH
    gradients = tape.gradient(cost, [variable.value for variable in model.trainable_variables])
    assert isinstance(gradients[0], tf.IndexedSlices)
    wanted = tf.clip_by_global_norm(gradients, 1.0)[1]
    apart, summed = (float(step(model, 1e9, rate=0, norm_of_repeats=how)[1].grad_norm) for how in ("apart", "summed"))
    assert apart == pytest.approx(float(wanted), rel=1e-5)
    assert summed != pytest.approx(apart, rel=1e-4)


def test_the_mean_objective_is_the_mean_of_all_losses(model):
    _, gradients = gradients_of_mean_loss(model, *window())
    changes, _ = step(model, max_grad_norm=1e9, objective=Objective("mean"))
    for change, gradient in zip(changes, gradients):
        np.testing.assert_allclose(change, -0.5 * gradient, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_a_unit_clip_makes_the_gradient_as_long_as_the_limit_be_it_longer_or_shorter(model, limit):
    changes, _ = step(model, limit, rate=1.0 / limit, kind="unit")
    assert np.sqrt(sum((change**2).sum() for change in changes)) == pytest.approx(1, rel=1e-4)


def test_an_element_clip_limits_each_element_of_the_true_gradient(model):
    _, gradients = gradients_of_mean_loss(model, *window())
    limit = STEPS * 0.02
    changes, sums = step(model, limit, kind="element")
    assert float(sums.clipped_steps) == 1
    assert any((np.abs(STEPS * gradient) > limit).any() and (np.abs(STEPS * gradient) < limit).any() for gradient in gradients)
    for change, gradient in zip(changes, gradients):
        np.testing.assert_allclose(change, -0.5 * np.clip(STEPS * gradient, -limit, limit), rtol=1e-3, atol=1e-6)
    assert float(step(model, 1e3, kind="element")[1].clipped_steps) == 0


def test_decay_of_the_softmax_weights_pulls_them_to_zero_and_is_no_part_of_the_loss(model):
    weights = model.softmax_weights.numpy()
    plain_model = LanguageModel(VOCAB, 6, 2, init_scale=0.6, rnn_mode="basic")
    plain, plain_sums = step(plain_model, 1e9)
    decayed, sums = step(model, 1e9, objective=Objective(softmax_l2=0.1))
    assert float(sums.loss) == float(plain_sums.loss)
    for variable, change, wanted in zip(model.trainable_variables, decayed, plain):
        wanted = wanted - 0.5 * 0.1 * 2 * weights if variable is model.softmax_weights else wanted
        np.testing.assert_allclose(change, wanted, rtol=1e-4, atol=1e-6)


def test_a_sampled_softmax_reports_its_estimate_and_descends_on_the_other(model, monkeypatch):
    def exact_and_sevens(model, features, targets, *_):
        return model.cross_entropy(features, targets), tf.fill(targets.shape, 7.0)

    monkeypatch.setattr(LanguageModel, "sampled_cross_entropy", exact_and_sevens)
    _, gradients = gradients_of_mean_loss(model, *window())
    changes, sums = step(model, max_grad_norm=1e9, objective=Objective(softmax_samples=3))
    assert float(sums.loss) == 7 * BATCH * STEPS
    for change, gradient in zip(changes, gradients):
        np.testing.assert_allclose(change, -0.5 * STEPS * gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("keep_prob", "samples"), [(0.5, 0), (1.0, 3)])
def test_masks_and_draws_follow_the_seed_of_the_step(keep_prob, samples):
    def loss(seed, keep_prob=keep_prob, samples=samples):
        model = LanguageModel(VOCAB, 6, 2, init_scale=0.6, keep_prob=keep_prob)
        train_step = make_train_step(model, Clip(1e9), objective=Objective(softmax_samples=samples))
        seed = np.array(seed, np.int32)
        return float(train_step(*window(), model.initial_state(BATCH), Sums.zero(), np.float32(0), seed)[1].loss)

    assert loss([1, 7]) == loss([1, 7])
    assert len({loss([1, 7]), loss([1, 8]), loss([2, 7]), loss([1, 7], keep_prob=1.0, samples=0)}) == 4


def test_rmsprop_is_torchs_as_char_rnn_uses_it(model):
    config = CONFIGS["char_rnn"]
    optimizer = config.make_optimizer()
    train_step = make_train_step(model, Clip(1e9), optimizer)
    mean_square = [0.0] * len(model.trainable_variables)
    for count in range(3):
        before = [variable.numpy().astype(np.float64) for variable in model.trainable_variables]
        _, gradients = gradients_of_mean_loss(model, *window())
        rate = 2e-3 / (1 + count)
        train_step(*window(), model.initial_state(BATCH), Sums.zero(), np.float32(rate), SEED)
        for index, (variable, old, gradient) in enumerate(zip(model.trainable_variables, before, gradients)):
            gradient = STEPS * gradient
            mean_square[index] = 0.95 * mean_square[index] + 0.05 * gradient**2
            wanted = -rate * gradient / (np.sqrt(mean_square[index]) + 1e-8)
            clear = np.abs(gradient) > 1e-4  # float32 noise is no gradient, and RMSprop makes it as large as one
            np.testing.assert_allclose((variable.numpy() - old)[clear], wanted[clear], rtol=2e-2, atol=1e-6)


def test_where_the_gradient_reaches_further_back_the_last_losses_count_and_the_state_is_that_of_one_update(model):
    inputs, targets = window()
    objective = Objective(num_steps=2)
    train_step = make_train_step(model, Clip(1e9), objective=objective)
    losses = losses_of(model, inputs, targets)
    _, wanted = model.features(inputs[:, :2], model.initial_state(BATCH))
    state, sums = train_step(inputs, targets, model.initial_state(BATCH), Sums.zero(), np.float32(0), SEED)
    assert float(sums.tokens) == 2 * BATCH
    assert float(sums.loss) == pytest.approx(float(tf.reduce_sum(losses[:, -2:])), rel=1e-5)
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, wanted)


def test_sum_repeats_by_hand():
    slices = tf.IndexedSlices(tf.constant([[1.0, 2], [10, 20], [100, 200], [5, 5]]), tf.constant([7, 2, 7, 4]))
    summed = sum_repeats(slices)
    np.testing.assert_array_equal(summed.indices, [7, 2, 7, 4])
    np.testing.assert_array_equal(summed.values, [[101, 202], [10, 20], [0, 0], [5, 5]])


def test_the_state_is_carried_from_window_to_window(model):
    inputs, targets = window()
    train_step = make_train_step(model, Clip(5.0))
    state, _ = train_step(inputs, targets, model.initial_state(BATCH), Sums.zero(), np.float32(0), SEED)
    _, wanted = model.features(inputs, model.initial_state(BATCH))
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, wanted)


def test_a_changing_learning_rate_step_and_state_trace_nothing_again(model):
    train_step, state, sums = make_train_step(model, Clip(5.0)), model.initial_state(BATCH), Sums.zero()
    for count in range(4):
        rate, seed = np.float32(1 / (1 + count)), np.array([0, count], np.int32)
        state, sums = train_step(*window(), state, sums, rate, seed)
    assert train_step.experimental_get_tracing_count() == 1
    assert float(sums.steps) == 4


def test_training_learns_a_window_by_heart():
    inputs, targets = window()
    inputs[:, 0] = np.arange(BATCH)  # a different first word for each row, or the first target could not be known
    model = LanguageModel(VOCAB, 16, 1, init_scale=0.1)
    train_step, sums = make_train_step(model, Clip(5.0)), None
    for _ in range(400):
        _, sums = train_step(inputs, targets, model.initial_state(BATCH), Sums.zero(), np.float32(0.5), SEED)
    assert float(sums.loss) / float(sums.tokens) < 0.05  # from log 11 = 2.4


def traced(config):
    """Returns the graph of a configuration's training step with the kernels that it would have on a GPU."""
    model = config.make_model(VOCAB, rnn_mode="cudnn" if config.cell == "lstm" else "basic")
    train_step = make_train_step(model, config.gradient_clip(), config.make_optimizer(), config.objective())
    words = tf.TensorSpec([config.batch_size, config.num_steps + config.overlap], tf.int32)
    state, sums = tf.nest.map_structure(tf.type_spec_from_value, (model.initial_state(config.batch_size), Sums.zero()))
    return train_step.get_concrete_function(words, words, state, sums, tf.TensorSpec([]), tf.TensorSpec([2], tf.int32)).graph


@pytest.mark.skipif(not placement.knows_gpus(), reason="a TensorFlow that was built without GPUs")
@pytest.mark.parametrize("name", ["medium", "small_repeats_apart", "small_sampled", "small_patient", "char_rnn", "element_rnn"])
def test_a_step_would_ask_a_gpu_for_nothing(name):
    graph = traced(CONFIGS[name])
    assert placement.returns_to_host(graph) == []
    operations = {operation.type for operation in graph.get_operations()}
    assert not operations & {"CudnnRNN", "CudnnRNNV2"}  # which refuse to run with cuDNN 9
    assert ("CudnnRNNV3" in operations) == (CONFIGS[name].cell == "lstm")


@pytest.mark.skipif(not placement.knows_gpus(), reason="a TensorFlow that was built without GPUs")
def test_what_a_gpu_would_be_asked_for_is_found():
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([2, 3], tf.int32)])
    def flattened(words):
        return tf.reshape(tf.transpose(words), [-1])  # the first on a GPU, the second never

    assert placement.returns_to_host(flattened.get_concrete_function().graph) == [("transpose", "Reshape")]
