"""generate.py: texts, suggestions of the next word, and how it ends."""

import functools
import os
import signal
import sys

import numpy as np
import pytest

import ptb
from configs import TEST
from helpers import in_process, oracle, processes
from helpers.rejected import assert_rejected, contents
from helpers.run_files import ids_and_weights, write_run
from ptb.config import override
from ptb.evaluation.sampling import distribution

CONFIG = override(TEST, {"layers": (4, 3), "init_scale": 0.7})
WORDS = ("the", "<eos>", "dogs", "cat", "sees", "and", "see", "<unk>")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_run(folder, CONFIG, WORDS)
    return folder


@pytest.fixture(scope="module")
def lm(run):
    return ptb.load(run)


def generate(*arguments, **options):
    return in_process.succeed("generate.py", *arguments, **options).stdout


def test_texts_begin_with_the_prompt_and_are_those_of_the_library(run, lm):
    done = in_process.succeed("generate.py", run, "--prompt=the zebra sees\nthe", "--length=30", "--num_samples=2", "--seed=5")
    assert done.stderr.count("\n") == 1  # a warning of the unknown word
    assert "--prompt" in done.stderr and "'zebra'" in done.stderr
    texts = [lm.generate("the <unk> sees\nthe", 30, seed=5, sample=sample) for sample in (0, 1)]
    assert done.stdout == "\n".join(text.removesuffix("\n") + "\n" for text in texts)
    assert texts[0] != texts[1]
    for text in texts:
        assert text.startswith("the <unk> sees\nthe")
        assert len(text.split()) + text.count("\n") == 5 + 30
    known = in_process.succeed("generate.py", run, "--prompt=the <unk> sees\nthe", "--length=30", "--seed=5")
    assert (known.stderr, known.stdout) == ("", done.stdout[: len(known.stdout)])


def test_unk_can_be_left_out(run, lm):
    text = generate(run, "--length=200", "--avoid_unk", "--temperature=2", "--seed=3")
    expected = [lm.generate("", 200, seed=seed, temperature=2, excluded=[WORDS.index("<unk>")]) for seed in (3, 4)]
    assert text.removesuffix("\n") == expected[0].removesuffix("\n") != expected[1].removesuffix("\n")
    assert "<unk>" not in text
    assert "<unk>" in lm.generate("", 200, seed=3, temperature=2)
    assert len(text.split()) > 100


@pytest.mark.parametrize("flags", [("--sample=argmax",), ("--top_k=1", "--seed=9"), ("--top_p=1e-9", "--seed=9")])
def test_the_likeliest_words_can_be_taken(run, lm, flags):
    likeliest = generate(run, *flags, "--prompt=the", "--length=10")
    assert likeliest.removesuffix("\n") == lm.generate("the", 10, seed=2, top_k=1).removesuffix("\n")


@pytest.mark.parametrize("narrowing", [{}, {"temperature": 0.5, "top_k": 3, "top_p": 0.9}])
def test_the_likeliest_next_words_and_their_probabilities(run, narrowing):
    flags = [f"--{name}={value}" for name, value in narrowing.items()]
    printed = generate(run, "--prompt=the dogs", "--top=5", *flags)
    suggested = [(word, float(p)) for p, word in map(str.split, printed.splitlines())]
    ids, weights = ids_and_weights(run)
    inputs = np.tile([[ids[word] for word in ("<eos>", "the", "dogs")]], [len(ids), 1])
    targets = np.concatenate([inputs[:, 1:], np.arange(len(ids))[:, np.newaxis]], axis=1)
    p = distribution(-oracle.language_model_losses(weights, inputs, targets)[:, -1], **narrowing)
    likeliest = sorted(((p[index], word) for word, index in ids.items() if p[index] > 0), reverse=True)[:5]
    assert suggested == [(word, pytest.approx(probability, abs=1e-5)) for probability, word in likeliest]


def test_an_unknown_word_is_an_error_if_there_is_no_unk(tmp_path):
    write_run(tmp_path / "run", CONFIG, WORDS[:-1])
    before = contents(tmp_path)
    done = in_process.call("generate.py", "run", "--prompt=the zebra", cwd=tmp_path)
    assert_rejected(done, 1, ["--prompt", "'zebra'"], tmp_path, before)
    assert generate("run", "--avoid_unk", "--length=3", cwd=tmp_path)


def test_a_word_that_the_terminal_cannot_show_is_escaped(tmp_path):
    write_run(tmp_path, CONFIG, [word.replace("cat", "café") for word in WORDS])
    assert "caf\\xe9\n" in generate(tmp_path, "--top=8", encoding="ascii")


