"""The learning rates of the published configurations, epoch by epoch."""

import pytest

from configs import CONFIGS
from ptb.schedule import learning_rate


def rates(name):
    config = CONFIGS[name]
    return [config.learning_rate_of(epoch) for epoch in range(1, config.num_epochs + 1)]


def test_small_trains_four_epochs_at_full_rate_then_halves():
    assert rates("small") == [1, 1, 1, 1, *[0.5**k for k in range(1, 10)]]


def test_medium_trains_six_epochs_at_full_rate_then_divides_by_1_2():
    assert rates("medium") == pytest.approx([1] * 6 + [1.2**-k for k in range(1, 34)])
    assert rates("medium_tutorial_decay") == pytest.approx([1] * 6 + [0.8**k for k in range(1, 34)])


def test_large_trains_fourteen_epochs_at_full_rate_then_divides_by_1_15():
    assert rates("large") == pytest.approx([1] * 14 + [1.15**-k for k in range(1, 42)])


def test_test_trains_one_epoch():
    assert rates("test") == [1]


def test_the_lua_convention_has_one_more_epoch_at_full_rate():
    assert rates("small_lua_decay") == [1, 1, 1, 1, 1, *[0.5**k for k in range(1, 9)]]


def test_an_unknown_convention_is_an_error():
    with pytest.raises(KeyError, match="keras"):
        learning_rate(1, base=1, decay=0.5, full_rate_epochs=1, convention="keras")
