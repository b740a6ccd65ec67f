"""Tables of the words that cost a model most: by frequency, place and length, word by word; and how calibrated it is.

Everything here is NumPy on the scores of one text. Perplexities are those of the tokens in a row: exp of their mean loss.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ptb.data.tokens import EOS, UNK
from ptb.evaluation.score import perplexity

FREQUENCIES = (0, 1, 10, 100, 1_000, 10_000)  # lower ends of the groups: times a word occurs in the training text
POSITIONS = (1, 2, 3, 4, 5, 6, 11, 21, 31)  # tokens since the start of the sentence
LENGTHS = (0, 6, 11, 21, 31, 41)  # words of the sentence, without <eos>
CONFIDENCES = np.linspace(0, 1, 11)  # ends of the groups


def range_labels(lower_ends: Sequence[int]) -> list[str]:
    """Return the labels of the groups that begin at these numbers: 0, 1–9, 10–99, 100 and more."""
    upper_ends = [end - 1 for end in lower_ends[1:]]
    ranges = [f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in zip(lower_ends, upper_ends)]
    return [*ranges, f"{lower_ends[-1]:,} and more"]


FREQUENCY_LABELS, POSITION_LABELS, LENGTH_LABELS = map(range_labels, (FREQUENCIES, POSITIONS, LENGTHS))
FREQUENCY_LABELS += [UNK, EOS]


class ScoredText(NamedTuple):
    """A text `[N + 1]` and what a model gave each token but the first, `[N]`; logarithms are natural."""

    tokens: tuple[str, ...]  # [N + 1]
    log_probabilities: np.ndarray
    confidences: np.ndarray  # log probability of the most likely word
    train_counts: np.ndarray | None  # how often each predicted token occurs in the training text, if that is known

    @property
    def predicted(self) -> tuple[str, ...]:
        return self.tokens[1:]


class Group(NamedTuple):
    """Tokens that have something in common."""

    label: str
    tokens: int
    perplexity: float
    share: float  # of the loss of the whole text


class CostlyWord(NamedTuple):
    """A word, what it cost, and the place where it cost most."""

    word: str
    count: int
    perplexity: float
    share: float  # of the loss of the whole text
    before: str
    after: str


class Difference(NamedTuple):
    """What a word costs under two models, in nats, over all its occurrences."""

    word: str
    count: int
    first: float
    second: float

    @property
    def gain(self) -> float:
        """Nats that the second model saves."""
        return self.first - self.second


class Bin(NamedTuple):
    """Predictions of about the same confidence."""

    tokens: int
    confidence: float  # mean probability of the most likely word
    accuracy: float  # how often that word came


def by_frequency(text: ScoredText) -> list[Group]:
    """Group tokens by their count in the training text, if it is known; `<eos>` and `<unk>` are groups of their own."""
    if text.train_counts is None:
        return []
    keys = np.searchsorted(FREQUENCIES, text.train_counts, side="right") - 1
    for number, special in enumerate((UNK, EOS), len(FREQUENCIES)):
        keys = np.where([token == special for token in text.predicted], number, keys)
    return _groups(keys, FREQUENCY_LABELS, text.log_probabilities)


def by_position(text: ScoredText) -> list[Group]:
    """Group tokens by their place in the sentence, 1 for the first; `<eos>` has the place after the last word."""
    keys = np.searchsorted(POSITIONS, positions(text.tokens)[1:], side="right") - 1
    return _groups(keys, POSITION_LABELS, text.log_probabilities)


def by_length(text: ScoredText) -> list[Group]:
    """Group tokens by the number of words of their sentence."""
    keys = np.searchsorted(LENGTHS, sentence_lengths(text.tokens)[1:], side="right") - 1
    return _groups(keys, LENGTH_LABELS, text.log_probabilities)


def positions(tokens: Sequence[str]) -> np.ndarray:
    """Return the place of each token in its sentence, from 1; a text begins with a sentence."""
    ends = np.array([token == EOS for token in tokens], bool)
    places = np.arange(len(tokens))
    starts = np.maximum.accumulate(np.where(np.append(True, ends[:-1]), places, 0))
    return places - starts + 1


def sentence_lengths(tokens: Sequence[str]) -> np.ndarray:
    """Return for each token the number of words of its sentence, without `<eos>`."""
    ends = np.array([token == EOS for token in tokens], bool)
    sentences = np.cumsum(np.append(False, ends[:-1]))  # number of the sentence
    return np.bincount(sentences, weights=~ends).astype(int)[sentences]


def costliest_words(text: ScoredText, count: int = 20, context: int = 6) -> list[CostlyWord]:
    """Return the words with the largest share of the loss, each with its costliest place and `context` words around it."""
    losses = -text.log_probabilities.astype(np.float64)
    words, keys = np.unique(np.array(text.predicted, object), return_inverse=True)
    totals, counts = np.bincount(keys, weights=losses), np.bincount(keys)
    rows = []
    for key in np.argsort(-totals, kind="stable")[:count]:
        places = np.flatnonzero(keys == key)
        place = places[np.argmax(losses[places])] + 1  # in tokens
        before, after = text.tokens[max(place - context, 0) : place], text.tokens[place + 1 : place + 1 + context]
        rows.append(
            CostlyWord(
                words[key],
                int(counts[key]),
                perplexity(totals[key], counts[key]),
                totals[key] / losses.sum(),
                " ".join(before),
                " ".join(after),
            )
        )
    return rows


def calibration(text: ScoredText) -> list[Bin]:
    """Group predictions by the probability of the most likely word, and count how often it came.

    It came if no other word had a higher probability. Empty groups are left out.
    """
    confidences = np.exp(text.confidences.astype(np.float64))
    right = text.log_probabilities >= text.confidences - 1e-5  # two kernels may round the same logarithm differently
    keys = np.clip(np.searchsorted(CONFIDENCES, confidences, side="right") - 1, 0, len(CONFIDENCES) - 2)
    groups = [keys == key for key in range(len(CONFIDENCES) - 1)]
    return [
        Bin(int(chosen.sum()), float(confidences[chosen].mean()), float(right[chosen].mean()))
        for chosen in groups
        if chosen.any()
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy, weighted by tokens."""
    return sum(b.tokens * abs(b.confidence - b.accuracy) for b in bins) / sum(b.tokens for b in bins)


