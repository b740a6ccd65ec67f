"""Dropout by the numbers: share, scale, and what decides a mask."""

import itertools
import types

import numpy as np
import pytest
import tensorflow as tf

from ptb.model.dropout import constant_mask, dropout, row_mask
from ptb.runtime import replicas

ONES = np.ones((6, 20, 200), np.float32)  # [num_steps, batch, size]


def masks(seed, place=0, rate=0.5, locked=False):
    return dropout(tf.constant(ONES), rate, tf.constant(seed), place, locked).numpy() == 0


@pytest.mark.parametrize("rate", [0.2, 0.65])
def test_the_rate_is_the_share_that_is_dropped_and_the_rest_is_scaled(rate):
    features = np.random.default_rng(0).normal(size=ONES.shape).astype(np.float32)
    dropped = dropout(tf.constant(features), rate, tf.constant([0, 0]), 0).numpy()
    assert (dropped == 0).mean() == pytest.approx(rate, abs=0.01)
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], features[kept] / (1 - rate), rtol=1e-6)


def test_each_time_step_and_each_row_has_a_mask_of_its_own():
    mask = masks([1, 7])
    for axis in (0, 1):
        for one, other in itertools.combinations(np.moveaxis(mask, axis, 0)[:5], 2):
            assert (one != other).mean() == pytest.approx(0.5, abs=0.1)


def test_a_locked_mask_is_the_same_at_all_steps_and_different_in_each_row():
    mask = masks([1, 7], locked=True)
    for step in mask[1:]:
        np.testing.assert_array_equal(step, mask[0])
    for one, other in itertools.combinations(mask[0], 2):
        assert (one != other).mean() == pytest.approx(0.5, abs=0.15)
    for size in (1, 9):  # of windows: a longer one has the same mask
        shorter = dropout(tf.ones([size, 20, 200]), 0.5, tf.constant([1, 7]), 0, locked=True)
        np.testing.assert_array_equal(shorter[0] == 0, mask[0])


@pytest.mark.parametrize("rate", [0.2, 0.65])
def test_a_locked_mask_drops_the_rate_and_scales_the_rest(rate):
    dropped = dropout(tf.constant(ONES), rate, tf.constant([0, 0]), 0, locked=True).numpy()
    assert (dropped == 0).mean() == pytest.approx(rate, abs=0.03)
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / (1 - rate)], rtol=1e-6)


@pytest.mark.parametrize("locked", [False, True])
def test_seed_and_place_decide_the_masks(locked):
    def mask(*seed, place=0):
        return masks(seed, place, locked=locked)

    np.testing.assert_array_equal(mask(1, 7), mask(1, 7))
    different = [mask(1, 7), mask(1, 8), mask(2, 7), mask(1, 7, place=1), mask(1, 7, place=2)]
    for one, other in itertools.combinations(different, 2):
        assert (one != other).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("locked", [False, True])
def test_the_rows_of_several_replicas_have_the_masks_of_one(locked, count, monkeypatch):
    """Also the masks of the recurrent state, and those of weights, which all replicas share."""
    seed = tf.constant([1, 7])
    whole = dropout(tf.constant(ONES), 0.5, seed, 0, locked)
    whole_state, weights = (mask([1, 20, 200], 0.5, seed, 3, tf.float32) for mask in (row_mask, constant_mask))
    rows, states = [], []
    for replica in range(count):
        monkeypatch.setattr(replicas, "num_replicas", lambda: count)
        context = types.SimpleNamespace(replica_id_in_sync_group=tf.constant(replica))
        monkeypatch.setattr(tf.distribute, "get_replica_context", lambda context=context: context)
        shape = [6, 20 // count, 200]
        rows.append(dropout(tf.ones(shape), 0.5, seed, 0, locked))
        states.append(row_mask([1, *shape[1:]], 0.5, seed, 3, tf.float32))
        np.testing.assert_array_equal(constant_mask([1, 20, 200], 0.5, seed, 3, tf.float32), weights)
    np.testing.assert_array_equal(tf.concat(rows, 1), whole)
    np.testing.assert_array_equal(tf.concat(states, 1), whole_state)


def test_a_rate_of_zero_needs_no_seed():
    np.testing.assert_array_equal(dropout(ONES, 0.0, None, 0), ONES)
    with pytest.raises(ValueError, match="dropout_seed"):
        dropout(ONES, 0.1, None, 0)
