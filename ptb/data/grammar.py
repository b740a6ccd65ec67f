"""The built-in demo corpus: text sampled from a small probabilistic grammar with exactly known entropy.

Some faults of a language model cause no crash: a gradient without one of its terms, a state that is not carried, a mask
applied twice. On this text such a fault shows as a gap between the model's perplexity and the floor. The floor is
exp(`entropy_per_token()`): in the long run no model has a lower perplexity, and a correct one comes close. An example:

    below deck do these jealous mermaids whom no sailor beside this parrot rescues shout `` in court one judge lies '' ?

**Dependencies.** The text has dependencies that are too long for an n-gram, but not for an LSTM:

- The opening words determine the topic of a sentence, and so its nouns and verbs.
- A determiner agrees with its noun, and the noun with a verb that may follow many words later.
- `does`, `do` and `how` determine the final mark.
- A quotation has its own topic. After it the outer sentence continues with the topic and number from before.

**Derivation.** The grammar is LL(1): the next word alone determines which rule applies. So a sentence has at most one
derivation. The probability of a sentence is the product of the probabilities of its rules, and the entropy of sentences
equals the entropy of derivations.

**Entropy.** A nonterminal A is rewritten by rule r with probability p(r), independently of everything else. So a
derivation is a branching process (Booth & Thompson 1973). One rewriting of A has an entropy of h[A] nats, and yields on
average w[A] words and M[A, B] copies of nonterminal B:

    h[A] = -Σ_r p(r) log p(r)        w[A] = Σ_r p(r) · (words in r)        M[A, B] = Σ_r p(r) · (Bs in r)

Let x[A] be the expected number of rewritings of A per sentence. A arises from the rewritings of all nonterminals, and
the start symbol once more:

    x = e_Sentence + Mᵀ x,    so    x = (I - Mᵀ)⁻¹ e_Sentence

The inverse exists because the spectral radius of M is below 1. The average sentence has x·h nats, x·w words and one
`<eos>`, which adds no entropy because it always follows the final mark. Hence

    H = x·h / (x·w + 1) nats per token.
"""

import itertools
import math
import random
import re
from bisect import bisect
from functools import cache
from typing import NamedTuple

import numpy as np

TRAIN_TOKENS = 500_000  # enough to learn the rules in a few epochs without memorizing the sentences
VALID_TOKENS = 20_000
TEST_TOKENS = 20_000

TOPICS = ("sea", "court", "kitchen")
NUMBERS = ("sg", "pl")

# One line per nonterminal: its alternatives, each after its probability. Nonterminals begin with a capital letter, all
# other symbols are words. t and n stand for any topic and number, the same throughout a line. ε is the empty string.
RULES = """
Sentence     = 0.34 Opener.sea Body.sea | 0.33 Opener.court Body.court | 0.33 Opener.kitchen Body.kitchen
Quotation    = 0.34 Opener.sea Clause.sea | 0.33 Opener.court Clause.court | 0.33 Opener.kitchen Clause.kitchen
Body.t       = 0.65 Clause.t . | 0.20 Question.t ? | 0.15 how Adverb Clause.t !
Clause.t     = 0.55 Phrase.t.sg Predicate.t.sg | 0.45 Phrase.t.pl Predicate.t.pl
Question.t   = 0.55 does Phrase.t.sg Predicate.t.pl | 0.45 do Phrase.t.pl Predicate.t.pl

Phrase.t.n   = 1.00 Determiner.n Nominal.t.n
Nominal.t.n  = 0.60 Noun.t.n Modifier.t.n | 0.40 Adjective Nominal.t.n
Modifier.t.n = 0.64 ε | 0.20 Preposition Object.t | 0.08 who Action.t.n | 0.08 whom Gapped.t
Gapped.t     = 0.50 Phrase.t.sg Transitive.t.sg | 0.50 Phrase.t.pl Transitive.t.pl
Object.t     = 0.50 Phrase.t.sg | 0.50 Phrase.t.pl

Predicate.t.n = 1.00 Action.t.n Further.t.n
Further.t.n  = 0.85 ε | 0.15 and Predicate.t.n
Action.t.n   = 0.50 Transitive.t.n Object.t | 0.40 Intransitive.t.n Manner | 0.10 Saying.n `` Quotation ''
Manner       = 0.60 ε | 0.40 Adverb

Opener.sea     = 0.30 at sea | 0.25 aboard | 0.20 below deck | 0.15 ashore | 0.10 off duty
Opener.court   = 0.35 in court | 0.25 under oath | 0.20 on appeal | 0.20 before lunch
Opener.kitchen = 0.30 over supper | 0.25 after dinner | 0.25 between courses | 0.20 downstairs
"""

