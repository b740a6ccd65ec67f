"""Windows, against cases worked by hand and the expressions of the TensorFlow tutorial."""

import collections
import itertools

import numpy as np
import pytest

import cli
import train
from configs import SMALL
from helpers.texts import raises_one_line
from ptb.config import override
from ptb.data.corpus import read_corpus
from ptb.data.files import DataError
from ptb.data.windows import scoring_windows, validation_windows, windows


def as_lists(result):
    return [(inputs.tolist(), targets.tolist()) for inputs, targets in result]


def test_windows_by_hand():
    complete = [
        ([[0, 1, 2], [8, 9, 10]], [[1, 2, 3], [9, 10, 11]]),
        ([[3, 4, 5], [11, 12, 13]], [[4, 5, 6], [12, 13, 14]]),
    ]
    remainder = ([[6], [14]], [[7], [15]])
    tokens = np.arange(16, dtype=np.int32)
    assert as_lists(windows(tokens, batch_size=2, num_steps=3)) == complete
    assert as_lists(windows(tokens, batch_size=2, num_steps=3, drop_remainder=False)) == [*complete, remainder]


def test_windows_with_burn_in_by_hand():
    result = windows(np.arange(20), batch_size=2, num_steps=2, burn_in=3)
    expected = [
        [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]],
        [[2, 3, 4, 5, 6], [12, 13, 14, 15, 16]],
        [[4, 5, 6, 7, 8], [14, 15, 16, 17, 18]],
    ]
    assert [inputs.tolist() for inputs, _ in result] == expected
    assert [(targets - 1).tolist() for _, targets in result] == expected
    assert as_lists(result[1:]) == as_lists(result)[1:]
    shorter = windows(np.arange(19), batch_size=1, num_steps=8, burn_in=3, drop_remainder=False)
    assert [(inputs[0, 0], inputs.shape[1]) for inputs, _ in shorter] == [(0, 11), (8, 10)]


@pytest.mark.parametrize("num_tokens", [21, 22, 23, 40, 41, 100, 103])
@pytest.mark.parametrize(("batch_size", "num_steps"), [(1, 1), (1, 20), (3, 2), (4, 4), (7, 2)])
def test_windows_are_those_of_the_tutorial(num_tokens, batch_size, num_steps):
    raw_data = np.random.default_rng(0).integers(0, 50, num_tokens, dtype=np.int32)
    batch_len = len(raw_data) // batch_size
    data = np.reshape(raw_data[0 : batch_size * batch_len], [batch_size, batch_len])
    epoch_size = (batch_len - 1) // num_steps
    result = windows(raw_data, batch_size, num_steps)
    assert len(result) == len(list(result)) == epoch_size
    for i, (inputs, targets) in enumerate(result):
        np.testing.assert_array_equal(inputs, data[:, i * num_steps : (i + 1) * num_steps])
        np.testing.assert_array_equal(targets, data[:, i * num_steps + 1 : (i + 1) * num_steps + 1])
    every_step = windows(raw_data, batch_size, num_steps, drop_remainder=False)
    np.testing.assert_array_equal(np.concatenate([inputs for inputs, _ in every_step], axis=1), data[:, :-1])
    np.testing.assert_array_equal(np.concatenate([targets for _, targets in every_step], axis=1), data[:, 1:])


def test_windows_are_a_sequence_of_views(tmp_path):
    np.save(tmp_path / "tokens.npy", np.arange(100, dtype=np.int32))
    tokens = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    result = windows(tokens, batch_size=4, num_steps=5)
    assert isinstance(result, collections.abc.Sequence)
    assert len(result) == 4
    for inputs, targets in result:
        assert inputs.shape == targets.shape == (4, 5)
        assert inputs.dtype == np.int32
        assert np.shares_memory(inputs, tokens)
        assert np.shares_memory(targets, tokens)
        assert not inputs.flags.writeable
    assert result[-1][0].tolist() == result[3][0].tolist()
    assert [inputs[0, 0] for inputs, _ in result[1:]] == [5, 10, 15]
    assert [inputs[0, 0] for inputs, _ in result[::2][1:]] == [10]
    assert len(result[4:]) == 0
    with pytest.raises(IndexError):
        result[4]


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, 720),
        ({"drop_remainder": False}, 40),
        ({"burn_in": 5}, 820),
        ({"burn_in": 5, "drop_remainder": False}, 140),
    ],
)
def test_a_text_too_short_for_one_window_is_an_error(options, needed):
    assert len(windows(np.zeros(needed, np.int32), 20, 35, **options)) == 1
    for num_tokens in (needed - 1, 1, 0):
        facts = ("valid.txt", f"{num_tokens} tokens", "batch_size 20", "num_steps 35", needed)
        with raises_one_line(DataError, *facts):
            windows(np.zeros(num_tokens, np.int32), 20, 35, name="valid.txt", **options)


