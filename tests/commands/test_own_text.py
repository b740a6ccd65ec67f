"""Texts that people bring, from train.py to evaluate.py and generate.py."""

import json
import re

import pytest

from helpers import in_process
from helpers.rejected import assert_rejected, contents
from helpers.run_files import result
from helpers.texts import SENTENCE, write_files

TEST = ("train.py", "--model=test")
RAW = {
    "train.txt": SENTENCE.replace("<unk>", "Bob") * 40 + "a zebra\n",
    "valid.txt": "the yak sees\n",
    "test.txt": "the cat sees\n",
}
WORDS = ["the", "dogs", "<eos>", "and", "bob", "cat", "see", "sees", "<unk>"]
CHARACTERS = ("--set=level=char", "--set=batch_size=4", "--set=num_steps=10")


def spaced(text):
    return "".join(" ".join(line.replace(" ", "_")) + "\n" for line in text.splitlines())


def records(run, *arguments, **options):
    done = in_process.succeed("evaluate.py", run, "--json", *arguments, **options)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder with a raw text in UTF-16 in `data`, and a run on it in lower case in `run`."""
    folder = tmp_path_factory.mktemp("raw")
    write_files(folder, {f"data/{name}": text.encode("utf-16") for name, text in RAW.items()})
    options = (
        "--encoding=utf-16",
        "--lowercase",
        "--data_path=data",
        "--save_path=run",
        "--set=batch_size=4",
        "--set=learning_rate=0.1",
    )
    return folder, in_process.succeed(*TEST, *options, cwd=folder)


def test_a_raw_text_is_trained_on_and_says_how_many_words_are_unknown(raw):
    folder, done = raw
    assert "3 (2 in data/train.txt, 1 in data/valid.txt)" in done.stderr  # a, zebra; yak
    assert (folder / "run/vocabulary.txt").read_text().split() == WORDS
    record = json.loads((folder / "run/config.json").read_text())
    assert (record["encoding"], record["config"]["data"]["lowercase"]) == ("utf-16", True)


def test_a_run_remembers_how_its_text_is_read(raw):
    folder, _ = raw
    scored, err = records("run", cwd=folder)
    assert [record["tokens"] for record in scored] == [3, 3]
    assert scored[1]["perplexity"] == pytest.approx(result(folder / "run")["test_perplexity"], rel=1e-6)
    assert "no longer" not in err


def test_a_run_in_lower_case_reads_sentences_and_prompts_so(raw):
    folder, _ = raw
    scored, _ = records("run", "--stdin", stdin="the cat\nTHE Cat\nÉté\n", cwd=folder)
    assert [record["unknown"] for record in scored[:3]] == [[], [], ["été"]]
    assert scored[0]["log_probability"] == scored[1]["log_probability"]
    done = in_process.succeed("generate.py", "run", "--prompt=THE Bob", "--length=1", cwd=folder)
    assert done.stdout.startswith("the bob")


def test_sentences_in_another_encoding(raw):
    folder, _ = raw
    scored, _ = records("run", "--stdin", "--encoding=latin-1", stdin="café\n".encode("latin-1"), cwd=folder)
    assert scored[0]["unknown"] == ["café"]


def test_capitals_are_refused_with_a_flag_that_helps(finished_folder):
    before = contents(finished_folder)
    done = in_process.call("generate.py", "run", "--prompt=The Cat", cwd=finished_folder)
    assert_rejected(done, 1, ["--prompt", "--lowercase"], finished_folder, before)
    done = in_process.succeed("generate.py", "run", "--prompt=The Cat", "--length=1", "--lowercase", cwd=finished_folder)
    assert done.stdout.startswith("the cat")
    warned = in_process.succeed("generate.py", "run", "--prompt=The cat", "--length=1", cwd=finished_folder)
    assert "--lowercase" in warned.stderr
    (record, *_), _ = records("run", "--stdin", "--lowercase", stdin="The CAT\n", cwd=finished_folder)
    assert record["unknown"] == []


def test_a_single_text_of_the_run_is_scored_whole_in_lower_case(finished_folder, tmp_path):
    path = write_files(tmp_path, {"text.txt": "The Cat sees".encode("utf-16")}) / "text.txt"
    (record,), err = records("run", f"--data_path={path}", "--encoding=utf-16", "--lowercase", cwd=finished_folder)
    assert (record["tokens"], err) == (3, "")


@pytest.mark.parametrize("level", ["char", pytest.param("symbol", marks=pytest.mark.slow)])
def test_character_ptb_has_the_bits_of_the_plain_text(tmp_path, level):
    texts = {"train": "the cat sees\n" * 40, "valid": "the cat\n" * 9, "test": "the cats see\n" * 9}
    write_files(tmp_path, {f"data/ptb.char.{split}.txt": spaced(text) for split, text in texts.items()})
    options = (f"--set=level={level}", *CHARACTERS[1:], "--data_path=data", "--save_path=run", "--set=layers=4")
    done = in_process.succeed(*TEST, *options, cwd=tmp_path)
    assert ("separated by spaces" in done.stderr) == (level == "char")
    trained = result(tmp_path / "run")
    assert trained["tokens_scored"] == 9 * len("the cats see\n") - 1
    bits = trained["test_bits_per_character"]
    prompt = "the" if level == "char" else "t h e"
    text = in_process.succeed("generate.py", "run", f"--prompt={prompt}", "--length=9", cwd=tmp_path).stdout
    assert text.startswith(prompt)
    assert (" " in text.removeprefix(prompt)) or level == "char"
    write_files(tmp_path, {"plain.txt": texts["test"], "spaced.txt": spaced(texts["test"])})
    scored, _ = records("run", f"--data_path={'plain' if level == 'char' else 'spaced'}.txt", cwd=tmp_path)
    assert scored[0]["bits_per_character"] == pytest.approx(bits, rel=1e-6)


@pytest.mark.slow
def test_a_small_text_is_validated_at_what_fits_and_trained_on_as_the_error_says(tmp_path):
    write_files(tmp_path, {"text.txt": "to be or not to be\n" * 60})
    options = (
        "train.py",
        "--model=char_rnn",
        "--data_path=text.txt",
        "--save_path=run",
        "--set=layers=4",
        "--set=num_epochs=1",
    )
    before = contents(tmp_path)
    done = in_process.call(*options, cwd=tmp_path)
    assert_rejected(done, 1, ["training text", "--set batch_size="], tmp_path, before)
    cure = re.findall(r"--set \w+=\d+", done.stderr)
    assert in_process.succeed(*options, *" ".join(cure).split(), cwd=tmp_path).returncode == 0
    assert result(tmp_path / "run")["tokens_scored"] > 19


def test_the_same_text_three_times_warns_and_runs(tmp_path):
    write_files(tmp_path, {f"data/{split}.txt": SENTENCE * 40 for split in ("train", "valid", "test")})
    done = in_process.succeed(*TEST, "--data_path=data", "--save_path=run", cwd=tmp_path)
    assert "data/valid.txt and data/test.txt: the same text as data/train.txt" in done.stderr
    assert "Test Perplexity" in done.stdout


def test_a_vocabulary_of_a_given_size(tmp_path):
    write_files(tmp_path, {f"data/{name}": text for name, text in RAW.items()})
    options = ("--data_path=data", "--save_path=run", "--set=vocab_size=5", "--set=batch_size=4")
    in_process.succeed(*TEST, *options, cwd=tmp_path)
    assert (tmp_path / "run/vocabulary.txt").read_text().split() == ["<unk>", "the", "dogs", "<eos>", "Bob"]
    assert json.loads((tmp_path / "run/config.json").read_text())["config"]["data"]["vocab_size"] == 5
