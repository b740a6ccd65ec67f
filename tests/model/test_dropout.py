"""Dropout by the numbers: share, scale, and what decides a mask."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from ptb.model.dropout import dropout

ONES = np.ones((6, 20, 200), np.float32)  # [num_steps, batch, size]


def masks(seed, place=0, rate=0.5):
    return dropout(tf.constant(ONES), rate, tf.constant(seed), place).numpy() == 0


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


def test_seed_and_place_decide_the_masks():
    np.testing.assert_array_equal(masks([1, 7]), masks([1, 7]))
    different = [masks([1, 7]), masks([1, 8]), masks([2, 7]), masks([1, 7], place=1), masks([1, 7], place=2)]
    for one, other in itertools.combinations(different, 2):
        assert (one != other).mean() == pytest.approx(0.5, abs=0.02)


def test_a_rate_of_zero_needs_no_seed():
    np.testing.assert_array_equal(dropout(ONES, 0.0, None, 0), ONES)
    with pytest.raises(ValueError, match="dropout_seed"):
        dropout(ONES, 0.1, None, 0)
