"""Lines of N-best lists: what is read from each shape, what is written, and how hypotheses are ranked again."""

import pytest

from helpers.texts import raises_one_line
from ptb.data.files import DataError
from ptb.evaluation.nbest import parse_nbest, rerank

FLASHLIGHT = "1272-128104-0000 | -52.1 | -41.25 | -21.6 | 0.5 | mister quilter is\n"


def parse(*lines, scored=False):
    return list(parse_nbest(lines, scored))


def test_lines_of_kaldi():
    first, second, empty, number = parse("utt-1 oh  yeah\n", "utt-12\toh\n", "utt-13\n", "utt-14 42 is it\n")
    assert [(h.id, h.text, h.score) for h in (first, second)] == [("utt-1", "oh  yeah", None), ("utt-12", "oh", None)]
    assert (empty.text, number.text) == ("", "42 is it")
    assert {h.utterance for h in (first, second, empty)} == {"utt"}
    assert first.line(-1.25) == "utt-1 -1.2500 oh  yeah"
    assert empty.line(-1.25) == "utt-13 -1.2500"


def test_lines_of_kaldi_with_scores():
    first, empty = parse("utt-1 -31.5 oh yeah\n", "utt-2 7\n", scored=True)
    assert (first.score, first.text, empty.score, empty.text) == (-31.5, "oh yeah", 7, "")
    assert first.line(-1.25, -32.75) == "utt-1 -32.7500 oh yeah"


@pytest.mark.parametrize("scored", [False, True])
def test_lines_of_flashlight(scored):
    (hypothesis,) = parse(FLASHLIGHT, scored=scored)
    assert (hypothesis.id, hypothesis.text, hypothesis.score) == ("1272-128104-0000", "mister quilter is", -41.25)
    assert hypothesis.utterance == "1272-128104-0000"
    assert hypothesis.line(-9.5) == FLASHLIGHT.rstrip().replace(" -21.6 ", " -9.5000 ")
    assert hypothesis.line(-9.5, -3) == FLASHLIGHT.rstrip().replace(" -21.6 ", " -9.5000 ").replace(" -52.1 ", " -3.0000 ")


def test_a_bar_in_a_hypothesis_of_kaldi_is_a_word():
    assert parse("utt-1 a | b | c | d | e")[0].text == "a | b | c | d | e"


@pytest.mark.parametrize(
    ("lines", "scored"), [(["a b", "\n"], False), (["a 1 b", "a b"], True), (["a 1", "a"], True), (["a 1", "a nan b"], True)]
)
def test_lines_without_id_or_score(lines, scored):
    with raises_one_line(DataError, "line 2"):
        parse(*lines, scored=scored)


def test_hypotheses_of_an_utterance_are_ranked_by_both_scores():
    hypotheses = parse("a-1 -3 x", "a-2 -2 y", "a-3 -3 x", "b-1 -9 z", "a-9 -1 w", scored=True)
    ranked = list(rerank(zip(hypotheses, [-1.0, -4.0, -1.0, -7.0, 0.0]), lm_scale=0.5))
    assert [(h.id, log_p, total) for h, log_p, total in ranked] == [
        ("a-1", -1, -3.5),
        ("a-3", -1, -3.5),
        ("a-2", -4, -4),
        ("b-1", -7, -12.5),
        ("a-9", 0, -1),
    ]