# The lexicon, most frequent words first. Adjectives and nouns begin with a consonant, so that `a` can precede them. All
# nouns and verbs inflect by adding an s.
WORDS = {
    "Determiner.sg": "the a this every each that one another no",
    "Determiner.pl": "these some those many two several most three both few seven countless",
    "Preposition": "beside with behind near without like opposite against beneath",
    "Adjective": """sleepy young jealous polite tall hungry retired famous nervous stubborn brave tiny clumsy lazy
        pompous wealthy shy melancholy cheerful bald suspicious talkative patient romantic forgetful gloomy bearded
        thirsty vain modest lonely barefoot sunburnt musical plump weary superstitious moustachioed drowsy dapper
        sentimental ticklish""",
    "Adverb": """quietly loudly bravely badly gladly rarely slowly politely calmly merrily secretly shamelessly
        solemnly nervously gracefully reluctantly tenderly tunelessly majestically drowsily gratefully absentmindedly
        sternly proudly""",
}
NOUNS = {
    "Noun.sea": """captain sailor pirate whale mermaid parrot gull shark pelican diver smuggler lobster dolphin stowaway
        turtle castaway penguin boatswain navigator buccaneer seal crab kraken limpet""",
    "Noun.court": """judge lawyer burglar juror clerk bailiff detective forger plaintiff constable magistrate prosecutor
        widow pickpocket landlord banker reporter sheriff swindler defendant tenant chancellor barrister perjurer""",
    "Noun.kitchen": """cook waiter baker guest chef butler hen grandmother critic butcher nephew piglet kitten cousin
        gourmet neighbour grocer brewer duck maid toddler vegetarian confectioner dishwasher""",
}
VERBS = {
    "Transitive.sea": """rescue follow chase tow salute capture hail pursue fear maroon befriend ignore harpoon spot
        tickle outswim""",
    "Transitive.court": """accuse sue blame defend question suspect bribe believe interrupt arrest forgive contradict
        overrule deceive acquit summon""",
    "Transitive.kitchen": """feed flatter tease scold serve adore insult toast imitate invite thank pamper annoy tip
        compliment overfeed""",
    "Intransitive.sea": "swim float drift snore sail dive sing drown whistle shiver row sink surrender yawn",
    "Intransitive.court": "lie faint object tremble sigh stammer hesitate protest weep blink resign cough frown plead",
    "Intransitive.kitchen": "giggle dine hum sneeze gossip grumble nibble sulk hiccup burp chuckle feast quarrel swoon",
    "Saying": "say shout mutter swear insist remark announce claim",
}

END = None  # follows the last word; not "<eos>", which could be a word of a given sentence


class Rule(NamedTuple):
    """One alternative of a nonterminal, which becomes `symbols` with this probability."""

    probability: float
    symbols: tuple[str, ...]


class DemoText(NamedTuple):
    """Sentences sampled from the grammar, in three splits. A sentence is words joined by single spaces, without `<eos>`."""

    train: list[str]
    valid: list[str]
    test: list[str]


def _parse_rule(alternative: str) -> Rule:
    """Parse one alternative of `RULES`: a probability, then symbols."""
    probability, *symbols = alternative.split()
    return Rule(float(probability), () if symbols == ["ε"] else tuple(symbols))


def _parse_rules(rules: str) -> dict[str, tuple[Rule, ...]]:
    """Parse `RULES`. A line with t or n gives one nonterminal for each topic and number."""
    grammar = {}
    for topic, number in itertools.product(TOPICS, NUMBERS):
        named = re.sub(r"\.n\b", f".{number}", re.sub(r"\.t\b", f".{topic}", rules))
        for line in filter(None, named.splitlines()):
            name, right = line.split("=")
            grammar[name.strip()] = tuple(map(_parse_rule, right.split("|")))
    return grammar


def _zipf_rules(words: list[str]) -> tuple[Rule, ...]:
    """Return one rule per word; the word of rank r = 0, 1, … has probability ∝ 1 / (r + 10).

    This is Zipf's law with Mandelbrot's shift, which makes the most frequent words nearly equally frequent.
    """
    weights = [1 / (rank + 10) for rank in range(len(words))]
    total = math.fsum(weights)  # unlike sum(), the same on every version of Python
    return tuple(Rule(weight / total, (word,)) for word, weight in zip(words, weights, strict=True))


