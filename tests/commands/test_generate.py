"""Distributions by hand, texts against a model in NumPy that reads everything anew for each word, and generate.py itself."""

import functools
import itertools
import math
import signal
import subprocess
import sys

import numpy as np
import oracle
import processes
import pytest
from refusals import GENERATE, assert_refused, contents

import runs
from ptb import sampling
from ptb.model import LanguageModel

VOCAB_SIZE = 30
HALVES = np.log([0.125, 0.5, 0.25, 0.125])


@pytest.fixture(scope="module")
def model():
    return LanguageModel(VOCAB_SIZE, 8, 2, init_scale=0.7, seed=0)


@pytest.fixture(scope="module")
def next_step(model):
    return sampling.make_next_step(model)


def next_word_probabilities(weights, tokens):
    """The distribution after all `tokens`, in float64 and from a state of zeros: one copy of the text for each next word."""
    vocab_size = len(weights["softmax_bias"])
    inputs = np.tile(np.array(tokens, np.int32), [vocab_size, 1])
    targets = np.zeros_like(inputs)
    targets[:, -1] = np.arange(vocab_size)
    return np.exp(-oracle.language_model_losses(weights, inputs, targets)[:, -1])


def chi_square(counts, probabilities):
    """Returns Pearson's statistic in standard deviations from its mean; above 4 once in ten thousand times or less often."""
    expected = counts.sum() * probabilities
    degrees = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees)


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({}, [1 / 8, 1 / 2, 1 / 4, 1 / 8]),
        ({"temperature": 0.5}, [1 / 22, 16 / 22, 4 / 22, 1 / 22]),  # squares
        ({"temperature": 1e-6}, [0, 1, 0, 0]),
        ({"temperature": 1e15}, [1 / 4] * 4),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 2}, [0, 2 / 3, 1 / 3, 0]),
        ({"top_k": 3}, [1 / 7, 4 / 7, 2 / 7, 0]),  # of the two least likely words the first
        ({"top_k": 99}, [1 / 8, 1 / 2, 1 / 4, 1 / 8]),
        ({"top_p": 1e-9}, [0, 1, 0, 0]),
        ({"top_p": 0.5}, [0, 1, 0, 0]),
        ({"top_p": 0.51}, [0, 2 / 3, 1 / 3, 0]),
        ({"top_p": 0.8}, [1 / 7, 4 / 7, 2 / 7, 0]),
        ({"top_p": 0.9}, [1 / 8, 1 / 2, 1 / 4, 1 / 8]),
        ({"excluded": [1]}, [1 / 4, 0, 1 / 2, 1 / 4]),
        ({"excluded": [1], "top_k": 1}, [0, 0, 1, 0]),
        ({"excluded": [1], "top_p": 0.7}, [1 / 3, 0, 2 / 3, 0]),
        ({"temperature": 0.5, "top_p": 0.75}, [0, 4 / 5, 1 / 5, 0]),  # of what the temperature has made of them: 16/22 < 0.75
        ({"top_k": 2, "top_p": 0.6}, [0, 1, 0, 0]),  # of what top_k has left: 2/3 > 0.6
    ],
)
def test_distributions_by_hand(choices, expected):
    for offset in (0, 1000, -1000):  # logits may be as large as they like
        np.testing.assert_allclose(sampling.distribution(HALVES + offset, **choices), expected, rtol=1e-12, atol=0)


def test_distributions_of_ten_thousand_words_by_sorting_them():
    logits = np.random.default_rng(0).normal(0, 3, 10_000).astype(np.float32)
    likelihoods = [math.exp(logit / 0.8) for logit in logits.tolist()]
    order = sorted(range(10_000), key=lambda index: -likelihoods[index])[:500]
    total, reached, kept = sum(likelihoods[index] for index in order), 0, []
    while reached < 0.9 * total:
        kept.append(order[len(kept)])
        reached += likelihoods[kept[-1]]
    expected = np.zeros(10_000)
    expected[kept] = [likelihoods[index] / reached for index in kept]
    p = sampling.distribution(logits, temperature=0.8, top_k=500, top_p=0.9)
    np.testing.assert_allclose(p, expected, rtol=1e-9)


def test_the_first_words_come_as_often_as_the_model_says(model, next_step):
    p = next_word_probabilities(oracle.weights_of(model), [3, 7])
    _, state = next_step(3, model.initial_state(1))
    words = [next(sampling.generate(next_step, 7, state, 1, (1, sample))) for sample in range(2000)]
    assert chi_square(np.bincount(words, minlength=VOCAB_SIZE), p) < 4


def test_the_draws_of_a_text_are_independent():
    same_whatever_it_reads = LanguageModel(4, 2, 1)
    same_whatever_it_reads.softmax_weights.assign(np.zeros([4, 2]))
    same_whatever_it_reads.softmax_bias.assign(HALVES)
    next_step = sampling.make_next_step(same_whatever_it_reads)
    words = list(sampling.generate(next_step, 0, same_whatever_it_reads.initial_state(1), 4000, (5, 0)))
    counts = np.histogram2d(words[::2], words[1::2], bins=[range(5)] * 2)[0]
    assert chi_square(counts.ravel(), np.outer(np.exp(HALVES), np.exp(HALVES)).ravel()) < 4


