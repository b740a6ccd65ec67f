"""The built-in corpus: text from a small probabilistic grammar whose entropy is known exactly.

A language model can be wrong in ways that no crash reveals: a gradient that lacks a term, a state that is not
carried, a mask applied twice. On this text such a fault shows as a gap between the perplexity reached and the floor,
for here the floor is known: no model does better than exp(`entropy_per_token()`) in the long run, and a good one
comes close.

    below deck do these jealous mermaids whom no sailor beside this parrot rescues shout `` in court one judge lies '' ?

The opening words fix the topic of a sentence, a determiner the number of its noun, and the noun that of a verb which
may stand many words away; `does`, `do` and `how` settle the final mark; a quotation has a topic of its own, and after
it the outer sentence resumes with what it had. An n-gram forgets these things. An LSTM need not.

**One derivation.** The grammar is LL(1): the next word alone decides which rule applies. So a sentence has at most
one derivation, its probability is the product of the rules in it, and the entropy of sentences is that of
derivations.

**Its entropy.** A nonterminal A is rewritten by rule r with probability p(r), independently of all else, which makes
a derivation a branching process (Booth & Thompson 1973). Let one rewriting of A cost h[A] nats and put down, on
average, w[A] words and M[A, B] nonterminals B:

    h[A] = -Σ_r p(r) log p(r)        w[A] = Σ_r p(r) · (words in r)        M[A, B] = Σ_r p(r) · (Bs in r)

The expected number x[A] of times that A is rewritten in a sentence is what all the others put down of it, and one
more for the start symbol:

    x = e_Sentence + Mᵀ x,    so    x = (I - Mᵀ)⁻¹ e_Sentence,

finite because the spectral radius of M is below one. A sentence has x·h nats on average, and x·w words and one
`<eos>`, which is certain where it stands. Hence

    H = x·h / (x·w + 1) nats a token.
"""

import itertools
import math
import random
import re
from bisect import bisect
from functools import cache
from typing import NamedTuple

import numpy as np

TRAIN_TOKENS = 500_000  # enough that a few epochs teach the rules before the sentences are known by heart
VALID_TOKENS = 20_000
TEST_TOKENS = 20_000

TOPICS = ("sea", "court", "kitchen")
NUMBERS = ("sg", "pl")

# A line gives a nonterminal's alternatives, each with its probability. A capital begins a nonterminal, all else is a
# word; t and n stand for one topic and one number throughout the line; ε is the empty string.
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

# The lexicon, most frequent words first. Adjectives and nouns begin with a consonant, so that `a` is right before them;
# nouns and verbs are those that inflect by adding an s.
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

END = None  # what follows the last word; unlike "<eos>", no word of a user's sentence can equal it


class Rule(NamedTuple):
    """One alternative of a nonterminal: it becomes `symbols` with this probability."""

    probability: float
    symbols: tuple[str, ...]


class DemoText(NamedTuple):
    """Independent samples of the grammar; a sentence is one line of words joined by spaces, without `<eos>`."""

    train: list[str]
    valid: list[str]
    test: list[str]


def _rule(alternative: str) -> Rule:
    """A rule from its place in the table: a probability, then symbols."""
    probability, *symbols = alternative.split()
    return Rule(float(probability), () if symbols == ["ε"] else tuple(symbols))


def _expanded(rules: str) -> dict[str, tuple[Rule, ...]]:
    """The table of `RULES` as data: each line once for every topic and number that it leaves open."""
    grammar = {}
    for topic, number in itertools.product(TOPICS, NUMBERS):
        named = re.sub(r"\.n\b", f".{number}", re.sub(r"\.t\b", f".{topic}", rules))
        for line in filter(None, named.splitlines()):
            name, right = line.split("=")
            grammar[name.strip()] = tuple(map(_rule, right.split("|")))
    return grammar