def _lexicon() -> dict[str, tuple[Rule, ...]]:
    """Return the rules of every word class. The ending `s` makes a noun plural and a verb singular."""
    classes = {name: words.split() for name, words in WORDS.items()}
    for name, words in NOUNS.items():
        classes[f"{name}.sg"] = words.split()
        classes[f"{name}.pl"] = [word + "s" for word in words.split()]
    for name, words in VERBS.items():
        classes[f"{name}.sg"] = [word + "s" for word in words.split()]
        classes[f"{name}.pl"] = words.split()
    return {name: _zipf_rules(words) for name, words in classes.items()}


GRAMMAR = _parse_rules(RULES) | _lexicon()


def demo_text(seed: int = 0) -> DemoText:
    """Sample the three splits one after the other. A seed gives the same text on every version of Python."""
    random_stream = random.Random(seed)
    return DemoText(*(_sample(random_stream, tokens) for tokens in (TRAIN_TOKENS, VALID_TOKENS, TEST_TOKENS)))


def _sample(random_stream: random.Random, tokens: int) -> list[str]:
    """Sample sentences until they have at least `tokens` tokens, counting one `<eos>` per sentence."""
    # random() gives the same sequence on every version of Python; choices() does not promise that.
    cumulative = {name: list(itertools.accumulate(p for p, _ in rules)) for name, rules in GRAMMAR.items()}
    sentences = []
    while tokens > 0:
        words, stack = [], ["Sentence"]
        while stack:
            symbol = stack.pop()
            if symbol in GRAMMAR:
                choice = bisect(cumulative[symbol], random_stream.random(), hi=len(GRAMMAR[symbol]) - 1)
                stack.extend(reversed(GRAMMAR[symbol][choice].symbols))
            else:
                words.append(symbol)
        sentences.append(" ".join(words))
        tokens -= len(words) + 1
    return sentences


def entropy_per_token() -> float:
    """Return the exact entropy rate H of the text in nats per token, `<eos>` included. exp(H) is the lowest perplexity."""
    entropy = np.array([-sum(p * math.log(p) for p, _ in rules) for rules in GRAMMAR.values()])  # h
    words = np.array([sum(p * sum(s not in GRAMMAR for s in r) for p, r in rules) for rules in GRAMMAR.values()])  # w
    children = np.array([[sum(p * r.count(b) for p, r in rules) for b in GRAMMAR] for rules in GRAMMAR.values()])  # M
    start = np.array([name == "Sentence" for name in GRAMMAR], float)
    uses = np.linalg.solve(np.eye(len(GRAMMAR)) - children.T, start)  # x
    return float(uses @ entropy / (uses @ words + 1))


def log_probability(sentence: str) -> float:
    """Return the exact log probability of a sentence in nats. Its `<eos>` is certain and adds 0.

    Raises ValueError, with the first wrong word and its position, if the grammar does not derive the sentence.
    """
    total = 0.0
    stack = [END, "Sentence"]
    for position, word in enumerate([*sentence.split(), END], start=1):
        while (symbol := stack.pop()) in GRAMMAR:
            rule = _predictions(symbol).get(word) or _predictions(symbol).get("")  # ε if no other rule fits
            if rule is None:
                break
            total += math.log(rule.probability)
            stack.extend(reversed(rule.symbols))
        if symbol in GRAMMAR or symbol != word:
            raise ValueError(f"not in the grammar: {word or 'the end'!r} as word {position} of {sentence!r}")
    return total


def perplexity(sentences: list[str]) -> float:
    """Return the perplexity of the grammar itself on a text, the floor for models on this text.

    It tends to exp(H) for long texts, and may be lower for a text of likely sentences.

    Raises ValueError if the grammar does not derive a sentence.
    """
    tokens = sum(len(sentence.split()) + 1 for sentence in sentences)
    return math.exp(-sum(map(log_probability, sentences)) / tokens)


@cache
def _predictions(symbol: str) -> dict[str, Rule]:
    """Return the row of a nonterminal in the LL(1) table: the rule to apply for each possible next word.

    The key "" holds the empty rule, which applies to all other words.
    """
    predictions = {}
    for rule in GRAMMAR[symbol]:
        first = rule.symbols[0] if rule.symbols else ""
        predictions |= dict.fromkeys(_predictions(first) if first in GRAMMAR else [first], rule)
    return predictions
