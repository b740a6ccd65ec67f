"""N-best lists of a speech recogniser: the lines of Kaldi and of Flashlight, scored and ranked again.

    utterance-1 the company said                                    Kaldi: an id and a hypothesis
    utterance-1 -431.2 the company said                             the same with a score of the recogniser, to rank again
    utterance | -52.1 | -41.3 | -21.6 | the company said            Flashlight: id, decoder, acoustic and language model's score

A line of Flashlight may have more fields, such as its word error rate, before the hypothesis.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from ptb.data.files import DataError

SCORES = ("decoder", "acoustic", "language model")  # of a line of Flashlight, in their order


@dataclass(frozen=True)
class Hypothesis:
    """One line of an N-best list."""

    id: str
    text: str
    score: float | None = None  # of the recogniser without its language model
    fields: tuple[str, ...] = ()  # of a line of Flashlight, as they were

    @property
    def utterance(self) -> str:
        """The id without the number that Kaldi adds to it: `utterance-1` and `utterance-2` are of one utterance."""
        return self.id if self.fields else re.sub(r"-[1-9]\d*$", "", self.id)

    def line(self, log_probability: float, total: float | None = None) -> str:
        """Return the line in the shape that it had, with new scores.

        In Kaldi's shape the score after the id is `total`, or the log probability if there is none. In Flashlight's shape they
        replace the decoder's score and the language model's.
        """
        if self.fields:
            id, decoder, acoustic, _, *rest = self.fields
            return "|".join([id, decoder if total is None else f" {total:.4f} ", acoustic, f" {log_probability:.4f} ", *rest])
        return f"{self.id} {log_probability if total is None else total:.4f} {self.text}".rstrip()


def parse_nbest(lines: Iterable[str], scored: bool = False) -> Iterator[Hypothesis]:
    """Yield the hypothesis of each line. `scored` says that a line of Kaldi has a score between id and hypothesis.

    Raises DataError, with the number of the line, if it has no id or not the scores that it should have.
    """
    for number, line in enumerate(lines, 1):
        fields = tuple(line.rstrip("\r\n").split("|"))
        if len(fields) > len(SCORES) + 1 and all(map(_is_number, fields[1 : len(SCORES) + 1])):
            yield Hypothesis(fields[0].strip(), fields[-1].strip(), float(fields[2]), fields)
            continue
        words = line.split(maxsplit=2 if scored else 1)
        if not words:
            raise DataError(f"line {number}: is empty; write an id and a hypothesis")
        if scored and not (len(words) > 1 and _is_number(words[1])):
            raise DataError(f"line {number}: has no score; to rank again write: id score hypothesis")
        yield Hypothesis(words[0], "".join(words[2 if scored else 1 :]).rstrip(), float(words[1]) if scored else None)


def rerank(hypotheses: Iterable[tuple[Hypothesis, float]], lm_scale: float) -> Iterator[tuple[Hypothesis, float, float]]:
    """Yield (hypothesis, log probability, total) of each utterance, the best first: total = score + lm_scale · log p.

    `hypotheses` come with their log probabilities in nats, those of one utterance one after the other.
    """
    for _, group in groupby(hypotheses, lambda item: item[0].utterance):
        totals = [(hypothesis, log_p, hypothesis.score + lm_scale * log_p) for hypothesis, log_p in group]
        yield from sorted(totals, key=lambda item: -item[2])


def _is_number(text):
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
