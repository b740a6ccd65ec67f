"""The library, `lm = ptb.load(folder)`: each result against NumPy in float64 or a computation by hand."""

import math
import subprocess
import sys

import numpy as np
import pytest

import ptb
from configs import TEST
from helpers import oracle
from helpers.processes import ON_THE_CPU, ROOT
from helpers.run_files import ids_and_weights, write_run
from helpers.texts import raises_one_line
from ptb.config import override
from ptb.data.files import DataError
from ptb.evaluation.score import make_eval_step

WORDS = ("the", "<eos>", "dogs", "cat", "sees", "and", "see", "<unk>")
CONFIG = override(TEST, {"layers": (4, 3), "init_scale": 0.7, "dropout": 0.5})
SENTENCES = ["the cat sees the zebra", "", "the dogs see"]
TOKENS = [("the", "cat", "sees", "the", "zebra", "<eos>"), ("<eos>",), ("the", "dogs", "see", "<eos>")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_run(folder, CONFIG, WORDS)
    return folder


@pytest.fixture(scope="module")
def lm(folder):
    return ptb.load(folder)


@pytest.fixture(scope="module")
def log_p(folder):
    """A function from tokens to the log probability of each but the first, by NumPy, from a state of zeros."""
    ids, weights = ids_and_weights(folder)

    def log_probabilities(*tokens):
        numbers = np.array([[ids.get(token, ids["<unk>"]) for token in tokens]])
        return -oracle.language_model_losses(weights, numbers[:, :-1], numbers[:, 1:])[0]

    return log_probabilities


def distribution(log_p, *tokens):
    """The probability of each word after `tokens`."""
    return np.exp([log_p(*tokens, word)[-1] for word in WORDS])


def test_sentences_are_scored_each_after_an_eos(lm, log_p):
    scores = lm.score(SENTENCES)
    assert [score.tokens for score in scores] == TOKENS
    assert [score.unknown for score in scores] == [("zebra",), (), ()]
    for score in scores:
        expected = log_p("<eos>", *score.tokens)
        np.testing.assert_allclose(score.log_probabilities, expected, rtol=1e-5)
        assert score.log_probability == pytest.approx(expected.sum(), rel=1e-5)
        assert score.perplexity == pytest.approx(math.exp(-expected.mean()), rel=1e-5)


def test_sentences_are_scored_as_lines_of_one_text(lm, log_p):
    scores = lm.score(SENTENCES, carry_state=True)
    expected = log_p("<eos>", *sum(TOKENS, ()))
    np.testing.assert_allclose(np.concatenate([score.log_probabilities for score in scores]), expected, rtol=1e-5)
    text = "\n".join(SENTENCES)
    assert lm.perplexity(text) == pytest.approx(math.exp(-expected.mean()), rel=1e-5)
    assert lm.perplexity(text + "\n") == lm.perplexity(text)


def test_a_long_line_of_one_text_is_scored_in_windows(folder, monkeypatch):
    """Its scores `[steps, vocab]` would fill the memory."""
    lengths = []

    def make_counting_step(model):
        step = make_eval_step(model)

        def counting_step(inputs, targets, state):
            lengths.append(inputs.shape[1])
            return step(inputs, targets, state)

        return counting_step

    monkeypatch.setattr(ptb.runs.load, "make_eval_step", make_counting_step)
    lm = ptb.load(folder)
    lines = ["the cat sees the dogs " * 300, "the dogs see"]
    found = np.concatenate([score.log_probabilities for score in lm.score(lines, carry_state=True)])
    assert sum(lengths) == 1501 + 4
    assert max(lengths) <= 500
    np.testing.assert_allclose(found, lm.log_probabilities(lm.vocabulary.encode(["<eos>", *lm.tokenize(lines)])), rtol=1e-5)


def test_scores_come_sentence_by_sentence(lm):
    read = []

    def sentences():
        for sentence in SENTENCES:
            read.append(sentence)
            yield sentence

    for number, score in enumerate(lm.iterate_scores(sentences()), 1):
        assert len(read) == number
        np.testing.assert_array_equal(score.log_probabilities, lm.score([read[-1]])[0].log_probabilities)


def test_one_string_in_place_of_a_list_of_sentences_is_an_error(lm):
    with raises_one_line(TypeError):
        lm.score("the cat")


def test_a_text_file_is_scored_from_its_second_token_on(lm, log_p, tmp_path, monkeypatch):
    (tmp_path / "text").write_text("the cat sees the zebra\nthe dogs see\n")
    expected = math.exp(-log_p(*TOKENS[0], *TOKENS[2]).mean())
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "text", str(tmp_path / "text"), "text"):
        assert lm.perplexity(path) == pytest.approx(expected, rel=1e-5)


