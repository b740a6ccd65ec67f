"""Scores of many sentences at once, each from an `<eos>` and a state of zeros, and their totals as SRILM counts them."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ptb.data.windows import windows
from ptb.evaluation.score import Score, score_windows

BATCH_SIZE, NUM_STEPS = 128, 16  # of a window; they bound the memory of the softmax
KEPT = 100_000  # sentences whose scores are remembered


class SentenceScore(NamedTuple):
    """Log probabilities of a sentence, in nats. Its last token is `<eos>`; unknown words are scored as `<unk>`."""

    tokens: tuple[str, ...]
    log_probabilities: np.ndarray  # [len(tokens)]
    unknown: tuple[str, ...]  # tokens that the vocabulary does not have

    @property
    def log_probability(self) -> float:
        return float(self.log_probabilities.sum(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        return Score(-self.log_probability, len(self.tokens)).perplexity


class SentenceScorer:
    """Scores sentences in batches of similar length with a compiled `eval_step`.

    The scores of a sentence depend in the last digits on its batch. Those of the last `KEPT` sentences are remembered, so that
    equal sentences have equal scores.
    """

    def __init__(self, eval_step: Callable, model, eos: int):
        self._eval_step, self._model, self._eos = eval_step, model, eos
        self._known: dict[bytes, np.ndarray] = {}  # by the bytes of the ids

    def score(self, sentences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the log probability in nats of every token of each sentence.

        A sentence has int32 ids `[N]` that end in `<eos>`; its result is `[N]`.
        """
        keys = [ids.tobytes() for ids in sentences]
        new = {key: ids for key, ids in zip(keys, sentences) if key not in self._known}
        for batch in _batches(sorted(new.items(), key=lambda item: len(item[1]))):
            scored = self._score_batch([ids for _, ids in batch])
            self._known |= zip((key for key, _ in batch), scored)
        results = [self._known[key] for key in keys]
        for oldest in list(itertools.islice(self._known, max(0, len(self._known) - KEPT))):
            del self._known[oldest]
        return results

    def _score_batch(self, sentences):
        """Return the scores of a few sentences. The shorter ones end in more `<eos>`: no token changes those before it."""
        tokens = np.full([len(sentences), 1 + max(map(len, sentences))], self._eos, np.int32)
        for row, ids in zip(tokens, sentences):
            row[1 : 1 + len(ids)] = ids
        parts = windows(tokens.reshape(-1), len(tokens), NUM_STEPS, drop_remainder=False)
        losses = score_windows(self._eval_step, self._model, parts)
        return [-row[: len(ids)] for row, ids in zip(losses, sentences)]


def _batches(items: Iterable[tuple[bytes, np.ndarray]]) -> Iterator[list[tuple[bytes, np.ndarray]]]:
    """Yield lists of at most `BATCH_SIZE` pairs (key, ids), which come by length; the longest is about twice the shortest."""
    batch = []
    for item in items:
        if batch and (len(batch) == BATCH_SIZE or len(item[1]) > 8 + 2 * len(batch[0][1])):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


@dataclass
class Totals:
    """The totals that SRILM's `ngram -ppl` prints for a text. `words` include the OOVs, but not the ends of sentences."""

    sentences: int = 0
    words: int = 0
    oovs: int = 0  # words outside the vocabulary
    log_probability: float = 0.0  # in nats, of words and ends of sentences; OOVs are scored as <unk>
    oov_log_probability: float = 0.0  # the part of the OOVs

    def add(self, score: SentenceScore) -> None:
        unknown = set(score.unknown)
        is_oov = [token in unknown for token in score.tokens]
        self.sentences += 1
        self.words += len(score.tokens) - 1
        self.oovs += sum(is_oov)
        self.log_probability += score.log_probability
        self.oov_log_probability += float(score.log_probabilities.sum(dtype=np.float64, where=is_oov))

    def without_oovs(self) -> "Totals":
        """Return the totals with OOVs left out, as SRILM does; the totals themselves are those of `ngram -unk`."""
        log_probability = self.log_probability - self.oov_log_probability
        return replace(self, words=self.words - self.oovs, oovs=0, log_probability=log_probability, oov_log_probability=0.0)

    @property
    def ppl(self) -> float | None:
        """The perplexity with the ends of sentences; None if there is nothing to predict."""
        return self._perplexity(self.words + self.sentences)

    @property
    def ppl1(self) -> float | None:
        """SRILM's other perplexity: the same log probability for each word alone; None without a word."""
        return self._perplexity(self.words)

    def _perplexity(self, count):
        return Score(-self.log_probability, count).perplexity if count else None
