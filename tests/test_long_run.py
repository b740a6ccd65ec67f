"""A long run in short: `make soak` takes 20,000 steps."""

import long_run


def test_a_long_run_is_steady(tmp_path):
    notes = long_run.watch(1_000, tmp_path)
    assert [note["step"] for note in notes] == list(range(50, 1_001, 50))
    long_run.assert_steady(notes)