def test_a_line_of_a_string_ends_where_a_line_of_a_file_does(lm, log_p):
    expected = math.exp(-log_p("<eos>", "the", "cat", "<eos>").mean())
    for blank in ("\u2028", "\x0b", "\r", "\x1c"):  # of which str.splitlines takes each for the end of a line
        assert lm.perplexity(f"the{blank}cat\n") == pytest.approx(expected, rel=1e-5)


def test_a_text_file_is_read_as_that_of_the_training(log_p, folder, tmp_path):
    write_run(tmp_path / "run", override(CONFIG, {"lowercase": True}), WORDS, encoding="utf-16")
    (tmp_path / "text").write_text("The cat SEES\n", encoding="utf-16")
    expected = math.exp(-log_p("the", "cat", "sees", "<eos>").mean())
    assert ptb.load(tmp_path / "run").perplexity(tmp_path / "text") == pytest.approx(expected, rel=1e-5)


def test_a_missing_text_file_is_an_error(lm, tmp_path):
    with raises_one_line(DataError, tmp_path / "nothing"):
        lm.perplexity(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("", ["<eos>"]), ("the dogs", ["<eos>", "the", "dogs"]), ("the\nzebra", ["<eos>", "the", "<eos>", "<unk>"])],
)
def test_the_most_likely_next_words(lm, log_p, prompt, tokens):
    p = distribution(log_p, *tokens)
    order = np.argsort(-p)
    expected = [(WORDS[index], pytest.approx(p[index], rel=1e-4)) for index in order]
    assert lm.next_words(prompt, 3) == expected[:3]
    everything = lm.next_words(prompt, 99)
    assert everything == expected
    assert sum(probability for _, probability in everything) == pytest.approx(1)


def test_next_words_can_be_narrowed(lm, log_p):
    p = distribution(log_p, "<eos>", "the") ** 2  # of temperature 1/2
    p[WORDS.index("<unk>")] = 0
    likeliest = np.argsort(-p)[:2]
    chosen = lm.next_words("the", temperature=0.5, top_k=2, excluded=[WORDS.index("<unk>")])
    assert chosen == [(WORDS[index], pytest.approx(p[index] / p[likeliest].sum(), rel=1e-4)) for index in likeliest]


def test_the_likeliest_text_is_that_of_the_next_words(lm):
    text = lm.generate("the cat\nthe", 12, top_k=1)
    pieces = list(lm.iterate_text("the cat\nthe", 12, top_k=1))
    assert "".join(pieces) == text
    assert text.startswith("the cat\nthe")
    tokens = [token for line in text.split("\n") for token in (*line.split(), "<eos>")][:-1]
    if text.endswith("\n"):
        tokens = tokens[:-1]
    prompt = "the cat\nthe"
    for token in tokens[4:]:
        ((likeliest, p),) = lm.next_words(prompt, 1, top_k=1)
        assert (likeliest, p) == (token, 1)
        prompt += "\n" if token == "<eos>" else f" {token}"
    assert len(tokens) == 4 + 12


def test_a_text_is_a_function_of_its_seed_and_number(lm):
    texts = [lm.generate("the", 30, seed=seed, sample=sample) for seed in (1, 2) for sample in (0, 1)]
    assert len({*texts}) == 4
    assert lm.generate("the", 30, seed=2, sample=1) == texts[-1]
    assert lm.generate("the", 40, seed=2, sample=1).startswith(texts[-1])