@pytest.mark.parametrize(
    ("num_tokens", "bptt_steps", "flags"),
    [
        (719, 0, "--set batch_size=2"),  # 359 tokens a stream: ten windows of 35 need 351
        (350, 0, "--set batch_size=1"),
        (36, 0, "--set batch_size=1"),
        (35, 0, "--set batch_size=1 --set num_steps=34"),
        (35, 50, "--set batch_size=1 --set num_steps=34 --set bptt_steps=0"),
        (750, 50, "--set batch_size=2"),
        (2, 0, "--set batch_size=1 --set num_steps=1"),
        (1, 0, None),
    ],
)
def test_the_error_for_a_short_text_names_sizes_that_work(num_tokens, bptt_steps, flags):
    config, tokens = override(SMALL, {"num_steps": 35, "bptt_steps": bptt_steps}), np.zeros(num_tokens, np.int32)
    with pytest.raises(DataError) as caught:
        windows(tokens, config.batch_size, config.num_steps, burn_in=config.burn_in)
    assert str(caught.value).partition("--set")[1:] == (flags.partition("--set")[1:] if flags else ("", ""))
    if flags:
        config = override(config, cli.parse_settings(flags.replace("--set ", "").split()))
        assert len(windows(tokens, config.batch_size, config.num_steps, burn_in=config.burn_in)) >= 1


@pytest.mark.parametrize(
    ("num_tokens", "batch_size", "predictions"),
    [(720, 20, 700), (719, 19, 665), (71, 1, 70), (36, 1, 35), (35, 1, 34), (2, 1, 1)],
)
def test_a_short_text_is_validated_at_the_batch_size_that_fits(num_tokens, batch_size, predictions):
    result = validation_windows(np.arange(num_tokens, dtype=np.int32), 20, 35)
    assert {inputs.shape[0] for inputs, _ in result} == {batch_size}
    assert sum(targets.size for _, targets in result) == predictions


def test_a_text_of_one_token_cannot_be_validated():
    with raises_one_line(DataError, "valid.txt"):
        validation_windows(np.zeros(1, np.int32), 20, 35, name="valid.txt")


@pytest.mark.parametrize(("batch_size", "num_steps", "fact"), [(0, 35, "batch_size 0"), (20, 0, "num_steps 0")])
def test_sizes_below_one_are_an_error(batch_size, num_steps, fact):
    with raises_one_line(ValueError, fact):
        windows(np.zeros(1000, np.int32), batch_size, num_steps)


def test_scoring_windows_contain_every_prediction_once():
    tokens = np.arange(1203, dtype=np.int32)
    result = scoring_windows(tokens)
    assert {inputs.shape[0] for inputs, _ in result} == {1}
    np.testing.assert_array_equal(np.concatenate([inputs for inputs, _ in result], axis=1), tokens[None, :-1])
    np.testing.assert_array_equal(np.concatenate([targets for _, targets in result], axis=1), tokens[None, 1:])


@pytest.mark.parametrize("count", [0, 1])
def test_a_text_without_a_prediction_cannot_be_scored(count):
    with raises_one_line(DataError, f"the test text: has {count} tokens, too few"):
        scoring_windows(np.zeros(count, np.int32), name="the test text")


def test_ptb_has_82429_predictions_at_batch_size_one(ptb_path):
    tokens = read_corpus(ptb_path).test
    for num_steps in (1, 35, 1000, 82_429, 100_000):
        assert sum(targets.size for _, targets in windows(tokens, 1, num_steps, drop_remainder=False)) == 82_429


