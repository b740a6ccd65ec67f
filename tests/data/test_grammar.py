"""The grammar of the demo corpus: one derivation per sentence, its entropy, agreement, and n-grams far above the floor."""

import hashlib
import math
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from helpers import ngram
from helpers.texts import raises_one_line
from ptb.data import grammar
from ptb.data.grammar import GRAMMAR, Rule


@pytest.fixture(scope="module")
def text():
    return grammar.demo_text(seed=0)


def tokens(lines):
    return sum(len(line.split()) + 1 for line in lines)


def words_of(word_class):
    """Return the words of `Noun`, of `Noun.sea` (one topic), or of `Noun.sea.pl` (and one number)."""
    names = [name for name in GRAMMAR if f"{name}.".startswith(f"{word_class}.")]
    return {word for name in names for rule in GRAMMAR[name] for word in rule.symbols}


# The table


def test_probabilities_of_every_nonterminal_sum_to_one():
    for name, rules in GRAMMAR.items():
        assert math.fsum(rule.probability for rule in rules) == pytest.approx(1, abs=1e-12), name
        assert all(rule.probability > 0 for rule in rules), name


def test_every_nonterminal_is_defined_and_used():
    used = {symbol for rules in GRAMMAR.values() for rule in rules for symbol in rule.symbols if symbol[0].isupper()}
    assert used | {"Sentence"} == set(GRAMMAR)


def test_every_word_of_the_lexicon_belongs_to_one_class():
    lexical = [name for name, rules in GRAMMAR.items() if all({*rule.symbols}.isdisjoint(GRAMMAR) for rule in rules)]
    uses = Counter(word for name in lexical for rule in GRAMMAR[name] for word in rule.symbols)
    assert len(uses) > 400 and set(uses.values()) == {1}


def test_words_after_a_begin_with_a_consonant():
    followers = words_of("Adjective").union(*(words_of(f"{noun}.sg") for noun in grammar.NOUNS))
    assert followers and not [word for word in followers if word[0] in "aeiou"]


def test_the_spectral_radius_is_below_one():
    children = np.array([[sum(p * r.count(b) for p, r in rules) for b in GRAMMAR] for rules in GRAMMAR.values()])
    assert max(abs(np.linalg.eigvals(children))) < 0.95


# One derivation for each sentence


def first_and_follow():
    """Return FIRST and FOLLOW of every nonterminal, as least fixed points. "" in FIRST is the empty string."""
    first = {name: set() for name in GRAMMAR}
    follow = {name: set() for name in GRAMMAR} | {"Sentence": {"<eos>"}}
    before = -1
    while before != (before := sum(map(len, [*first.values(), *follow.values()]))):
        for name, rules in GRAMMAR.items():
            for rule in rules:
                first[name] |= first_of(rule.symbols, first)
                for position, symbol in enumerate(rule.symbols):
                    if symbol in GRAMMAR:
                        after = first_of(rule.symbols[position + 1 :], first)
                        follow[symbol] |= (after - {""}) | (follow[name] if "" in after else set())
    return first, follow


def first_of(symbols, first):
    if not symbols:
        return {""}
    head = first.get(symbols[0], {symbols[0]})
    return (head - {""}) | first_of(symbols[1:], first) if "" in head else head


def test_the_next_word_determines_every_rule():
    """The grammar is LL(1), and so unambiguous: no word selects two rules of one nonterminal."""
    first, follow = first_and_follow()
    assert "''" in follow["Manner"] and "<eos>" not in follow["Manner"] and {"who", ""} <= first["Modifier.sea.sg"]
    for name, rules in GRAMMAR.items():
        selected = Counter()
        for begins in (first_of(rule.symbols, first) for rule in rules):
            selected.update((begins - {""}) | (follow[name] if "" in begins else set()))
        assert set(selected.values()) == {1}, name


