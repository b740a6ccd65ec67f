"""The training step against NumPy: scale of the loss, gradient, global norm, repeated words, burn-in, update and sums."""

import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from configs import CONFIGS
from helpers import oracle, placement
from ptb.config import SGD, Config, Model, RMSprop, StepDecay, flatten, override
from ptb.model.heads import SoftmaxHead
from ptb.model.language_model import build_model
from ptb.training.averaging import WeightAverages
from ptb.training.gradient_check import tiny_architecture
from ptb.training.optimizers import make_optimizer
from ptb.training.schedules import learning_rate
from ptb.training.step import Sums, make_train_step

BATCH, STEPS, VOCAB = 4, 5, 11
SEED = np.array([0, 0], np.int32)
CONFIG = Config(model=Model(layers=(6, 5), init_scale=0.6), optimizer=SGD(clip_norm=1e9), batch_size=BATCH, num_steps=STEPS)
HAS_GPU = bool(tf.config.list_physical_devices("GPU"))


@pytest.fixture
def eagerly():
    """Run the step without compiling it, which takes a second for each."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def make_window(steps=STEPS):
    inputs, targets = np.random.default_rng(0).integers(0, VOCAB, (2, BATCH, steps)).astype(np.int32)
    inputs[:, 0] = 3  # a word that is repeated within the window
    return inputs, targets


def make_model(config=CONFIG, rnn_mode="stepwise"):
    return build_model(config, VOCAB, rnn_mode=rnn_mode)


def train_one_step(config=CONFIG, rate=0.5, seed=SEED, model=None):
    """Return what one step from a state of zeros changes each weight by, the next state, and the sums."""
    model = model or make_model(config)
    train_step = make_train_step(model, config, make_optimizer(config.optimizer))
    before, window = oracle.weights_of(model), make_window(config.num_steps + config.burn_in)
    state, sums = train_step(*window, model.initial_state(BATCH), Sums.zero(), np.float32(rate), seed)
    return {name: after - before[name] for name, after in oracle.weights_of(model).items()}, state, sums.read()


def numpy_gradients(d_losses=1 / BATCH, steps=STEPS):
    """Return the gradients of the sum over time of the mean over the batch, or of the losses weighted by `d_losses`."""
    window = make_window(steps)
    return oracle.language_model_gradients(oracle.weights_of(make_model()), *window, np.broadcast_to(d_losses, window[0].shape))


def numpy_losses(steps=STEPS):
    return oracle.language_model_losses(oracle.weights_of(make_model()), *make_window(steps))


def global_norm(arrays):
    return np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in arrays.values()))


def assert_changes(changes, gradients, rate=0.5):
    """Check that each weight changed by −rate times its gradient."""
    assert changes.keys() == gradients.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(changes[name], -rate * gradient, rtol=1e-3, atol=1e-6, err_msg=name)


def test_the_loss_is_summed_over_time_and_averaged_over_the_batch():
    changes, _, sums = train_one_step()
    assert_changes(changes, numpy_gradients())
    assert sums.loss == pytest.approx(numpy_losses().sum(), rel=1e-5)
    assert sums.largest_loss == pytest.approx(numpy_losses().mean(), rel=1e-5)
    assert (sums.tokens, sums.steps, sums.clipped_steps) == (BATCH * STEPS, 1, 0)
    assert sums.grad_norm == pytest.approx(global_norm(numpy_gradients()), rel=1e-4)


def test_a_norm_above_the_limit_scales_all_gradients_down_as_one_vector(eagerly):
    """The norm is that of the true gradient: rows of repeated words are summed before it is taken."""
    gradients = numpy_gradients()
    norm = global_norm(gradients)
    changes, _, sums = train_one_step(override(CONFIG, {"clip_norm": norm / 4}))
    assert sums.grad_norm == pytest.approx(norm, rel=1e-4)
    assert sums.clipped_steps == 1
    assert_changes(changes, gradients, rate=0.5 / 4)


def test_a_norm_below_the_limit_has_no_effect(eagerly):
    changes, _, sums = train_one_step(override(CONFIG, {"clip_norm": 1e3}))
    assert 0 < sums.grad_norm < 1e3
    assert sums.clipped_steps == 0
    tolerance = 1e-5 if HAS_GPU else 0  # a GPU adds in no fixed order
    for name, unclipped in train_one_step()[0].items():
        np.testing.assert_allclose(changes[name], unclipped, rtol=tolerance, atol=tolerance * np.abs(unclipped).max())


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_the_unit_clip_scales_the_gradient_to_the_limit_up_or_down(eagerly, limit):
    changes, _, sums = train_one_step(override(CONFIG, {"clip_norm": limit, "clip": "unit"}), rate=1.0 / limit)
    assert global_norm(changes) == pytest.approx(1, rel=1e-4)
    assert sums.clipped_steps == (limit < 1)
    assert sums.grad_norm == pytest.approx(global_norm(numpy_gradients()), rel=1e-4)


def test_the_element_clip_limits_each_element_of_the_true_gradient(eagerly):
    gradients, limit = numpy_gradients(), 0.1
    assert any((np.abs(gradient) > limit).any() and (np.abs(gradient) < limit).any() for gradient in gradients.values())
    changes, _, sums = train_one_step(override(CONFIG, {"clip_norm": limit, "clip": "element"}))
    assert sums.clipped_steps == 1
    assert_changes(changes, {name: np.clip(gradient, -limit, limit) for name, gradient in gradients.items()})
    assert train_one_step(override(CONFIG, {"clip_norm": 1e3, "clip": "element"}))[2].clipped_steps == 0


def test_the_mean_reduction_divides_by_the_steps_too(eagerly):
    changes, _, sums = train_one_step(override(CONFIG, {"reduction": "mean"}), rate=0.5 * STEPS)
    assert_changes(changes, numpy_gradients())
    assert sums.loss == pytest.approx(numpy_losses().sum(), rel=1e-5)


def test_softmax_l2_pulls_the_softmax_weights_to_zero_and_does_not_count_as_loss(eagerly):
    changes, _, sums = train_one_step(override(CONFIG, {"softmax_l2": 0.1}))
    gradients = numpy_gradients()
    gradients["softmax_weights"] += 2 * 0.1 * make_model().softmax_weights.numpy()
    assert_changes(changes, gradients)
    assert sums.loss == pytest.approx(numpy_losses().sum(), rel=1e-5)


def test_l2_is_inside_the_clip_and_weight_decay_after_it(eagerly):
    weights, gradients, limit = oracle.weights_of(make_model()), numpy_gradients(), 0.5
    changes, _, sums = train_one_step(override(CONFIG, {"clip_norm": limit, "weight_decay": 0.3}))
    norm = global_norm(gradients)
    assert sums.grad_norm == pytest.approx(norm, rel=1e-4)
    decayed = {name: limit / norm * gradient + 0.3 * weights[name] for name, gradient in gradients.items()}
    assert_changes(changes, decayed)

    changes, _, sums = train_one_step(override(CONFIG, {"clip_norm": limit, "l2": 0.3}))
    gradients = {name: gradient + 0.3 * weights[name] for name, gradient in gradients.items()}
    norm = global_norm(gradients)
    assert sums.grad_norm == pytest.approx(norm, rel=1e-4)
    assert_changes(changes, {name: limit / norm * gradient for name, gradient in gradients.items()})
    assert sums.loss == pytest.approx(numpy_losses().sum(), rel=1e-5)


def test_ar_and_tar_reach_the_gradient_inside_the_clip(eagerly):
    """Their gradients, from central differences of the model's outputs, are added to those of the losses."""
    changes, _, sums = train_one_step(override(CONFIG, {"ar": 2.0, "tar": 3.0}))
    model, (inputs, _) = make_model(), make_window()
    bias, epsilon = model.recurrent_layers[1].bias, 1e-3

    def penalty():
        raw = model.outputs(inputs, model.initial_state(BATCH))[0].raw.numpy().astype(np.float64)
        return 2 * np.mean(raw**2) + 3 * np.mean((raw[1:] - raw[:-1]) ** 2)

    start, expected = bias.numpy(), numpy_gradients()["lstm_1/bias"]
    for place in range(len(start)):
        for sign in (1, -1):
            bias.assign(start + sign * epsilon * np.eye(len(start), dtype=np.float32)[place])
            expected[place] += sign * penalty() / (2 * epsilon)
    np.testing.assert_allclose(changes["lstm_1/bias"], -0.5 * expected, rtol=1e-3, atol=1e-5)
    assert sums.loss == pytest.approx(numpy_losses().sum(), rel=1e-5)
    assert sums.grad_norm != pytest.approx(global_norm(numpy_gradients()), rel=1e-4)