def test_a_rotation_keeps_the_order_of_each_stream_and_starts_it_elsewhere():
    tokens = np.arange(8 * 101, dtype=np.int32)
    plain = windows(tokens, 8, 10)
    rotated = plain.rotated((1, 1, 0))
    np.testing.assert_array_equal(plain.streams.ravel(), tokens)  # as it was
    assert rotated.streams is plain.streams  # not a copy: a text may be larger than the memory
    streams = np.concatenate([inputs for inputs, _ in rotated], 1)
    assert streams.dtype == np.int32
    offsets = streams[:, 0] - plain.streams[:, 0]
    assert len({*offsets}) > 4
    for stream, before, offset in zip(streams, plain.streams, offsets):
        np.testing.assert_array_equal(stream, np.concatenate([before[offset:], before[:offset]])[:100])
    assert len(rotated) == len(plain)
    for (inputs, targets), (following, _) in itertools.pairwise(rotated):
        np.testing.assert_array_equal(targets[:, :-1], inputs[:, 1:])
        np.testing.assert_array_equal(targets[:, -1], following[:, 0])


def test_a_rotation_is_another_in_each_epoch_and_for_each_seed_and_the_same_again():
    config = override(SMALL, {"partial_shuffle": True, "batch_size": 8, "num_steps": 10})
    plain = windows(np.arange(8 * 101, dtype=np.int32), 8, 10)
    firsts = [train.epoch_windows(plain, config, *place)[0][0] for place in ((1, 1), (1, 1), (1, 2), (2, 1))]
    np.testing.assert_array_equal(firsts[0], firsts[1])
    assert len({array.tobytes() for array in firsts}) == 3
    assert train.epoch_windows(plain, SMALL, 1, 1) is plain


def test_windows_of_random_lengths_cover_contiguous_text_in_few_lengths():
    plain = windows(np.arange(4 * 40_000, dtype=np.int32), 4, 70)
    result = plain.with_random_lengths(70, (1, 1, 1))
    lengths = np.array([inputs.shape[1] for inputs, _ in result])
    assert {inputs.shape[0] for inputs, _ in result} == {4}
    assert not (lengths % 5).any()
    assert lengths.min() >= 5
    assert len({*lengths}) < 15
    inputs, targets = (np.concatenate(parts, 1) for parts in zip(*result))
    np.testing.assert_array_equal(inputs, plain.streams[:, : lengths.sum()])
    np.testing.assert_array_equal(targets, plain.streams[:, 1 : 1 + lengths.sum()])
    assert 0 <= 40_000 - 1 - lengths.sum() < 100
    halves = lengths < 52.5
    assert halves.mean() == pytest.approx(0.05, abs=0.03)
    assert lengths[~halves].mean() == pytest.approx(70, abs=1)
    assert lengths[~halves].std() == pytest.approx((25 + 25 / 12) ** 0.5, rel=0.15)  # 5 steps, and the rounding
    assert lengths[halves].mean() == pytest.approx(35, abs=4)


@pytest.mark.parametrize("stream_length", [4, 6, 16, 21, 71, 200])
@pytest.mark.parametrize("num_steps", [3, 15, 70])
def test_there_is_always_a_window_of_random_length_if_there_is_one_of_fixed_length(stream_length, num_steps):
    for seed in range(20 if stream_length > num_steps else 0):
        plain = windows(np.arange(2 * stream_length, dtype=np.int32), 2, num_steps)
        result = plain.with_random_lengths(num_steps, (seed,))
        assert len(result) > 0
        (inputs, targets), *_ = result
        assert inputs.shape == targets.shape
        np.testing.assert_array_equal(targets, inputs + 1)


def test_random_lengths_are_others_in_each_epoch_and_the_same_again():
    config = override(SMALL, {"random_lengths": True, "batch_size": 4, "num_steps": 35})
    plain = windows(np.arange(4 * 2000, dtype=np.int32), 4, 35)
    bounds = [train.epoch_windows(plain, config, *place).bounds.tolist() for place in ((1, 1), (1, 1), (1, 2), (2, 1))]
    assert bounds[0] == bounds[1]
    assert len({str(each) for each in bounds}) == 3