def count_derivations(rules_of, sentence):
    """Count derivations by brute force: every rule, and every way to divide a span among the symbols of a rule."""
    words = sentence.split()

    @cache
    def count(symbols, start, end):
        if not symbols:
            return int(start == end)
        head, *rest = symbols
        if head not in rules_of:
            return count(tuple(rest), start + 1, end) if words[start:end][:1] == [head] else 0
        total = 0
        for middle in range(start, end + 1):
            of_head = sum(count(rule.symbols, start, middle) for rule in rules_of[head])
            total += of_head and of_head * count(tuple(rest), middle, end)
        return total

    return count(("Sentence",), 0, len(words))


def test_every_sampled_sentence_has_one_derivation(text):
    assert {count_derivations(GRAMMAR, sentence) for sentence in text.valid[:80]} == {1}


def test_the_count_of_derivations_can_be_two_or_zero():
    ambiguous = {"Sentence": [Rule(0.5, ("a", "Rest")), Rule(0.5, ("a", "b"))], "Rest": [Rule(1.0, ("b",))]}
    assert count_derivations(ambiguous, "a b") == 2
    assert count_derivations(ambiguous, "b a") == 0


# Its entropy


def test_log_probability_by_hand():
    def zipf(name, rank):
        return (1 / (rank + 10)) / sum(1 / (other + 10) for other in range(len(GRAMMAR[name])))

    at_sea, statement, singular = 0.34 * 0.30, 0.65, 0.55
    the = zipf("Determiner.sg", 0)
    captain = 0.60 * zipf("Noun.sea.sg", 0) * 0.64  # no adjective, no modifier
    snores = 0.40 * zipf("Intransitive.sea.sg", 3) * 0.60 * 0.85  # no adverb, no second verb
    by_hand = math.log(at_sea * statement * singular * the * captain * snores)
    assert grammar.log_probability("at sea the captain snores .") == pytest.approx(by_hand, rel=1e-12)
    assert grammar.perplexity(3 * ["at sea the captain snores ."]) == pytest.approx(math.exp(-by_hand / 7), rel=1e-12)


def test_the_entropy_agrees_with_the_samples(text):
    """-log P(sentence) - H · tokens(sentence) has mean 0, within 4 standard errors. These are below 1% of H."""
    entropy = grammar.entropy_per_token()
    excess = np.array([-grammar.log_probability(line) - entropy * tokens([line]) for line in text.train])
    standard_error = excess.std() / math.sqrt(len(excess))
    assert abs(excess.mean()) < 4 * standard_error
    assert 4 * standard_error < 0.01 * entropy * tokens(text.train) / len(text.train)


# Agreement

NUMBER = {  # of each noun and verb
    word: number
    for name in [*grammar.NOUNS, *grammar.VERBS]
    for number in grammar.NUMBERS
    for word in words_of(f"{name}.{number}")
}


def test_a_verb_agrees_with_its_subject_and_not_with_the_nearest_noun(text):
    """Checks the final s in sentences that begin like `ashore the captains beside a brave gull snore`."""
    noun, adjective, preposition = ("|".join(words_of(name)) for name in ("Noun", "Adjective", "Preposition"))
    verb = "|".join(words_of("Transitive") | words_of("Intransitive") | words_of("Saying"))
    phrase = rf"\S+ (?:(?:{adjective}) )*({noun})"
    pattern = re.compile(rf"(?:(?!do )(?!does )\S+ ){{1,2}}{phrase} (?:{preposition}) {phrase} ({verb}) ")
    seen = Counter()
    for subject, attractor, action in (match.groups() for match in map(pattern.match, text.train) if match):
        assert subject.endswith("s") != action.endswith("s")
        seen[subject.endswith("s"), attractor.endswith("s")] += 1
    assert len(seen) == 4 and min(seen.values()) > 50


def test_changing_the_number_of_one_noun_or_verb_is_an_error(text):
    for line in text.valid[:300]:
        words = line.split()
        for position, word in enumerate(words):
            if word in NUMBER:
                other = word[:-1] if word.endswith("s") else word + "s"
                assert NUMBER[other] != NUMBER[word]
                with raises_one_line(ValueError, f"'{other}' as word {position + 1} of"):
                    grammar.log_probability(" ".join([*words[:position], other, *words[position + 1 :]]))