def compare_words(first: ScoredText, second: ScoredText) -> list[Difference]:
    """Return what each word costs under two models of one text, sorted by what the second saves, most first."""
    words, keys = np.unique(np.array(first.predicted, object), return_inverse=True)
    totals = [np.bincount(keys, weights=-text.log_probabilities.astype(np.float64)) for text in (first, second)]
    rows = [Difference(*row) for row in zip(words, np.bincount(keys).tolist(), *map(np.ndarray.tolist, totals))]
    return sorted(rows, key=lambda row: -row.gain)


def differing_sentences(first: ScoredText, second: ScoredText, count: int = 10, longest: int = 40) -> list[slice]:
    """Return the places, in predicted tokens, of whole sentences on which two models differ most, in nats."""
    gains = (second.log_probabilities - first.log_probabilities).astype(np.float64)
    ends = np.flatnonzero([token == EOS for token in first.predicted]) + 1
    sentences = [slice(start, stop) for start, stop in zip(np.append(0, ends[:-1]), ends) if stop - start <= longest]
    return sorted(sentences, key=lambda place: -abs(gains[place].sum()))[:count]


def _groups(keys, labels, log_probabilities):
    """Return a `Group` for each label that has tokens."""
    losses = -log_probabilities.astype(np.float64)
    totals = np.bincount(keys, weights=losses, minlength=len(labels))
    counts = np.bincount(keys, minlength=len(labels))
    return [
        Group(label, int(n), perplexity(total, n), float(total / losses.sum()))
        for label, total, n in zip(labels, totals, counts)
        if n
    ]


GROUPINGS = {  # by their title, with all labels in order
    "by occurrences in the training text": (by_frequency, FREQUENCY_LABELS),
    "by place in the sentence": (by_position, POSITION_LABELS),
    "by words of the sentence": (by_length, LENGTH_LABELS),
}
