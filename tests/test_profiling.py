"""The profile of some steps: written where TensorBoard looks for it, and without a change to what the steps give."""

import numpy as np
import pytest
import tensorflow as tf

from ptb.profiling import profiled


def profiles(folder):
    return list(folder.glob("plugins/profile/*/*.xplane.pb"))


def doubling():
    return tf.function(lambda x: 2 * x, autograph=False)


def test_a_profile_is_written_and_every_step_is_still_done(tmp_path):
    with profiled(doubling(), tmp_path, first=1, count=2) as double:
        for number in range(5):
            assert double(np.float32(number)).numpy() == 2 * number
            assert bool(profiles(tmp_path)) == (number >= 2)


def test_what_ends_early_is_recorded_and_the_next_can_be(tmp_path):
    for attempt in ("first", "second"):
        with pytest.raises(KeyError), profiled(doubling(), tmp_path / attempt, first=1, count=9) as double:
            for number in range(3):
                double(np.float32(number))
            raise KeyError
        assert profiles(tmp_path / attempt)


def test_too_few_steps_to_record_are_said_to_be(tmp_path, caplog):
    with profiled(doubling(), tmp_path, first=10) as double:
        double(np.float32(1))
    assert "nothing was recorded, which begins after 10 steps" in caplog.text
    assert not profiles(tmp_path)
