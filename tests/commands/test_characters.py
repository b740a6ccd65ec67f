"""A model of characters, as char-rnn: trained on one file, scored in bits, and its text keeps spaces and lines."""

import json

import numpy as np
import pytest

from helpers import in_process
from helpers.run_files import history, result


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small char-rnn, trained on one file."""
    folder = tmp_path_factory.mktemp("characters")
    (folder / "poem.txt").write_text("Tyger Tyger, burning bright,\nIn the forests of the night;\n" * 80)
    settings = {"layers": 32, "batch_size": 4, "num_steps": 20, "num_epochs": 8, "learning_rate": 2e-2}
    settings |= {"train_fraction": 0.8, "valid_fraction": 0.1}
    changes = [f"--set={name}={value}" for name, value in settings.items()]
    in_process.succeed("train.py", "--model=char_rnn", "--data_path=poem.txt", "--save_path=run", *changes, cwd=folder)
    return folder / "run"


def test_it_learns_the_text(run):
    assert history(run)[-1]["valid_perplexity"] < 1.3  # exp(3.1) at first


def test_it_writes_text_with_its_spaces_and_lines(run):
    done = in_process.succeed("generate.py", run, "--prompt=Tyger Ty", "--length=60", "--sample=argmax")
    assert done.stdout.startswith("Tyger Tyger, burning bright,\nIn the forests of the night;\n")


@pytest.mark.parametrize("prompt", [" In the ", "Tyger "])
def test_a_prompt_keeps_its_spaces(run, prompt):
    assert in_process.succeed("generate.py", run, f"--prompt={prompt}", "--length=5").stdout.startswith(prompt)


def test_it_is_scored_in_bits_on_the_splits_of_its_file(run):
    command = ("evaluate.py", run, "--split=test", "--checkpoint=last")
    (line,) = in_process.succeed(*command, "--json", cwd=run.parent).stdout.splitlines()
    record = json.loads(line)
    assert record["bits_per_character"] == pytest.approx(np.log2(record["perplexity"]))
    assert record["tokens"] == 16 * 29 - 1
    assert result(run)["test_bits_per_character"] == pytest.approx(record["bits_per_character"], rel=1e-6)
    table = in_process.succeed(*command, cwd=run.parent).stdout
    assert f"{record['bits_per_character']:.4f}" in table


def test_it_scores_sentences_with_their_spaces(run):
    done = in_process.succeed("evaluate.py", run, "--stdin", "--words", "--json", stdin="In the\n the\n")
    for line, sentence, words in zip(done.stdout.splitlines()[:2], ("In the", " the"), ("In_the", "_the"), strict=True):
        record = json.loads(line)
        assert record["sentence"] == sentence
        assert [word for word, _ in record["words"]] == [*words, "<eos>"]
