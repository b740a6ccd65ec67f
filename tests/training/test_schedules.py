"""The learning rates of the published configurations, epoch by epoch."""

import pytest

from configs import CONFIGS
from ptb.config import SGD, Config, StepDecay
from ptb.training.schedules import learning_rate


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
