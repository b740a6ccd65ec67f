"""Scores against a straightforward scorer in NumPy, the paper's averaging, and the evaluate.py command."""

import argparse
import csv
import dataclasses
import itertools
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

import corpora
import numpy as np
import oracle
import placement
import processes
import pytest
from ptb.progress import Progress, learnt_variables
from ptb.run import Run
from refusals import EVALUATE
from texts import SENTENCE
from training_runs import begin

import evaluate
import reader
import runs
from configs import MEDIUM, SMALL
from fuzz.targets import RECORDED
from ptb import evaluation
from ptb.model import LanguageModel
from ptb.training import Sums

TOKENS = np.random.default_rng(0).integers(0, 30, 101).astype(np.int32)


def model(seed=0, rnn_mode="fused"):
    return LanguageModel(30, 8, 2, init_scale=0.7, seed=seed, rnn_mode=rnn_mode)


def losses_after(weights, inputs, targets):
    return oracle.language_model_losses(weights, inputs[np.newaxis], targets[np.newaxis])[0]


def numpy_losses(scored, tokens):
    return losses_after(oracle.weights_of(scored), tokens[:-1], tokens[1:])


@pytest.mark.parametrize("window", [1, 7, 50, 500])
def test_every_prediction_counts_once_whatever_the_window(window):
    scored = model()
    windows = reader.windows(TOKENS, 1, window, drop_remainder=False)
    score = evaluation.score(evaluation.make_eval_step(scored), scored, windows)
    assert score.tokens == 100
    assert score.perplexity == pytest.approx(math.exp(numpy_losses(scored, TOKENS).mean()), rel=1e-5)


def test_small_on_ptb_is_scored_as_numpy_does(ptb_path, tmp_path):
    """The first 2,000 words of the test text, after thirty steps of training, to 1e-4 in perplexity."""
    corpus = corpora.load_corpus(ptb_path)
    config = dataclasses.replace(SMALL, num_epochs=1)
    learnt = config.batch_size * (30 * config.num_steps + 1)
    begin(config, corpus._replace(train=corpus.train[:learnt], valid=corpus.valid[:1000]), tmp_path / "run")
    words = (pathlib.Path(ptb_path) / "ptb.test.txt").read_text().replace("\n", " <eos> ").split()
    words = words[: words.index("<eos>", 1999) + 1]
    (tmp_path / "text.txt").write_text(" ".join(words).replace("<eos>", "\n").removesuffix("\n"))

    ids, weights = runs.learnt(tmp_path / "run")
    tokens = np.array([ids[word] for word in words])
    losses = losses_after(weights, tokens[:-1], tokens[1:])
    (record,) = records(processes.run("evaluate.py", tmp_path / "run", f"--data_path={tmp_path / 'text.txt'}", "--json"))
    assert record["tokens"] == len(words) - 1
    assert record["perplexity"] == pytest.approx(math.exp(losses.mean()), abs=1e-4)


def test_ranks_by_hand():
    scored = model()
    windows = reader.windows(TOKENS, 1, 40, drop_remainder=False)
    ranks = evaluation.carry_through(evaluation.make_rank_step(scored), scored, windows)[0]
    logits, _ = scored(TOKENS[np.newaxis, :-1], scored.initial_state(1))
    order = np.argsort(-logits.numpy()[0], axis=-1)
    np.testing.assert_array_equal(ranks, [1 + list(row).index(target) for row, target in zip(order, TOKENS[1:])])


def test_perplexity_of_a_uniform_guess_and_of_the_unbearable():
    assert evaluation.perplexity(100 * math.log(50), 100) == pytest.approx(50)
    assert evaluation.perplexity(1e6, 1) == math.inf


def test_a_text_whose_name_is_not_utf8_has_rows_of_its_words(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "FLAGS", argparse.Namespace(per_token=str(tmp_path / "words.csv")))
    evaluate.write_rows([(os.fsdecode(b"caf\xe9.txt"), "the", -1.0, 1)], "w")
    assert (tmp_path / "words.csv").read_text() == "caf\\udce9.txt,the,-1.0,1\n"