def test_a_vocabulary_does_not_command_the_terminal(tmp_path):
    write_run(tmp_path, CONFIG, [word.replace("cat", "\x1b[31mcat\x9b") for word in WORDS])
    for flags in (("--top=8",), ("--length=200",), ("--beam=1", "--avoid_unk", "--prompt=\x1b[31mcat\x9b")):
        printed = generate(tmp_path, *flags)
        assert "\\x1b[31mcat\\x9b" in printed
        assert "\x1b" not in printed and "\x9b" not in printed


def test_a_prompt_from_a_file_or_from_standard_input(run, tmp_path):
    (tmp_path / "prompt.txt").write_text("the dogs\nthe cat\n")
    expected = generate(run, "--prompt=the dogs\nthe cat", "--length=9")
    assert generate(run, f"--prompt_file={tmp_path / 'prompt.txt'}", "--length=9") == expected
    assert generate(run, "--prompt_file=-", "--length=9", stdin="the dogs\nthe cat\n") == expected
    before = contents(tmp_path)
    done = in_process.call("generate.py", run, "--prompt_file=nothing", cwd=tmp_path)
    assert_rejected(done, 1, ["nothing"], tmp_path, before)


@pytest.mark.parametrize(("prompt", "code"), [("the zebra", 0), ("zebra", 1)])
def test_a_message_names_the_file_of_the_prompt_or_standard_input(run, tmp_path, prompt, code):
    (tmp_path / "prompt.txt").write_text(prompt)
    for path, name in (("prompt.txt", "prompt.txt"), ("-", "standard input")):
        done = in_process.call("generate.py", run, f"--prompt_file={path}", "--length=1", stdin=prompt, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (code, 1)
        assert f" {name}: " in done.stderr and "--prompt" not in done.stderr


def test_a_prompt_file_has_the_encoding_of_the_training_and_standard_input_has_not(run, tmp_path, monkeypatch):
    write_run(tmp_path / "run", CONFIG, WORDS, encoding="utf-16")
    (tmp_path / "prompt.txt").write_text("the dogs", encoding="utf-16")
    expected = generate(run, "--prompt=the dogs", "--length=9")
    monkeypatch.setenv("HOME", str(tmp_path))
    for flags in (("--prompt_file=~/prompt.txt",), ("--prompt_file=prompt.txt", "--encoding=utf-16")):
        assert generate("run", *flags, "--length=9", cwd=tmp_path) == expected
    assert generate("run", "--prompt_file=-", "--length=9", stdin="the dogs", cwd=tmp_path) == expected


def test_texts_of_whole_sentences(run, lm):
    text = generate(run, "--sentences=3", "--seed=7")
    assert text == lm.generate("", 3000, seed=7, sentences=3)
    assert text.count("\n") == 3
    assert generate(run, "--sentences=3", "--seed=7", "--length=2").count("\n") < 3


def test_the_likeliest_texts(run, lm):
    expected = [text.removesuffix("\n") + "\n" for text, _ in lm.beam_search("the", 4, 5, 1)]
    printed = generate(run, "--beam=4", "--num_samples=3", "--prompt=the", "--length=5", "--sentences=1")
    assert printed == "\n".join(expected[:3])


def test_each_line_is_answered_with_one_start(run):
    done = in_process.succeed("generate.py", run, "--interactive", "--top=2", stdin="the\nzebra\nthe cat")
    answers = [generate(run, "--top=2", f"--prompt={prompt}") for prompt in ("the", "the cat")]
    assert done.stdout == f"{answers[0]}\n\n{answers[1]}\n"
    assert done.stderr.count("\n") == 1 and "zebra" in done.stderr
    assert "standard input: " in done.stderr and "--prompt" not in done.stderr


def print_to(path):
    """Make a pipe with a name the standard output of a process."""
    os.dup2(os.open(path, os.O_WRONLY), 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 -- the previous one belongs to a file, and would seek


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGPIPE])
def test_words_come_one_by_one_until_ctrl_c_or_until_the_reader_has_enough(run, ending, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = functools.partial(print_to, tmp_path / "pipe")
    process = processes.start("generate.py", run, "--length=1000000", folder=tmp_path, before=before)
    with processes.at_most(120), open(tmp_path / "pipe", "rb", buffering=0) as pipe:
        assert pipe.read(1)
        assert process.is_alive()
        if ending == signal.SIGINT:
            os.kill(process.pid, ending)
    process.join(60)
    assert process.exitcode == {signal.SIGINT: -signal.SIGINT, signal.SIGPIPE: 128 + signal.SIGPIPE}[ending]
    assert (tmp_path / "stderr").read_text() == ""
