"""Learning rates: of the published configurations epoch by epoch, and of each schedule by hand."""

import math
import types

import numpy as np
import pytest

from configs import AWD_LSTM, CONFIGS
from ptb.config import SGD, Config, Cosine, Data, OneCycle, Plateau, StepDecay, override
from ptb.training.schedules import count_plateaus, learning_rate, length_factor, step_rate


def rates(config):
    return [learning_rate(config, epoch) for epoch in range(1, config.num_epochs + 1)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("small", [1] * 4 + [0.5**k for k in range(1, 10)]),
        ("small_lua_decay", [1] * 5 + [0.5**k for k in range(1, 9)]),
        ("medium", [1] * 6 + [1.2**-k for k in range(1, 34)]),
        ("medium_tutorial_decay", [1] * 6 + [0.8**k for k in range(1, 34)]),
        ("large", [1] * 14 + [1.15**-k for k in range(1, 42)]),
        ("large_lua_decay_two_biases", [1] * 15 + [1.15**-k for k in range(1, 41)]),
        ("test", [1]),
        ("gru", [0.5] * 4 + [0.5**k for k in range(2, 11)]),
    ],
)
def test_the_full_rate_is_kept_and_then_decays_by_the_factor(name, expected):
    assert rates(CONFIGS[name].config) == pytest.approx(expected)


def test_no_epoch_at_full_rate():
    config = Config(optimizer=SGD(learning_rate=8), schedule=StepDecay(full_rate_epochs=0, factor=0.5), num_epochs=3)
    assert rates(config) == [4, 2, 1]


def rate(schedule, share=0.0, validations=()):
    return learning_rate(Config(optimizer=SGD(learning_rate=8), schedule=schedule), 1, share, validations)


@pytest.mark.parametrize(
    ("validations", "patience", "plateaus"),
    [
        ([], 1, 0),
        ([9], 1, 0),
        ([9, 8, 7], 1, 0),
        ([9, 9], 1, 1),  # as good is not better
        ([9, 8, 8.5, 8.2, 7], 1, 2),  # the second is better than the one before, but not the best
        ([9, 10, 8, 9, 10, 7], 1, 3),
        ([9, 10, 8, 9, 10, 7], 2, 1),
        ([9, 10, 10, 10, 10, 10], 2, 2),  # and again after as many more
        ([9, 10, 8, 10, 7, 10], 2, 0),  # a new best starts the count again
        ([math.nan, 9, math.nan], 1, 2),
    ],
)
def test_plateaus_by_hand(validations, patience, plateaus):
    assert count_plateaus(validations, patience) == plateaus
    assert rate(Plateau(factor=0.25, patience_to_decay=patience), 0.5, validations) == 8 * 0.25**plateaus


@pytest.mark.parametrize(("share", "expected"), [(0, 0), (0.1, 4), (0.2, 8), (0.4, 2 + 6 * (2 + 2**0.5) / 4), (0.6, 5), (1, 2)])
def test_cosine_by_hand(share, expected):
    """A fifth of the steps is warm-up; the end is a quarter of the full rate of 8."""
    assert rate(Cosine(warmup=0.2, final_factor=0.25), share) == pytest.approx(expected)


def test_a_cosine_without_warm_up_starts_at_the_full_rate_and_ends_at_zero():
    assert [rate(Cosine(), share) for share in (0, 0.5, 1)] == pytest.approx([8, 4, 0])


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 2), (0.2, 5), (0.4, 8), (0.6, 5), (0.8, 2), (0.9, 1.04), (0.95, 0.56), (1, 0.08)]
)
def test_one_cycle_by_hand(share, expected):
    assert rate(OneCycle(start_divisor=4, rise=0.4, final_factor=0.01), share) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", [StepDecay(full_rate_epochs=1, factor=0.5), Cosine(), OneCycle(rise=0.5), Plateau()])
def test_the_rate_of_a_step_is_that_of_its_share_of_the_training(schedule):
    """After the last window of an epoch it is still that of this window: a run may be resumed there."""
    config, rates = Config(optimizer=SGD(learning_rate=8), schedule=schedule, num_epochs=3), []
    for epoch in (1, 2, 3):
        for window in range(5):
            state = types.SimpleNamespace(epoch=epoch, window=window, rate_factor=0.5, validations=[7, 8])
            rates.append(step_rate(config, state, 4))
            expected = learning_rate(config, epoch, (epoch - 1 + min(window, 3) / 4) / 3, [7, 8])
            assert rates[-1] == pytest.approx(0.5 * expected)
        assert rates[-1] == rates[-2]


@pytest.mark.parametrize(("length", "factor"), [(35, 0.5), (70, 1), (85, 85 / 70)])
def test_the_rate_of_a_window_of_random_length_is_scaled_by_its_length(length, factor):
    window = np.zeros((20, length), np.int32)
    assert length_factor(AWD_LSTM, window) == pytest.approx(factor)
    assert length_factor(override(AWD_LSTM, {"data": Data()}), window) == 1


def test_the_sum_of_a_shorter_window_needs_no_lower_rate():
    """Its gradient has fewer terms already. Adam divides by the size of the gradient."""
    window, summed = np.zeros((20, 35), np.int32), override(AWD_LSTM, {"reduction": "sum", "ar": 0, "tar": 0})
    assert length_factor(summed, window) == 1
    assert length_factor(override(summed, {"optimizer": "Adam"}), window) == 0.5