def test_argmax_is_what_reading_everything_anew_gives_and_one_function_is_traced():
    model = LanguageModel(VOCAB_SIZE, 8, 2, init_scale=4, seed=1)
    next_step = sampling.make_next_step(model)
    text = [4]
    for _ in range(25):
        text.append(int(next_word_probabilities(oracle.weights_of(model), text).argmax()))
    argmax = functools.partial(sampling.distribution, top_k=1)
    assert list(sampling.generate(next_step, 4, model.initial_state(1), 25, (1, 0), argmax)) == text[1:]
    assert len(set(itertools.pairwise(text))) > len(set(text))  # a word is not always followed by the same one
    assert next_step.experimental_get_tracing_count() == 1


def test_the_state_carries_everything_read_so_far(model, next_step):
    text, state = np.random.default_rng(0).integers(0, VOCAB_SIZE, 20).astype(np.int32), model.initial_state(1)
    for position, token in enumerate(text, 1):
        logits, state = next_step(token, state)
        p = next_word_probabilities(oracle.weights_of(model), text[:position])
        np.testing.assert_allclose(sampling.distribution(logits.numpy()), p, rtol=1e-4)


def test_a_text_is_a_function_of_its_seed(model, next_step):
    def text(length, *seed):
        return list(sampling.generate(next_step, 0, model.initial_state(1), length, seed))

    assert text(30, 1, 0) == text(30, 1, 0) == text(40, 1, 0)[:30]
    texts = [text(30, seed, sample) for seed, sample in itertools.product(range(3), range(3))]
    assert len({*map(tuple, texts)}) == 9


@pytest.fixture
def run(finished_folder):
    """A run of the test configuration."""
    return finished_folder / "run"


def test_the_command_writes_samples(run):
    process = processes.succeed("generate.py", run, "--prompt=the zebra sees\nthe", "--length=30", "--num_samples=2")
    assert process.stderr.count("\n") == 1
    assert "--prompt: not in the vocabulary, read as <unk>: 'zebra'" in process.stderr
    once = processes.run("generate.py", run, "--prompt=the <unk> sees\nthe", "--length=30")
    assert once.stderr == ""
    assert process.stdout.startswith(f"{once.stdout}\nthe <unk> sees\nthe ")
    assert process.stdout != f"{once.stdout}\n{once.stdout}"
    # Every word and every line end but one for the last word, where that is none, is a token of the text.
    assert len(once.stdout.split()) + once.stdout.count("\n") in (4 + 1 + 30, 4 + 1 + 30 + 1)
    assert {*process.stdout.split()} <= {"the", "cat", "sees", "dogs", "and", "see", "<unk>"}


def test_the_command_leaves_out_unk_and_takes_the_likeliest(run):
    process = processes.succeed("generate.py", run, "--length=200", "--avoid_unk", "--temperature=2", "--seed=3")
    assert "<unk>" not in process.stdout
    assert len(process.stdout.split()) > 100
    for seed, is_same in ((3, True), (4, False)):
        other = processes.run("generate.py", run, "--length=200", "--avoid_unk", "--temperature=2", f"--seed={seed}")
        assert (other.stdout == process.stdout) == is_same
    likeliest = processes.run("generate.py", run, "--sample=argmax", "--prompt=the", "--length=10")
    assert likeliest.stdout.startswith("the ")
    narrowest = processes.run("generate.py", run, "--top_k=1", "--seed=9", "--prompt=the", "--length=10")
    assert likeliest.stdout == narrowest.stdout


@pytest.mark.parametrize("narrowing", [{}, {"temperature": 0.5, "top_k": 3, "top_p": 0.9}])
def test_the_command_suggests_the_likeliest_words_after_the_prompt(run, narrowing):
    flags = [f"--{name}={value}" for name, value in narrowing.items()]
    process = processes.succeed("generate.py", run, "--prompt=the dogs", "--top=5", *flags)
    suggested = [(word, float(p)) for p, word in map(str.split, process.stdout.splitlines())]
    ids, weights = runs.learnt(run)
    prompt = [ids[word] for word in ("<eos>", "the", "dogs")]
    p = sampling.distribution(np.log(next_word_probabilities(weights, prompt)), **narrowing)
    likeliest = sorted(((p[number], word) for word, number in ids.items() if p[number] > 0), reverse=True)[:5]
    assert suggested == [(word, pytest.approx(probability, abs=1e-5)) for probability, word in likeliest]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGPIPE])
def test_words_come_one_by_one_until_ctrl_c_or_whoever_reads_has_enough(run, ending):
    arguments = [sys.executable, str(processes.ROOT / "generate.py"), str(run), "--length=1000000"]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdout=pipe, stderr=pipe, bufsize=0, env=processes.ON_THE_CPU) as process:
        assert process.stdout.read(1)
        assert process.poll() is None
        if ending == signal.SIGINT:
            process.send_signal(ending)
        process.stdout.close()
        assert process.wait(timeout=60) == -ending
        assert process.stderr.read() == b""


def test_an_unknown_word_is_an_error_where_there_is_no_unk(folder_to_spoil):
    runs.spell(folder_to_spoil / "run", "<unk>", "bird")
    before = contents(folder_to_spoil)
    process = processes.run(*GENERATE, "--prompt=the zebra", cwd=folder_to_spoil)
    assert_refused(process, 1, ["--prompt: the vocabulary lacks 'zebra'"], folder_to_spoil, before)


def test_a_word_that_the_terminal_cannot_show_is_written_some_other_way(folder_to_spoil):
    runs.spell(folder_to_spoil / "run", "cat", "café")
    process = processes.succeed(*GENERATE, "--top=8", cwd=folder_to_spoil, before=ascii_terminal)
    assert "caf\\xe9\n" in process.stdout


def ascii_terminal():
    sys.stdout.reconfigure(encoding="ascii", errors="strict")