@pytest.fixture(scope="module")
def run_folders(tiny_corpus, tmp_path_factory):
    """Two runs of the test configuration."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        process = processes.run(
            "train.py",
            "--model=test",
            f"--data_path={tiny_corpus}",
            f"--save_path={folder / str(seed)}",
            f"--seed={seed}",
        )
        assert process.returncode == 0, process.stderr
    return [folder / "1", folder / "2"]


def records(process):
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_the_command_scores_runs_and_their_average(run_folders, tmp_path):
    single = records(processes.run("evaluate.py", *run_folders, "--json"))
    assert [(r["run"], r["split"]) for r in single] == [(str(run), split) for run in run_folders for split in ("valid", "test")]
    results = [json.loads(pathlib.Path(run, "result.json").read_text())["test_perplexity"] for run in run_folders]
    assert results[0] != results[1]
    assert [r["perplexity"] for r in single if r["split"] == "test"] == pytest.approx(results, rel=1e-6)
    averaged = records(processes.run("evaluate.py", *run_folders, run_folders[0], "--average", "--split=test", "--json"))
    assert [r["run"] for r in averaged] == ["average of 1", "average of 2", "average of 3"]
    probabilities = []
    for run in run_folders:
        words = tmp_path / "words.csv"
        processes.succeed("evaluate.py", run, f"--per_token={words}")
        with words.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [split for split, _ in itertools.groupby(row["split"] for row in rows)] == ["valid", "test"]
        probabilities.append([math.exp(float(row["log_probability"])) for row in rows if row["split"] == "test"])
    for count, record in enumerate(averaged, 1):  # of probabilities, not of logits: section 4.1 of the paper
        mean = np.mean([*probabilities, probabilities[0]][:count], 0)
        assert record["perplexity"] == pytest.approx(np.exp(-np.log(mean).mean()), rel=1e-6)


def test_each_of_several_runs_is_scored_on_its_own_text(run_folders, tmp_path):
    for split, lines in (("train", 80), ("valid", 79), ("test", 13)):
        (tmp_path / f"{split}.txt").write_text("a dog sees a cat on every single street\n" * lines)
    other = tmp_path / "run"
    processes.succeed("train.py", "--model=lstm150", f"--data_path={tmp_path}", f"--save_path={other}")
    paths = [str(run_folders[0]), str(other)]
    results = [json.loads(pathlib.Path(path, "result.json").read_text())["test_perplexity"] for path in paths]
    scored = records(processes.run("evaluate.py", *paths, "--split=test", "--json"))
    assert [record["run"] for record in scored] == paths
    assert [record["perplexity"] for record in scored] == pytest.approx(results, rel=1e-5)


def test_what_was_trained_in_bfloat16_is_scored_in_float32_by_both_commands(tmp_path):
    """Which makes a difference of 5e-4 here."""
    for split, lines in (("train", 80), ("valid", 79), ("test", 13)):
        (tmp_path / f"{split}.txt").write_text(SENTENCE * lines)
    run = tmp_path / "run"
    arguments = ("--model=lstm150", f"--data_path={tmp_path}", f"--save_path={run}", "--precision=bfloat16")
    assert "Precision: bfloat16" in processes.run("train.py", *arguments).stdout
    ids, weights = runs.learnt(run)
    tokens = np.array([ids[word] for word in (tmp_path / "test.txt").read_text().replace("\n", " <eos> ").split()])
    expected = math.exp(losses_after(weights, tokens[:-1], tokens[1:]).mean())
    assert json.loads((run / "result.json").read_text())["test_perplexity"] == pytest.approx(expected, rel=1e-6)
    (record,) = records(processes.run("evaluate.py", run, "--split=test", "--json"))
    assert record["perplexity"] == pytest.approx(expected, rel=1e-6)
    (record,) = records(processes.run("evaluate.py", run, "--split=test", "--json", "--precision=bfloat16"))
    assert 1e-5 * expected < abs(record["perplexity"] - expected) < 1e-2 * expected


def test_the_command_scores_another_file_and_writes_each_word(run_folders, tmp_path):
    text = tmp_path / "other.txt"
    text.write_text("the zebra sees the dogs\n")
    process = processes.succeed("evaluate.py", run_folders[0], f"--data_path={text}", f"--per_token={tmp_path / 'words.csv'}")
    assert "other.txt" in process.stdout
    script = processes.ROOT / "evaluate.py"
    assert process.stderr == f"{script}: words outside the vocabulary, read as <unk>: 1 (1 in {text})\n"
    with open(tmp_path / "words.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["word"] for row in rows] == ["<unk>", "sees", "the", "dogs", "<eos>"]
    total = -sum(float(row["log_probability"]) for row in rows)
    assert f"{math.exp(total / 5):.3f}" in process.stdout
    ids, weights = runs.learnt(run_folders[0])
    tokens = np.array([ids["the"], *(ids[row["word"]] for row in rows)])
    losses_of_all = np.stack([losses_after(weights, tokens[:-1], np.full(5, word)) for word in range(len(ids))])
    ranks = 1 + (losses_of_all < losses_after(weights, tokens[:-1], tokens[1:])).sum(0)
    assert [int(row["rank"]) for row in rows] == ranks.tolist()
    assert len(set(ranks)) > 1


def test_the_command_scores_another_corpus_in_the_runs_own_vocabulary(run_folders, tmp_path):
    for split, lines in (("train", 40), ("valid", 20), ("test", 10)):  # in whose own, words would have other ids
        (tmp_path / f"{split}.txt").write_text("see see see dogs the cat <unk>\n" * lines)
    (record,) = records(processes.run("evaluate.py", run_folders[0], f"--data_path={tmp_path}", "--split=test", "--json"))
    ids, weights = runs.learnt(run_folders[0])
    tokens = np.array([ids[word] for word in (tmp_path / "test.txt").read_text().replace("\n", " <eos> ").split()])
    assert record["perplexity"] == pytest.approx(math.exp(losses_after(weights, tokens[:-1], tokens[1:]).mean()), rel=1e-5)


def test_a_split_of_the_one_text_that_a_run_was_trained_on_wherever_that_is_now(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(SENTENCE * 300 + "the dogs see the cat\n" * 20)
    run = tmp_path / "run"
    processes.succeed("train.py", "--model=test", f"--data_path={text}", f"--save_path={run}")
    moved = text.rename(tmp_path / "moved.txt")
    assert "name the text with --data_path, and of one file the --split" in processes.run("evaluate.py", run).stderr
    scored = records(processes.run("evaluate.py", run, f"--data_path={moved}", "--split=test", "--json"))
    assert [r["perplexity"] for r in scored] == [
        pytest.approx(json.loads((run / "result.json").read_text())["test_perplexity"], rel=1e-6)
    ]


@pytest.mark.slow
def test_averaging_takes_the_memory_of_one_model(tmp_path):
    """Of `medium` as it begins, 79 MB a run; what TensorFlow compiles for a model it keeps, and the weights with it."""
    words = (reader.EOS, *map(str, range(9_999)))
    (tmp_path / "text.txt").write_text(" ".join(words[1:600]))
    run = Run(tmp_path / "run")
    run.begin(dataclasses.asdict(MEDIUM) | RECORDED)
    run.write_vocabulary(reader.Vocabulary(words))
    medium = MEDIUM.make_model(len(words))
    Progress(learnt_variables(medium), medium.initial_state(20), Sums.zero()).save(run)
    peaks = []
    for count in (2, 6):  # with the second, its checkpoint is read beside the model
        arguments = [*[run.path] * count, "--average", f"--data_path={tmp_path / 'text.txt'}"]
        command = [sys.executable, "evaluate.py", *arguments]
        process = subprocess.Popen(command, cwd=processes.ROOT, stdout=subprocess.PIPE, env=processes.ON_THE_CPU)
        assert process.stdout.read().count(b"average") == count
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss * 1024)
    assert peaks[1] - peaks[0] < 2 * 79e6


def test_sentences_on_standard_input(run_folders):
    text = "the cat sees the zebra\nthe dogs see\n"
    marked = f"\ufeff{text}"  # the byte order mark that some editors write is no part of the first word
    fresh = records(processes.run("evaluate.py", run_folders[0], "--stdin", "--json", "--words", stdin=marked))
    carried = records(processes.run("evaluate.py", run_folders[0], "--stdin", "--json", "--carry_state", stdin=text))
    ids, weights = runs.learnt(run_folders[0])
    first, second = ([ids[word] for word in line.split()] for line in ("the cat sees the <unk> <eos>", "the dogs see <eos>"))
    eos = ids["<eos>"]
    alone = [losses_after(weights, np.array([eos, *line[:-1]]), np.array(line)) for line in (first, second)]
    together = losses_after(weights, np.array([eos, *first, *second[:-1]]), np.array([*first, *second]))
    for record, losses in zip(fresh + carried, (*alone, together[:6], together[6:]), strict=True):
        assert record["tokens"] == len(losses)
        assert record["log_probability"] == pytest.approx(-losses.sum(), rel=1e-5)
        assert record["perplexity"] == pytest.approx(math.exp(losses.mean()), rel=1e-5)
    assert [r["unknown"] for r in fresh] == [["zebra"], []]
    assert [word for word, _ in fresh[1]["words"]] == ["the", "dogs", "see", "<eos>"]
    assert [p for _, p in fresh[1]["words"]] == pytest.approx(-alone[1], rel=1e-5)
    table = processes.run("evaluate.py", run_folders[0], "--stdin", "--words", stdin=text).stdout.splitlines()
    assert "unknown   1" in table[0]
    assert [line.split(maxsplit=1)[1] for line in table[1:7]] == ["the", "cat", "sees", "the", "zebra (<unk>)", "<eos>"]


def test_a_sentence_with_an_unknown_word_is_an_error_where_there_is_no_unk(folder_to_spoil):
    runs.spell(folder_to_spoil / "run", "<unk>", "bird")
    process = processes.run(*EVALUATE, "--stdin", stdin="the cat\nthe zebra\n", cwd=folder_to_spoil)
    assert process.returncode == 1
    assert process.stdout.count("\n") == 1  # of the first sentence
    assert "standard input, line 2: " in process.stderr and "'zebra'" in process.stderr
    assert process.stderr.count("\n") == 1


def test_runs_with_different_vocabularies_cannot_be_averaged(run_folders, tmp_path):
    other = shutil.copytree(run_folders[0], tmp_path / "other")
    runs.spell(other, "cat", "bird")
    process = processes.run("evaluate.py", run_folders[0], other, "--average")
    assert process.returncode == 1
    assert "its vocabulary is not that of" in process.stderr
    assert process.stderr.count("\n") == 1


def test_a_text_that_is_no_longer_that_of_the_run_is_named_and_not_averaged(run_folders, tiny_corpus, tmp_path):
    changed = shutil.copytree(tiny_corpus, tmp_path / "changed")
    copy = shutil.copytree(run_folders[0], tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"data_path": str(changed)}))
    assert processes.run("evaluate.py", copy, "--split=test").stderr == ""
    with (changed / "test.txt").open("a") as file:
        file.write("the dogs\n")
    process = processes.run("evaluate.py", copy, "--split=test")
    assert process.returncode == 0
    assert f"{changed}: is not the text that {copy} was trained on" in process.stderr
    (copy / "config.json").write_text(json.dumps(config | {"corpus": "another"}))
    process = processes.run("evaluate.py", run_folders[0], copy, "--average")
    assert process.returncode == 1
    assert "was trained on another text" in process.stderr
    assert process.stderr.count("\n") == 1


@pytest.mark.skipif(not placement.knows_gpus(), reason="a TensorFlow that was built without GPUs")
@pytest.mark.parametrize("make_step", [evaluation.make_eval_step, evaluation.make_rank_step])
def test_scoring_would_ask_a_gpu_for_nothing_before_the_end(make_step):
    graph = make_step(model(rnn_mode="cudnn")).get_concrete_function().graph
    assert placement.returns_to_host(graph) == []
    (features_of,) = graph._functions.values()
    assert "CudnnRNNV3" in {operation.type for operation in features_of.graph.get_operations()}
