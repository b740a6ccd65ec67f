"""Profiles of some steps: TensorBoard finds them, and the results of the steps do not change."""

import numpy as np
import pytest
import tensorflow as tf

from ptb.runtime.profiling import profile_steps


def profiles(folder):
    return list(folder.glob("plugins/profile/*/*.xplane.pb"))


def doubling():
    return tf.function(lambda x: 2 * x, autograph=False)


def test_a_profile_is_written_and_every_step_still_runs(tmp_path):
    with profile_steps(doubling(), tmp_path, first=1, count=2) as double:
        for number in range(5):
            assert double(np.float32(number)).numpy() == 2 * number
            assert bool(profiles(tmp_path)) == (number >= 2)


def test_an_error_ends_the_profile_and_another_can_follow(tmp_path):
    for attempt in ("first", "second"):
        with pytest.raises(KeyError), profile_steps(doubling(), tmp_path / attempt, first=1, count=9) as double:
            for number in range(3):
                double(np.float32(number))
            raise KeyError
        assert profiles(tmp_path / attempt)


def test_a_warning_if_there_were_too_few_steps(tmp_path, caplog):
    with profile_steps(doubling(), tmp_path, first=10) as double:
        double(np.float32(1))
    assert "--profile" in caplog.text
    assert not profiles(tmp_path)
