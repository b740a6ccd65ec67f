"""The short form of `make soak`."""

import soak


def test_a_run_killed_again_and_again_ends_as_an_unbroken_one(tmp_path):
    soak.survive(6, tmp_path)  # which compares each end