def test_averages_take_the_weights_after_each_step(eagerly):
    model, window = make_model(), make_window()
    averages = WeightAverages("two_tailed", model.trainable_variables)
    train_step, state, iterates = make_train_step(model, CONFIG, None, averages), model.initial_state(BATCH), []
    for _ in range(3):
        train_step(*window, state, Sums.zero(), np.float32(0.5), SEED)
        iterates.append(model.get_weights())
    for mean, *arrays in zip(averages.chosen().values(), *iterates, strict=True):
        np.testing.assert_allclose(mean, np.mean(arrays, 0), rtol=1e-5, atol=1e-7)


def test_a_sampled_softmax_minimises_the_first_result_and_reports_the_second(eagerly, monkeypatch):
    def exact_and_sevens(head, features, targets, *_):
        return head.losses(features, targets), tf.fill(targets.shape, 7.0)

    monkeypatch.setattr(SoftmaxHead, "sampled_losses", exact_and_sevens)
    changes, _, sums = train_one_step(override(CONFIG, {"softmax_samples": 3}))
    assert_changes(changes, numpy_gradients())
    assert sums.loss == 7 * BATCH * STEPS


@pytest.mark.parametrize("burn_in", [2, 7])
def test_burn_in_carries_the_gradient_further_back_and_has_no_losses_of_its_own(eagerly, burn_in):
    """The next window begins `num_steps` later, so the state returned is the state there."""
    config = override(CONFIG, {"bptt_steps": STEPS + burn_in})
    counts = np.repeat([0, 1 / BATCH], [burn_in, STEPS])
    changes, state, sums = train_one_step(config)
    assert_changes(changes, numpy_gradients(counts, STEPS + burn_in))
    assert sums.tokens == STEPS * BATCH
    assert sums.loss == pytest.approx(numpy_losses(STEPS + burn_in)[:, burn_in:].sum(), rel=1e-5)
    inputs, _ = make_window(STEPS + burn_in)
    model = make_model()
    _, expected = model.outputs(inputs[:, :STEPS], model.initial_state(BATCH))
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, expected)


