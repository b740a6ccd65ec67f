"""The profile of some steps: written where TensorBoard looks for it, and without a change to what the steps give."""

import numpy as np
import tensorflow as tf

from ptb.profiling import profiled


def test_a_profile_is_written_and_every_step_is_still_done(tmp_path):
    double = profiled(tf.function(lambda x: 2 * x, autograph=False), tmp_path, first=1, count=2)
    for number in range(5):
        assert double(np.float32(number)).numpy() == 2 * number
        assert bool(list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))) == (number >= 2)