def test_a_text_stops_at_the_end_of_its_sentences(lm):
    whole = lm.generate("the", 60, seed=4)
    for sentences in (1, 2):
        assert lm.generate("the", 60, seed=4, sentences=sentences) == "".join(whole.splitlines(keepends=True)[:sentences])
    assert lm.generate("the", 1, seed=4, sentences=9) == lm.generate("the", 1, seed=4)


@pytest.mark.parametrize("length", [3, 4, 5, 9, 12])
def test_a_long_prompt_is_read_in_windows(lm, length, monkeypatch):
    prompt = " ".join(WORDS[index % 8] if WORDS[index % 8] != "<eos>" else "cat" for index in range(length))
    expected = dict(lm.next_words(prompt, 99))
    for name, value in {"SHORT_PROMPT": 3, "PROMPT_WINDOW": 4, "LONG_PROMPT": 9}.items():
        monkeypatch.setattr(f"ptb.runs.load.{name}", value)
    assert dict(lm.next_words(prompt, 99)) == pytest.approx(expected, rel=1e-5)


def test_the_likeliest_texts(lm, log_p):
    (best, log_probability), *others = lm.beam_search("the dogs", width=40, length=6, sentences=1)
    assert len(others) == 39
    tokens = best.removesuffix("\n").split() + ["<eos>"] * best.endswith("\n")
    assert log_probability == pytest.approx(log_p("<eos>", *tokens)[2:].sum(), rel=1e-5)
    assert all(probability <= log_probability for _, probability in others)
    assert all("<unk>" not in text for text, _ in lm.beam_search("the", excluded=[WORDS.index("<unk>")], length=9))


def test_the_embedding_of_a_word_is_a_row_of_the_matrix(lm, folder, tmp_path):
    _, weights = ids_and_weights(folder)
    np.testing.assert_array_equal(lm.embedding("cat"), weights["embedding"][3])
    np.testing.assert_array_equal(lm.embedding("zebra"), lm.embedding("<unk>"))
    write_run(tmp_path, override(CONFIG, {"one_hot_input": True}), WORDS)
    np.testing.assert_array_equal(ptb.load(tmp_path).embedding("cat"), ids_and_weights(tmp_path)[1]["lstm_0/kernel"][3])


def test_states_are_those_of_each_layer_and_the_last_ones_give_the_next_word(lm, folder):
    states = lm.states("the zebra sees")
    _, weights = ids_and_weights(folder)
    features = weights["embedding"][[1, 0, 7, 4]][:, np.newaxis].astype(np.float64)
    for layer, (units, state) in enumerate(zip(CONFIG.model.layers, states, strict=True)):
        parts = [weights[f"lstm_{layer}/{name}"] for name in ("kernel", "recurrent_kernel", "bias")]
        features = oracle.lstm(features, np.zeros((1, units)), np.zeros((1, units)), *parts)[0]
        assert state.shape == (4, units)
        np.testing.assert_allclose(state, features[:, 0], rtol=1e-4, atol=1e-6)
    for prompt, state in zip(("", "the", "the zebra", "the zebra sees"), states[-1], strict=True):
        scores = np.exp(weights["softmax_weights"] @ state + weights["softmax_bias"])
        expected = dict(zip(WORDS, scores / scores.sum()))
        assert dict(lm.next_words(prompt, 99)) == {word: pytest.approx(p, rel=1e-4) for word, p in expected.items()}


def test_the_model_is_a_keras_model_without_dropout_in_use(lm, log_p):
    import keras

    assert isinstance(lm.model, keras.Model)
    logits, state = lm.model(np.array([[1, 0, 3]], np.int32), lm.model.initial_state(1))
    assert (logits.shape, [layer.hidden.shape for layer in state]) == ((1, 3, 8), [(1, 4), (1, 3)])
    np.testing.assert_allclose(keras.ops.softmax(logits)[0, -1], distribution(log_p, "<eos>", "the", "cat"), rtol=1e-4)