def test_quotes_and_marks_match_in_every_sentence(text):
    quotation, nested = re.compile(r"`` [^`']* '' "), 0
    for line in text.train:
        outer = line
        while quotation.search(outer):
            nested += outer != line
            outer = quotation.sub("", outer)
        words = outer.split()
        assert not {"``", "''"} & {*words}
        assert words[-1] == ("!" if "how" in words else "?" if {"do", "does"} & {*words} else ".")
    assert nested > 100


@pytest.mark.parametrize(
    ("sentence", "wrong"),
    [
        ("at sea the captain beside these gulls snore .", "'snore' as word 8"),
        ("at sea the captain whom these gulls fear snore .", "'snore' as word 9"),
        ("at sea does the captain snores ?", "'snores' as word 6"),
        ("at sea the judge snores .", "'judge' as word 4"),
        ("at sea the captain says `` in court the judge faints .", "'.' as word 12"),
        ("at sea the captain says `` in court the judge faints '' and faints .", "'faints' as word 14"),
        ("at sea the captain snores '' .", "\"''\" as word 6"),
        ("at sea the captain snores ?", "'?' as word 6"),
        ("at sea the captain snores", "'the end' as word 6"),
        ("at sea the captain snores . .", "'.' as word 7"),
        ("at sea the captain snores . <eos>", "'<eos>' as word 7"),
        ("", "'the end' as word 1"),
        ("Sentence", "'Sentence' as word 1"),
        ("at sea how Adverb the captain snores !", "'Adverb' as word 4"),
    ],
)
def test_the_first_wrong_word_of_a_sentence_is_named(sentence, wrong):
    with raises_one_line(ValueError, f"{wrong} of"):
        grammar.log_probability(sentence)


def test_the_example_of_the_docstring_is_grammatical():
    (shown,) = re.findall(r"^    (.* [.?!])$", grammar.__doc__, re.MULTILINE)
    assert "``" in shown and grammar.log_probability(shown) < 0


# The text


def test_a_seed_determines_the_text(text, monkeypatch):
    monkeypatch.setattr(grammar, "TRAIN_TOKENS", 5_000)
    again, other = grammar.demo_text(seed=0), grammar.demo_text(seed=1)
    assert again.train == text.train[: len(again.train)]
    assert not set(again.train) & set(other.train)


def test_the_text_is_the_same_everywhere(text):
    """Recorded perplexities refer to this text: a change of the grammar invalidates them."""
    digest = hashlib.sha256("\n".join([*text.train, *text.valid, *text.test]).encode()).hexdigest()
    assert digest.startswith("084f89d21e9a2026")
    assert f"{math.exp(grammar.entropy_per_token()):.2f}" == "15.77"  # in README.md
    assert f"{grammar.perplexity(text.test):.2f}" == "15.75"


def test_each_split_ends_when_it_reaches_its_size(text):
    for lines, size in zip(text, (grammar.TRAIN_TOKENS, grammar.VALID_TOKENS, grammar.TEST_TOKENS), strict=True):
        assert tokens(lines[:-1]) < size <= tokens(lines)


def test_train_contains_every_word_of_the_grammar(text):
    words = {symbol for rules in GRAMMAR.values() for rule in rules for symbol in rule.symbols} - {*GRAMMAR}
    assert {word for line in text.train for word in line.split()} == words


# N-grams


def test_the_ngram_probabilities_sum_to_one(text):
    lines = text.train[:500]
    vocabulary = {word for line in lines for word in line.split()} | {ngram.EOS}
    for order in (1, 2, 3):
        probability = ngram.kneser_ney(Counter(gram for line in lines for gram in ngram.ngrams(line, order)))
        for context in (("captain", "beside"), ("the", "sleepy"), ("not", "seen")):
            total = math.fsum(probability((*context, word)[-order:]) for word in vocabulary)
            assert total == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("order", [2, 3])
def test_ngrams_stay_far_above_the_floor(text, order):
    """About twice the floor: a word depends on words outside an n-gram, or on too many different contexts."""
    assert ngram.perplexity(text.train, text.test, order) > 1.6 * math.exp(grammar.entropy_per_token())