def _flattened_zipf(words: list[str]) -> tuple[Rule, ...]:
    """The word of rank r = 0, 1, … has probability ∝ 1 / (r + 10): Zipf's law with Mandelbrot's shift, a flat head."""
    weights = [1 / (rank + 10) for rank in range(len(words))]
    total = math.fsum(weights)  # exact on every version of Python, as sum() is not
    return tuple(Rule(weight / total, (word,)) for word, weight in zip(words, weights, strict=True))


def _lexicon() -> dict[str, tuple[Rule, ...]]:
    """One nonterminal for each class of words; `s` makes a noun plural and a verb singular."""
    classes = {name: words.split() for name, words in WORDS.items()}
    for name, words in NOUNS.items():
        classes[f"{name}.sg"] = words.split()
        classes[f"{name}.pl"] = [word + "s" for word in words.split()]
    for name, words in VERBS.items():
        classes[f"{name}.sg"] = [word + "s" for word in words.split()]
        classes[f"{name}.pl"] = words.split()
    return {name: _flattened_zipf(words) for name, words in classes.items()}


GRAMMAR = _expanded(RULES) | _lexicon()


def demo_text(seed: int = 0) -> DemoText:
    """Samples the three splits, one after the other from one stream: one seed, one text, on any version of Python."""
    random_stream = random.Random(seed)
    return DemoText(*(_sample(random_stream, tokens) for tokens in (TRAIN_TOKENS, VALID_TOKENS, TEST_TOKENS)))


def _sample(random_stream: random.Random, tokens: int) -> list[str]:
    """Sentences until they hold at least `tokens` tokens, an `<eos>` for each counted."""
    # random() keeps its sequence from one version of Python to the next, as choices() does not promise to.
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
    """The exact entropy rate H of the text in nats per token, `<eos>` included; exp(H) is the least perplexity."""
    entropy = np.array([-sum(p * math.log(p) for p, _ in rules) for rules in GRAMMAR.values()])  # h
    words = np.array([sum(p * sum(s not in GRAMMAR for s in r) for p, r in rules) for rules in GRAMMAR.values()])  # w
    children = np.array([[sum(p * r.count(b) for p, r in rules) for b in GRAMMAR] for rules in GRAMMAR.values()])  # M
    start = np.array([name == "Sentence" for name in GRAMMAR], float)
    uses = np.linalg.solve(np.eye(len(GRAMMAR)) - children.T, start)  # x
    return float(uses @ entropy / (uses @ words + 1))


def log_probability(sentence: str) -> float:
    """The exact log-probability of a sentence in nats, by its one derivation; the certain `<eos>` adds nothing.

    Raises:
      ValueError: the grammar does not derive the sentence; the message names the first word that cannot stand.
    """
    total = 0.0
    stack = [END, "Sentence"]
    for position, word in enumerate([*sentence.split(), END], start=1):
        while (symbol := stack.pop()) in GRAMMAR:
            rule = _predictions(symbol).get(word) or _predictions(symbol).get("")  # ε only where nothing else fits
            if rule is None:
                break
            total += math.log(rule.probability)
            stack.extend(reversed(rule.symbols))
        if symbol in GRAMMAR or symbol != word:
            raise ValueError(f"not in the grammar: {word or 'the end'!r} as word {position} of {sentence!r}")
    return total


def perplexity(sentences: list[str]) -> float:
    """The perplexity of the grammar itself on a text: no model knows better than it what comes next.

    exp(H) is what this tends to as texts grow; one that happens to have likely sentences lies below.
    """
    tokens = sum(len(sentence.split()) + 1 for sentence in sentences)
    return math.exp(-sum(map(log_probability, sentences)) / tokens)


@cache
def _predictions(symbol: str) -> dict[str, Rule]:
    """A row of the LL(1) table: the rule for each word that can begin `symbol`; under "" the empty one, for others."""
    predictions = {}
    for rule in GRAMMAR[symbol]:
        first = rule.symbols[0] if rule.symbols else ""
        predictions |= dict.fromkeys(_predictions(first) if first in GRAMMAR else [first], rule)
    return predictions