def test_ids_are_scored_and_ranked(lm, log_p):
    ids = np.array([1, 0, 3, 4, 1], np.int32)
    expected = log_p(*[WORDS[index] for index in ids])
    np.testing.assert_allclose(lm.log_probabilities(ids), expected, rtol=1e-5)
    for position, rank in enumerate(lm.ranks(ids)):
        p = distribution(log_p, *[WORDS[index] for index in ids[: position + 1]])
        assert rank == 1 + np.count_nonzero(p > p[ids[position + 1]])


def test_words_that_the_vocabulary_cannot_stand_for(lm, tmp_path):
    write_run(tmp_path, CONFIG, WORDS[:-1])
    without_unk = ptb.load(tmp_path)
    with raises_one_line(DataError, "zebra", "2"):
        without_unk.score(["the cat", "the zebra"])
    for use in (without_unk.next_words, without_unk.generate, without_unk.perplexity, without_unk.embedding):
        with raises_one_line(DataError, "zebra"):
            use("zebra")
    with raises_one_line(DataError, "zebra", "yak"):
        lm.next_words("zebra yak\nzebra")  # not a word of the prompt is known


def test_two_models_in_one_process_do_not_mix(lm, tmp_path):
    write_run(tmp_path, override(CONFIG, {"layers": (5,)}), WORDS[::-1], seed=3)
    alone = lm.score(SENTENCES)[0].log_probabilities, lm.next_words("the cat"), lm.generate("the")
    other = ptb.load(tmp_path)
    assert other.score(SENTENCES)[0].tokens == TOKENS[0]
    assert other.generate("the") != alone[2]
    again = lm.score(SENTENCES)[0].log_probabilities, lm.next_words("the cat"), lm.generate("the")
    np.testing.assert_array_equal(again[0], alone[0])
    assert again[1:] == alone[1:]


def test_a_model_of_characters(tmp_path):
    tokens = ("t", "<eos>", "h", "e", "_", "c", "<U+005F>")
    config = override(CONFIG, {"level": "char", "one_hot_input": True})
    write_run(tmp_path, config, tokens)
    lm = ptb.load(tmp_path)
    (score,) = lm.score(["the c_"])
    assert score.tokens == ("t", "h", "e", "_", "c", "<U+005F>", "<eos>")
    assert lm.perplexity("the c_\n") == pytest.approx(score.perplexity, rel=1e-5)
    assert lm.generate("the ", 20).startswith("the ")
    assert len(lm.generate("the ", 20)) == 24
    assert lm.states("the")[1].shape == (4, 3)
    with raises_one_line(DataError, "z"):
        lm.score(["zoo"])
    assert lm.encode_prompt("thé z") == lm.encode_prompt("th ")
    with raises_one_line(DataError, "z"):
        lm.encode_prompt("zoo\nzoo")


@pytest.mark.slow
def test_six_lines_under_python_without_flags(folder, lm):
    code = """
import ptb
lm = ptb.load("run")
print(lm.score(["the cat sees"])[0].perplexity)
print(lm.perplexity("the cat sees"))
print(lm.next_words("the", 1)[0][0], lm.generate("the", 3, top_k=1).replace("\\n", "|"))
print(lm.embedding("cat").shape, [layer.shape for layer in lm.states("the cat")], lm.model.count_params())
"""
    command = [sys.executable, "-c", code]
    environment = ON_THE_CPU | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    score, perplexity, words, shapes = done.stdout.splitlines()
    assert float(score) == pytest.approx(lm.score(["the cat sees"])[0].perplexity, rel=1e-6)
    assert float(perplexity) == pytest.approx(float(score), rel=1e-6)
    likeliest = lm.next_words("the", 1)[0][0], lm.generate("the", 3, top_k=1).replace("\n", "|")
    assert words == " ".join(likeliest)
    assert shapes == f"(4,) [(3, 4), (3, 3)] {lm.model.count_params()}"