def test_the_state_goes_in_and_comes_out(eagerly):
    model, (inputs, targets) = make_model(), make_window()
    weights = oracle.weights_of(model)
    train_step, state = make_train_step(model, CONFIG), model.initial_state(BATCH)
    sums = Sums.zero()
    for window in ((inputs[:, :3], targets[:, :3]), (inputs[:, 3:], targets[:, 3:])):
        state, sums = train_step(*window, state, sums, np.float32(0), SEED)
    assert sums.read().loss == pytest.approx(oracle.language_model_losses(weights, inputs, targets).sum(), rel=1e-5)
    _, expected = model.outputs(inputs, model.initial_state(BATCH))
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, expected)


@pytest.mark.parametrize(("rate", "samples"), [(0.5, 0), (0.0, 3)])
def test_masks_and_draws_follow_the_seed_of_the_step(eagerly, rate, samples):
    def loss(*seed, **changes):
        config = override(CONFIG, {"dropout": rate, "softmax_samples": samples} | changes)
        return train_one_step(config, rate=0, seed=np.array(seed, np.int32))[2].loss

    assert loss(1, 7) == loss(1, 7)
    assert len({loss(1, 7), loss(1, 8), loss(2, 7), loss(1, 7, dropout=0.0, softmax_samples=0)}) == 4


def test_sums_add_up_over_steps_and_keep_the_largest_loss():
    sums = Sums.zero()
    for loss, clipped in ((6.0, True), (20.0, False), (4.0, True)):
        sums = sums.after(tf.constant(loss), 4, tf.constant(0.5), clipped)
    assert sums.read() == Sums(loss=30, tokens=12, steps=3, grad_norm=1.5, clipped_steps=2, largest_loss=5)
    assert all(type(value) is float for value in sums.read())


def test_a_step_is_traced_once_and_learns_a_window_by_heart():
    """Learning rate, seed, state and sums change from step to step."""
    inputs, targets = make_window()
    inputs[:, 0] = np.arange(BATCH)  # a different first word in each row: otherwise no model could know the first target
    config = override(CONFIG, {"layers": (16,), "init_scale": 0.1, "clip_norm": 5})
    model = make_model(config)
    train_step, state = make_train_step(model, config), model.initial_state(BATCH)
    for step in range(400):
        rate, seed = np.float32(0.5 + step / 1e4), np.array([0, step], np.int32)
        last, sums = train_step(inputs, targets, state, Sums.zero(), rate, seed)
    assert sums.read().loss / sums.read().tokens < 0.05  # from log 11 = 2.4
    train_step(inputs, targets, last, sums, rate, seed)
    assert train_step.experimental_get_tracing_count() == 1


