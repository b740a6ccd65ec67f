"""The n-gram baseline: interpolated Kneser-Ney smoothing (Kneser & Ney 1995; Chen & Goodman 1999)."""

import math
from collections import Counter
from collections.abc import Callable

EOS = "<eos>"


def perplexity(train_lines: list[str], test_lines: list[str], order: int) -> float:
    """Return the perplexity on `test_lines`, with the `<eos>` of each line, of the n-gram of this order (2: bigram)."""
    probability = kneser_ney(Counter(ngram for line in train_lines for ngram in ngrams(line, order)))
    losses = [-math.log(probability(ngram)) for line in test_lines for ngram in ngrams(line, order)]
    return math.exp(math.fsum(losses) / len(losses))


def ngrams(line: str, order: int) -> list[tuple[str, ...]]:
    """Return one n-gram for each word of a line and one for its `<eos>`. Only `<eos>` precedes a line."""
    words = [EOS] * (order - 1) + line.split() + [EOS]
    return [tuple(words[start : start + order]) for start in range(len(words) - order + 1)]


def kneser_ney(counts: Counter[tuple[str, ...]]) -> Callable[[tuple[str, ...]], float]:
    """Return p(last word | words before it), a function of an n-gram, from the counts of n-grams of one order.

    The discount D = n₁ / (n₁ + 2 n₂) is subtracted from each count. Its mass goes to the next lower order, where the count
    of an n-gram is the number of different words before it. Order 1 backs off to the uniform distribution.
    """
    if () in counts:
        return lambda _: 1 / counts[()]
    lower = kneser_ney(Counter(ngram[1:] for ngram in counts))
    totals, kinds = Counter(), Counter()
    for ngram, count in counts.items():
        totals[ngram[:-1]] += count
        kinds[ngram[:-1]] += 1
    count_of_counts = Counter(counts.values())
    discount = count_of_counts[1] / max(1, count_of_counts[1] + 2 * count_of_counts[2])

    def probability(ngram):
        context, backed_off = ngram[:-1], lower(ngram[1:])
        if context not in totals:
            return backed_off
        return (max(counts[ngram] - discount, 0) + discount * kinds[context] * backed_off) / totals[context]

    return probability
