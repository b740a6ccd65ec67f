"""The tables of a report, against cases worked by hand."""

import math

import numpy as np
import pytest

from ptb.report.words import (
    Bin,
    ScoredText,
    by_frequency,
    by_length,
    by_position,
    calibration,
    calibration_error,
    compare_words,
    costliest_words,
    differing_sentences,
    positions,
    sentence_lengths,
)

# Two sentences, of three words and of one. "the" is first and has no score.
TOKENS = ("the", "cat", "sees", "<eos>", "cat", "<eos>")
PROBABILITIES = [1 / 2, 1 / 8, 1 / 4, 1 / 32, 1 / 2]  # of cat, sees, <eos>, cat, <eos>: 1, 3, 2, 5 and 1 bits
COUNTS = [12, 3, 900, 12, 900]


def scored(probabilities=PROBABILITIES, confidences=(0.5, 0.9, 0.25, 0.9, 0.5)):
    return ScoredText(TOKENS, np.log(probabilities), np.log(confidences), np.array(COUNTS))


def plain(groups):
    return [(group.label, group.tokens, round(group.perplexity, 6), round(group.share, 6)) for group in groups]


def test_places_and_lengths_of_sentences():
    assert positions(TOKENS).tolist() == [1, 2, 3, 4, 1, 2]
    assert sentence_lengths(TOKENS).tolist() == [3, 3, 3, 3, 1, 1]
    assert positions(("<eos>", "<eos>", "a")).tolist() == [1, 1, 1]  # empty sentences
    assert sentence_lengths(("<eos>", "<eos>", "a")).tolist() == [0, 0, 1]


def test_by_frequency_of_the_training_text_with_the_end_of_a_sentence_apart():
    """cat, which occurs 12 times there: 1 and 5 bits; sees, 3 times: 3 bits; <eos>: 2 and 1 bits; in all 12."""
    assert plain(by_frequency(scored())) == [
        ("1–9", 1, 8.0, 0.25),
        ("10–99", 2, 8.0, 0.5),
        ("<eos>", 2, round(2**1.5, 6), 0.25),
    ]


def test_by_place_in_the_sentence():
    """Place 1: the second cat; 2: the first cat and the last <eos>; 3: sees; 4: the first <eos>."""
    assert plain(by_position(scored())) == [
        ("1", 1, 32.0, round(5 / 12, 6)),
        ("2", 2, 2.0, round(2 / 12, 6)),
        ("3", 1, 8.0, 0.25),
        ("4", 1, 4.0, round(2 / 12, 6)),
    ]


def test_by_length_of_the_sentence():
    """Both are of 0 to 5 words; of a sentence of six words five tokens and <eos> are in the next group."""
    assert plain(by_length(scored())) == [("0–5", 5, round(2 ** (12 / 5), 6), 1.0)]
    long = ScoredText((*"abcdef", "<eos>", "g", "<eos>"), np.log([0.5] * 6 + [0.25] * 2), np.zeros(8), np.ones(8, int))
    assert plain(by_length(long)) == [("0–5", 2, 4.0, 0.4), ("6–10", 6, 2.0, 0.6)]


def test_the_words_that_cost_most_and_where():
    first, second, third = costliest_words(scored(), context=2)
    assert (first.word, first.count, first.before, first.after) == ("cat", 2, "sees <eos>", "<eos>")
    assert (first.perplexity, first.share) == (pytest.approx(8), pytest.approx(0.5))
    assert {second.word, third.word} == {"sees", "<eos>"}
    (only,) = costliest_words(scored(), count=1)
    assert only.word == "cat"


def test_calibration_counts_how_often_the_likeliest_word_came():
    """Confidence 0.9 twice, never right; 0.5 twice and 0.25 once, always right."""
    bins = calibration(scored())
    assert [(b.tokens, round(b.confidence, 6), b.accuracy) for b in bins] == [(1, 0.25, 1.0), (2, 0.5, 1.0), (2, 0.9, 0.0)]
    assert calibration_error(bins) == pytest.approx((0.75 + 2 * 0.5 + 2 * 0.9) / 5)
    assert calibration_error([Bin(10, 0.5, 0.5)]) == 0


def test_a_confidence_of_one_belongs_to_the_last_group():
    assert calibration(scored([1.0] * 5, [1.0] * 5)) == [Bin(5, 1.0, 1.0)]


def test_two_models_word_by_word():
    """The second gives the cats 1/4 and 1/4 instead of 1/2 and 1/32: it saves 2 bits; it loses one bit on sees."""
    second = scored([1 / 4, 1 / 16, 1 / 4, 1 / 4, 1 / 2])
    rows = compare_words(scored(), second)
    assert [(row.word, row.count, round(row.gain / math.log(2), 6)) for row in rows] == [
        ("cat", 2, 2.0),
        ("<eos>", 2, 0.0),
        ("sees", 1, -1.0),
    ]
    assert rows[0].first == pytest.approx(6 * math.log(2))
    first, other = differing_sentences(scored(), second)  # 3 bits in the second sentence, −2 in the first
    assert (first, other) == (slice(3, 5), slice(0, 3))
    assert differing_sentences(scored(), second, longest=2) == [slice(3, 5)]
