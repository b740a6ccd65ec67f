"""The state of a run: what counts as diverged, which weights are the best, and what a checkpoint restores or rejects."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf

from configs import TEST
from helpers.texts import raises_one_line
from ptb.config import RMSprop, override
from ptb.model.language_model import build_model
from ptb.training.optimizers import make_optimizer, make_update
from ptb.training.state import (
    BEST,
    Diverged,
    StateMismatch,
    TrainState,
    array_like,
    assign_variables,
    best_weights,
    model_weights,
    trained_variables,
)
from ptb.training.step import Sums

CONFIG = override(TEST, {"layers": (3, 2), "batch_size": 4})


def new_state(seed=1, **fields):
    model = build_model(CONFIG, 5, seed=seed)
    return TrainState(trained_variables(model), model.initial_state(CONFIG.batch_size), Sums.zero(), **fields)


def state_with(sums, **fields):
    return TrainState({}, (), sums, **fields)


# Divergence.


@pytest.mark.parametrize(
    ("loss", "grad_norm", "named"),
    [(math.nan, 1.0, "nan"), (math.inf, 1.0, "inf"), (100.0, math.inf, "inf"), (100.0, math.nan, "nan"), (1e5, 1.0, "46.1")],
)
def test_what_counts_as_diverged_in_a_step_whenever_it_is_checked(loss, grad_norm, named):
    state = state_with(Sums.zero().after(20.0, 10.0, 2.0, False), step=3, epoch=2, learning_rate=0.5)
    assert state.check().loss == 20.0
    state.sums = state.sums.after(loss, 10.0, grad_norm, False).after(20.0, 10.0, 2.0, False)
    with raises_one_line(Diverged, named, "step 3", "epoch 2", "0.5") as error:
        state.check()
    assert error.value.what in str(error.value)


def test_one_bad_step_of_an_untrained_model_is_no_divergence():
    """The third step of `large` has 23 nats per word."""
    state_with(Sums.zero().after(9.2 * 700, 700, 5.0, False).after(23.0 * 700, 700, 500.0, True)).check()


def test_a_loss_that_stays_high_is_found_at_the_end_of_the_epoch():
    state = state_with(Sums.zero().after(9.2 * 700, 700, 5.0, False))
    state.check_epoch()
    for _ in range(20):
        state.sums = state.sums.after(30.0 * 700, 700, 5.0, True)
    state.check()
    with raises_one_line(Diverged, "e+12", "1e+09"):
        state.check_epoch()


@pytest.mark.parametrize("perplexity", [math.nan, math.inf, 1.1e9])
def test_a_validation_perplexity_that_is_too_large(perplexity):
    state_with(Sums.zero(), valid_perplexity=9e8).check_validation()
    with pytest.raises(Diverged):
        state_with(Sums.zero(), valid_perplexity=perplexity).check_validation()


def test_a_loss_may_be_limited_to_a_multiple_of_the_first():
    first = Sums.zero().after(20.0, 10.0, 1.0, False)
    state = state_with(first, max_loss_ratio=3.0)
    state.advance()
    assert (state.first_loss, state.step, state.window) == (2.0, 1, 1)
    state.sums = first.after(59.0, 10.0, 1.0, False)
    state.check()
    state.sums = first.after(61.0, 10.0, 1.0, False)
    with raises_one_line(Diverged, "limit 6"):
        state.check()


def test_numbers_that_are_not_finite_never_reach_a_checkpoint():
    state = new_state()
    assert state.to_arrays()
    name = "weights/lstm_0/bias"
    bias = state.variables[name].numpy()
    state.variables[name].assign(bias + math.inf)
    with raises_one_line(Diverged, name):
        state.to_arrays()
    state.variables[name].assign(bias)
    state.recurrent = tf.nest.map_structure(lambda tensor: tensor + math.nan, state.recurrent)
    with raises_one_line(Diverged, "carried/state/0"):
        state.to_arrays()


# Validations.


def test_a_validation_that_is_not_a_number_is_never_the_best():
    state = TrainState({"weights/w": tf.Variable(0.0)}, (), Sums.zero())
    for perplexity in (np.nan, 5.0, np.nan, 9.0):
        state.advance()
        state.variables["weights/w"].assign(perplexity)
        state.record_validation(perplexity)
    assert (state.best_perplexity, state.best_step, state.validations_since_best) == (5.0, 2, 2)


def test_weights_are_kept_in_memory_only_if_they_are_others_than_those_of_the_checkpoint():
    state = new_state()
    state.record_validation(5.0, lambda: {"weights/w": 5.0})
    state.record_validation(6.0, lambda: {"weights/w": 6.0})
    assert state.best_weights == {"weights/w": 5.0}
    state.record_validation(4.0)
    assert (state.valid_perplexity, state.best_perplexity, state.best_weights) == (4.0, 4.0, {})


@pytest.mark.parametrize(("patience", "since", "out"), [(0, 9, False), (3, 2, False), (3, 3, True), (3, 4, True)])
def test_patience(patience, since, out):
    assert state_with(Sums.zero(), validations_since_best=since).out_of_patience(patience) == out


# Checkpoints.


def moved_state():
    """A state in the middle of its second epoch, with its best weights."""
    state = new_state(seed=2)
    state.recurrent = tf.nest.map_structure(lambda tensor: tensor + 0.5, state.recurrent)
    state.sums = Sums.zero().after(20.0, 10.0, 2.0, True)
    for _ in range(3):
        state.advance()
    state.record_validation(7.0, lambda: model_weights(state.to_arrays()))
    state.variables["weights/language_model/embedding"].assign_add(tf.ones([5, 3]))
    state.begin_epoch(state.recurrent)
    state.sums = Sums.zero().after(30.0, 10.0, 2.0, False)
    state.advance()
    state.history, state.points, state.precisions = [{"epoch": 1}], [["", "tag", 1, 2.0, 3.0]], ["float32"]
    return state


def test_a_checkpoint_restores_everything():
    saved, restored = moved_state(), new_state()
    arrays, record = saved.to_arrays(), json.loads(json.dumps(saved.to_record()))
    restored.restore(arrays, record)
    assert restored.to_record() == record
    assert (restored.epoch, restored.window, restored.step, restored.best_step) == (2, 1, 4, 3)
    again = restored.to_arrays()
    assert again.keys() == arrays.keys()
    assert any(name.startswith(BEST) for name in arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)


def test_fields_that_an_earlier_version_did_not_record_keep_their_initial_value():
    saved, restored = moved_state(), new_state()
    record = saved.to_record()
    del record["precisions"], record["rate_factor"]
    restored.restore(saved.to_arrays(), record)
    assert (restored.precisions, restored.rate_factor, restored.step) == ([], 1.0, 4)


@pytest.mark.parametrize("change", [{"step": "4"}, {"history": {}}, {"seconds": 1}, {"attention": 1}])
def test_the_record_of_another_version_is_rejected(change):
    state = moved_state()
    with raises_one_line(StateMismatch):
        new_state().restore(state.to_arrays(), state.to_record() | change)


EMBEDDING = "weights/language_model/embedding"


@pytest.mark.parametrize(
    ("name", "array"),
    [
        (EMBEDDING, None),
        (EMBEDDING, np.zeros((5, 4), np.float32)),
        (EMBEDDING, np.zeros((5, 3), np.float64)),
        ("weights/attention", np.zeros(3)),
        ("carried/sums/loss", None),
        ("carried/state/2", np.zeros((3, 2), np.float32)),
    ],
)
def test_arrays_of_another_model_are_rejected_by_name(name, array):
    state = moved_state()
    arrays = {key: value for key, value in (state.to_arrays() | {name: array}).items() if value is not None}
    with raises_one_line(StateMismatch, name):
        new_state().restore(arrays, state.to_record())


def test_the_variables_of_a_model_and_its_optimiser_have_names_of_their_own():
    model, optimizer = build_model(CONFIG, 5), make_optimizer(RMSprop())
    make_update(model, optimizer)
    names = trained_variables(model, optimizer)
    assert {name.split("/")[0] for name in names} == {"weights", "optimizer"}
    assert set(trained_variables(model)) == {name for name in names if name.startswith("weights/")}
    assert EMBEDDING in names
    assert trained_variables(build_model(CONFIG, 5)).keys() == trained_variables(model).keys()  # the second of a process too


def test_only_the_variables_that_are_asked_for_are_assigned():
    variables = {"weights/w": tf.Variable([0.0, 0.0])}
    assign_variables(
        {"weights/w": np.float32([1, 2]), "optimizer/m": np.zeros(3), "carried/sums/loss": np.zeros([])}, variables
    )
    assert variables["weights/w"].numpy().tolist() == [1, 2]
    assert best_weights({f"{BEST}weights/w": 1, "weights/w": 2}) == {"weights/w": 1}
    with raises_one_line(StateMismatch, "weights/v"):
        array_like(tf.zeros([2]), {}, "weights/v")


# The clock.


def test_seconds_count_from_the_last_start_of_the_clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ptb.training.state.time.monotonic", lambda: now[0])
    state = state_with(Sums.zero())
    now[0] = 103.0
    assert state.read_clock() == 3
    now[0] = 110.0  # a validation
    state.start_clock()
    now[0] = 111.0
    assert (state.read_clock(), state.seconds_since_save()) == (4, 11)
    state.mark_saved()
    now[0] = 113.0
    assert (state.seconds_since_save(), state.seconds) == (2, 4)
    state.begin_epoch(())
    assert state.seconds == 0