SCHEDULE = StepDecay(full_rate_epochs=1, factor=0.5)
BASE = override(CONFIG, {"schedule": SCHEDULE, "clip_norm": 1, "learning_rate": 0.5, "num_steps": 2})
OTHER_VALUES = {
    "model.layers": (6, 4),
    "model.cell": "gru",
    "model.init_scale": 0.5,
    "model.two_biases": True,
    "model.forget_bias": 1.0,
    "model.orthogonal_recurrence": True,
    "model.one_hot_input": True,
    "model.embedding_size": 4,
    "model.tied": True,
    "model.projection": "affine",
    "model.sum_layers": True,
    "model.initializers": "torch",
    "model.mogrifier_rounds": 3,
    "model.mogrifier_rank": 1,
    "model.mixture": 2,
    "dropout.input": 0.5,
    "dropout.hidden": 0.5,
    "dropout.output": 0.5,
    "dropout.projected": 0.5,
    "dropout.state": 0.5,
    "dropout.embedding": 0.5,
    "dropout.weights": 0.5,
    "dropout.locked": True,
    "optimizer": RMSprop(learning_rate=0.5, clip_norm=1),
    "optimizer.learning_rate": 0.25,
    "optimizer.clip_norm": 0.05,
    "optimizer.clip": "element",
    "optimizer.rho": 0.5,
    "optimizer.epsilon": 1.0,
    "optimizer.weight_decay": 0.1,
    "schedule.full_rate_epochs": 2,
    "schedule.factor": 0.25,
    "loss.reduction": "mean",
    "loss.softmax_samples": 3,
    "loss.softmax_l2": 0.1,
    "loss.l2": 0.1,
    "loss.projection_l2": 0.1,
    "loss.ar": 2.0,
    "loss.tar": 2.0,
    "bptt_steps": 3,
}
NEEDS = {  # other fields, without which the value would be rejected or have no effect
    "model.tied": {"embedding_size": 5},
    "model.sum_layers": {"layers": (6, 6)},
    "model.mogrifier_rounds": {"cell": "mogrifier_lstm", "mogrifier_rank": 2},
    "model.mogrifier_rank": {"cell": "mogrifier_lstm", "mogrifier_rank": 2},
    "dropout.locked": {"dropout": 0.5},
    "dropout.projected": {"projection": "linear"},
    "optimizer.clip": {"clip_norm": 0.1},
    "optimizer.rho": {"optimizer": "RMSprop"},
    "optimizer.epsilon": {"optimizer": "RMSprop"},
    "loss.projection_l2": {"projection": "linear"},
}
NOT_OF_A_STEP = re.compile(
    r"(stopping|data)\..*|batch_size|num_steps|num_epochs|budget_minutes|averaging|temperature_scaling|schedule"
)


def test_the_fields_that_decide_a_step_are_listed():
    fields = flatten(BASE).keys() | flatten(override(BASE, {"optimizer": "RMSprop"})).keys()
    assert {*OTHER_VALUES} == {path for path in fields if not NOT_OF_A_STEP.fullmatch(path)}


@functools.cache
def changes_of_second_epoch(config):
    changed, _, _ = train_one_step(config, learning_rate(config, 2))
    return {name: change.tolist() for name, change in changed.items()}


@pytest.mark.parametrize("path", OTHER_VALUES)
def test_every_field_reaches_the_step(eagerly, path):
    """Another value gives other weights after the second epoch's first step, or other shapes."""
    base = override(BASE, NEEDS.get(path, {}))
    assert changes_of_second_epoch(base) != changes_of_second_epoch(override(base, {path: OTHER_VALUES[path]}))


def trace(config, monkeypatch):
    """Return the graph of a configuration's training step with the kernels that it would have on a GPU."""
    monkeypatch.setattr("ptb.model.language_model.visible_gpus", lambda: ["a GPU"])
    model, optimizer = build_model(config, VOCAB), make_optimizer(config.optimizer)
    words = tf.TensorSpec([config.batch_size, config.num_steps + config.burn_in], tf.int32)
    state, sums = tf.nest.map_structure(tf.type_spec_from_value, (model.initial_state(config.batch_size), Sums.zero()))
    arguments = words, words, state, sums, tf.TensorSpec([]), tf.TensorSpec([2], tf.int32)
    return make_train_step(model, config, optimizer).get_concrete_function(*arguments).graph


@pytest.mark.skipif(not placement.knows_gpus(), reason="a TensorFlow without GPU kernels")
@pytest.mark.parametrize(
    "name",
    [
        *("medium", "small_sampled", "small_patient", "char_rnn", "element_rnn"),
        *("small_tied_projected", "melis_10m", "awd_lstm", "mogrifier_24m", "mos"),
    ],
)
def test_a_step_on_a_gpu_would_return_nothing_to_the_host(name, monkeypatch):
    config = CONFIGS[name].config
    graph = trace(override(config, {"model": tiny_architecture(config.model), "num_steps": 5}), monkeypatch)
    assert placement.returns_to_host(graph) == []
    operations = {operation.type for operation in graph.get_operations()}
    assert not operations & {"CudnnRNN", "CudnnRNNV2"}  # these refuse to run with cuDNN 9
    assert ("CudnnRNNV3" in operations) == (config.model.cell == "lstm")


@pytest.mark.skipif(not placement.knows_gpus(), reason="a TensorFlow without GPU kernels")
def test_an_operation_that_would_return_to_the_host_is_found():
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([2, 3], tf.int32)])
    def flatten_words(words):
        return tf.reshape(tf.transpose(words), [-1])  # the first would run on a GPU, the second never

    assert placement.returns_to_host(flatten_words.get_concrete_function().graph) == [("transpose", "Reshape")]
