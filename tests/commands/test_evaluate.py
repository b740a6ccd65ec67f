"""evaluate.py against NumPy: runs, averages of runs, other texts, sentences on standard input."""

import csv
import functools
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import evaluate
import ptb
from configs import MEDIUM, SMALL
from helpers import in_process, processes
from helpers.evaluated import CONFIG, log_p, perplexity, records, words_of, write_run_on
from helpers.rejected import assert_rejected, contents
from helpers.run_files import edit_json, ids_and_weights, result, write_run
from helpers.texts import SENTENCE, TINY, write_files
from helpers.training_runs import begin
from ptb.config import override
from ptb.data.corpus import load_corpus
from ptb.data.tokens import EOS
from ptb.runs.texts import read_texts


@pytest.fixture(scope="module")
def folders(tiny_corpus, tmp_path_factory):
    """Two runs on the tiny corpus, with the weights that they began with."""
    folder = tmp_path_factory.mktemp("runs")
    return [write_run_on(tiny_corpus, folder / str(seed), seed=seed) for seed in (1, 2)]


def approx(value):
    return pytest.approx(value, rel=1e-5)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_finished_run_is_scored_as_training_scored_it(finished_folder):
    scored = records("run", cwd=finished_folder)
    assert [(record["run"], record["split"], record["tokens"]) for record in scored] == [
        ("run", "valid", 12 * 11 - 1),
        ("run", "test", 13 * 11 - 1),
    ]
    reached = result(finished_folder / "run")["test_perplexity"]
    assert scored[1]["perplexity"] == pytest.approx(reached, rel=1e-6)
    table = in_process.succeed("evaluate.py", "run", "--split=test", cwd=finished_folder)
    assert (table.stdout.count("\n"), table.stderr) == (1, "")
    assert f"{reached:.3f}" in table.stdout


def test_runs_are_scored_one_by_one_or_as_the_average_of_their_probabilities(folders, tiny_corpus, tmp_path):
    words = {split: words_of(tiny_corpus / f"{split}.txt") for split in ("valid", "test")}
    single = records(*folders)
    assert [(r["run"], r["split"]) for r in single] == [(str(run), split) for run in folders for split in words]
    expected = [perplexity(run, words[split]) for run in folders for split in words]
    assert [r["perplexity"] for r in single] == pytest.approx(expected, rel=1e-5)

    averaged = records(*folders, folders[0], "--average", "--split=test")
    assert [r["run"] for r in averaged] == ["average of 1", "average of 2", "average of 3"]
    first, second = [np.exp(log_p(run, words["test"])) for run in folders]
    for record, p in zip(averaged, [first, (first + second) / 2, (2 * first + second) / 3], strict=True):
        assert record["perplexity"] == pytest.approx(math.exp(-np.log(p).mean()), rel=1e-5)  # not of logits: section 4.1


def test_each_of_several_runs_is_scored_on_its_own_text(folders, tiny_corpus, tmp_path):
    texts = {"train": "a dog sees a cat\n" * 9, "valid": "a cat\n", "test": "a cat sees a dog\na dog\n"}
    corpus = load_corpus(str(write_files(tmp_path, {f"{split}.txt": text for split, text in texts.items()})))
    config, other = override(CONFIG, {"layers": (5,)}), tmp_path / "run"
    write_run(other, config, corpus.vocabulary.words, corpus=corpus.fingerprint(), data_path=str(tmp_path))
    scored = records(folders[0], other, "--split=test")
    assert [record["run"] for record in scored] == [str(folders[0]), str(other)]
    expected = [perplexity(folders[0], words_of(tiny_corpus / "test.txt")), perplexity(other, words_of(tmp_path / "test.txt"))]
    assert [record["perplexity"] for record in scored] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_run_trained_in_bfloat16_is_scored_in_float32_by_both_commands(tmp_path):
    """The difference is 5e-4 here."""
    write_files(tmp_path, {"train.txt": SENTENCE * 80, "valid.txt": SENTENCE * 79, "test.txt": SENTENCE * 13})
    run = tmp_path / "run"
    arguments = ("--model=lstm150", f"--data_path={tmp_path}", f"--save_path={run}", "--precision=bfloat16")
    assert "Precision: bfloat16" in in_process.succeed("train.py", *arguments).stdout
    expected = perplexity(run, words_of(tmp_path / "test.txt"))
    assert result(run)["test_perplexity"] == pytest.approx(expected, rel=1e-6)
    (record,) = records(run, "--split=test")
    assert (record["precision"], record["perplexity"]) == ("float32", pytest.approx(expected, rel=1e-6))
    (record,) = records(run, "--split=test", "--precision=bfloat16")
    assert record["precision"] == "bfloat16"
    assert 1e-5 * expected < abs(record["perplexity"] - expected) < 1e-2 * expected


@pytest.mark.slow
def test_small_on_ptb_is_scored_as_numpy_does(ptb_path, tmp_path):
    """The first 2,000 words of the test text, after ten steps of training, to 1e-4 in perplexity."""
    corpus = load_corpus(ptb_path)
    config = override(SMALL, {"num_epochs": 1})
    learned = config.batch_size * (10 * config.num_steps + 1)
    begin(config, corpus._replace(train=corpus.train[:learned], valid=corpus.valid[:1000]), tmp_path / "run")
    words = words_of(pathlib.Path(ptb_path) / "ptb.test.txt")
    words = words[: words.index(EOS, 1999) + 1]
    (tmp_path / "text.txt").write_text(" ".join(words).replace(EOS, "\n").removesuffix("\n"))
    (record,) = records(tmp_path / "run", f"--data_path={tmp_path / 'text.txt'}")
    assert record["tokens"] == len(words) - 1
    assert record["perplexity"] == pytest.approx(perplexity(tmp_path / "run", words), abs=1e-4)


def test_another_file_is_scored_whole_and_each_word_written(folders, tmp_path):
    text, per_token = tmp_path / "other.txt", tmp_path / "words.csv"
    text.write_text("the zebra sees the dogs\n")
    done = in_process.succeed("evaluate.py", folders[0], f"--data_path={text}", f"--per_token={per_token}", "--json")
    (record,) = map(json.loads, done.stdout.splitlines())
    assert (record["split"], record["tokens"]) == ("other.txt", 5)
    assert done.stderr.count("\n") == 1 and str(text) in done.stderr  # the unknown word
    words = ["the", "<unk>", "sees", "the", "dogs", EOS]
    assert [(row["split"], row["word"]) for row in rows(per_token)] == [("other.txt", word) for word in words[1:]]
    expected = log_p(folders[0], words)
    assert [float(row["log_probability"]) for row in rows(per_token)] == pytest.approx(expected, rel=1e-5)
    assert record["perplexity"] == pytest.approx(math.exp(-expected.mean()), rel=1e-5)
    ids, _ = ids_and_weights(folders[0])
    for position, row in enumerate(rows(per_token), 1):
        others = [log_p(folders[0], [*words[:position], word])[-1] for word in ids]
        assert int(row["rank"]) == 1 + np.count_nonzero(np.array(others) > others[ids[words[position]]])


def test_texts_are_named_by_their_files(folders, tmp_path, monkeypatch):
    write_files(tmp_path, {"a.txt": "the\n", "b.txt": "dogs\n"})
    monkeypatch.chdir(tmp_path)
    lm = ptb.load(folders[0])
    paths = {"a.txt,b.txt": f"{tmp_path}/a.txt,b.txt", "*.txt": f"{tmp_path}/*.txt", tmp_path.name: "."}
    assert [*paths] == [name for path in paths.values() for name in read_texts(lm, path)]


def test_a_run_whose_text_has_no_name_is_not_taken_for_one_on_ptb(tmp_path, tiny_corpus, monkeypatch):
    """None is PTB; earlier versions wrote it for texts that were given from Python too, to models called custom."""
    monkeypatch.setattr("ptb.data.download.download_ptb", lambda _: pytest.fail("PTB was asked for"))
    for number, data_path in enumerate(("", None)):
        run = tmp_path / f"run-{number}"
        write_run(run, CONFIG, load_corpus(str(tiny_corpus)).vocabulary.words, corpus="another", data_path=data_path)
        done = in_process.call("evaluate.py", run)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert str(run) in done.stderr and "--data_path" in done.stderr
        assert len(records(run, f"--data_path={tiny_corpus}")) == 2


def test_the_words_of_all_splits_go_to_one_file(folders, tiny_corpus, tmp_path):
    in_process.succeed("evaluate.py", folders[0], f"--per_token={tmp_path / 'words.csv'}")
    texts = {split: words_of(tiny_corpus / f"{split}.txt") for split in ("valid", "test")}
    expected = [(split, word) for split, words in texts.items() for word in words[1:]]
    assert [(row["split"], row["word"]) for row in rows(tmp_path / "words.csv")] == expected


def test_a_text_whose_name_is_not_utf8_has_rows_too(tmp_path):
    evaluate.write_csv(str(tmp_path / "words.csv"), [(os.fsdecode(b"caf\xe9.txt"), "the", -1.0, 1)], "w")
    assert (tmp_path / "words.csv").read_text() == "caf\\udce9.txt,the,-1.0,1\n"


def test_another_corpus_is_scored_in_the_runs_own_vocabulary(folders, tmp_path):
    for split, lines in (("train", 40), ("valid", 20), ("test", 10)):  # in its own, words would have other ids
        (tmp_path / f"{split}.txt").write_text("see see see dogs the cat <unk>\n" * lines)
    (record,) = records(folders[0], f"--data_path={tmp_path}", "--split=test")
    assert record["perplexity"] == pytest.approx(perplexity(folders[0], words_of(tmp_path / "test.txt")), rel=1e-5)


def test_a_split_of_the_single_text_that_a_run_was_trained_on_wherever_it_is_now(tmp_path):
    text, moved, run = tmp_path / "text.txt", tmp_path / "moved.txt", tmp_path / "run"
    text.write_text(SENTENCE * 300 + "the dogs see the cat\n" * 20)
    corpus = load_corpus(str(text))
    write_run(run, CONFIG, corpus.vocabulary.words, corpus=corpus.fingerprint(), data_path=str(text))
    text.rename(moved)
    gone = in_process.call("evaluate.py", run)
    assert (gone.returncode, gone.stderr.count("\n")) == (1, 1)
    assert all(fact in gone.stderr for fact in (str(text), "--data_path", "--split"))
    (record,) = records(run, f"--data_path={moved}", "--split=test")
    words = [corpus.vocabulary.words[index] for index in corpus.test]
    assert (record["tokens"], record["perplexity"]) == (
        len(words) - 1,
        pytest.approx(perplexity(run, words), rel=1e-5),
    )


def test_sentences_on_standard_input(folders):
    text = "the cat sees the zebra\nthe dogs see\n"
    marked = f"\ufeff{text}"  # the byte order mark that some editors write is no part of the first word
    fresh = records(folders[0], "--stdin", "--words", stdin=marked)
    carried = records(folders[0], "--stdin", "--carry_state", stdin=text)
    first, second = (line.split() for line in ("the cat sees the <unk> <eos>", "the dogs see <eos>"))
    alone = [log_p(folders[0], [EOS, *line]) for line in (first, second)]
    together = log_p(folders[0], [EOS, *first, *second])
    totals = fresh.pop(), carried.pop()
    for record, expected in zip(fresh + carried, (*alone, together[:6], together[6:]), strict=True):
        assert record["tokens"] == len(expected)
        assert record["log_probability"] == pytest.approx(expected.sum(), rel=1e-5)
        assert record["perplexity"] == pytest.approx(math.exp(-expected.mean()), rel=1e-5)
    assert [record["unknown"] for record in fresh] == [["zebra"], []]
    assert [record["sentence"] for record in carried] == text.splitlines()
    assert [word for word, _ in fresh[1]["words"]] == ["the", "dogs", "see", EOS]
    assert [p for _, p in fresh[1]["words"]] == pytest.approx(alone[1], rel=1e-5)
    assert "words" not in carried[0]
    assert totals[0] == {
        **{"sentences": 2, "words": 8, "oovs": 1, "log_probability": approx(sum(map(sum, alone)))},
        **{"ppl": approx(math.exp(-sum(map(sum, alone)) / 10)), "ppl1": approx(math.exp(-sum(map(sum, alone)) / 8))},
        "without_oovs": {
            "log_probability": approx(known := sum(map(sum, alone)) - alone[0][4]),
            **{"ppl": approx(math.exp(-known / 9)), "ppl1": approx(math.exp(-known / 7))},
        },
    }
    assert totals[1]["log_probability"] == approx(together.sum())
    table = in_process.succeed("evaluate.py", folders[0], "--stdin", "--words", stdin=text).stdout.splitlines()
    assert "the cat sees the zebra" in table[0] and f"{fresh[0]['perplexity']:.3f}" in table[0]
    assert [line.split(maxsplit=1)[1] for line in table[1:7]] == ["the", "cat", "sees", "the", "zebra (<unk>)", EOS]
    assert table[-3] == "2 sentences, 8 words, 1 OOVs"
    for line, part in zip(table[-2:], (totals[0], totals[0]["without_oovs"])):
        base_10 = part["log_probability"] / math.log(10)
        assert line.startswith(f"logprob= {base_10:.3f} ppl= {part['ppl']:.3f} ppl1= {part['ppl1']:.3f}")


def test_hypotheses_are_scored_in_their_shape_and_ranked_again(folders):
    hypotheses = {"u-1": "the cat sees the zebra", "u-2": "the dogs see", "v-1": "the cat sees the zebra", "v-2": ""}
    expected = {id: log_p(folders[0], [EOS, *text.split(), EOS]).sum() for id, text in hypotheses.items()}
    lines = in_process.succeed("evaluate.py", folders[0], "--nbest", stdin=rows_of(hypotheses)).stdout.splitlines()
    assert lines == [f"{id} {expected[id]:.4f} {text}".rstrip() for id, text in hypotheses.items()]
    assert lines[0].split()[1] == lines[2].split()[1]

    scored = rows_of({f"{id} {score}": text for score, (id, text) in enumerate(hypotheses.items())})
    flashlight = "w | -2 | -1.5 | -9 | the dogs see\n"
    ranked = records(folders[0], "--nbest", "--lm_scale=0.5", stdin=scored + flashlight)
    totals = {id: score + 0.5 * expected[id] for score, id in enumerate(hypotheses)} | {"w": -1.5 + 0.5 * expected["u-2"]}
    assert {record["id"]: record["score"] for record in ranked} == {id: approx(total) for id, total in totals.items()}
    order = [*sorted(["u-1", "u-2"], key=lambda id: -totals[id]), *sorted(["v-1", "v-2"], key=lambda id: -totals[id]), "w"]
    assert [record["id"] for record in ranked] == order
    assert ranked[-1]["line"] == f"w | {totals['w']:.4f} | -1.5 | {expected['u-2']:.4f} | the dogs see"


def rows_of(hypotheses):
    return "".join(f"{id} {text}\n" for id, text in hypotheses.items())


@pytest.mark.parametrize(("flags", "stdin"), [((), "a the\n\n"), (("--lm_scale=1",), "a 1 the\na the\n")])
def test_a_line_of_an_nbest_list_without_id_or_score(folders, flags, stdin, tmp_path):
    done = in_process.call("evaluate.py", folders[0], "--nbest", *flags, stdin=stdin)
    assert_rejected(done, 1, ["standard input", "2"], tmp_path, contents(tmp_path), printed=done.stdout)


def test_a_program_that_waits_for_each_score_gets_it(folders, tmp_path):
    """And the scores of lines that come together are those of lines that come alone."""
    for name in ("in", "out"):
        os.mkfifo(tmp_path / name)
    before = functools.partial(through_pipes, tmp_path)
    process = processes.start("evaluate.py", folders[0], "--stdin", folder=tmp_path, before=before)
    with processes.at_most(120), open(tmp_path / "in", "wb", buffering=0) as source, open(tmp_path / "out") as results:
        for text in (b"the cat\n", b"the dogs see\nthe cat\n"):
            source.write(text)
            for line in text.decode().splitlines():
                row = results.readline().split()
                assert row[-len(line.split()) :] == line.split()
                assert float(row[2]) == pytest.approx(log_p(folders[0], [EOS, *line.split(), EOS]).sum(), abs=1e-3)
        source.close()
        assert results.readline() == "3 sentences, 7 words, 0 OOVs\n"
        results.read()
    process.join(60)
    assert process.exitcode == 0


def through_pipes(folder):
    os.dup2(os.open(folder / "in", os.O_RDONLY), 0)
    os.dup2(os.open(folder / "out", os.O_WRONLY), 1)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115


def test_a_sentence_with_an_unknown_word_is_an_error_if_there_is_no_unk(tmp_path):
    write_run(tmp_path / "run", CONFIG, ("the", "cat", EOS))
    before = contents(tmp_path)
    done = in_process.call("evaluate.py", "run", "--stdin", stdin="the cat\nthe zebra\n", cwd=tmp_path)
    first, *_ = done.stdout.splitlines(keepends=True)
    assert_rejected(done, 1, ["standard input", "2", "zebra"], tmp_path, before, printed=first)


def test_runs_of_different_vocabularies_cannot_be_averaged(folders, tiny_corpus, tmp_path):
    words = [word.replace("cat", "bird") for word in ids_and_weights(folders[0])[0]]
    write_run(tmp_path / "other", CONFIG, words)
    done = in_process.call("evaluate.py", folders[0], tmp_path / "other", "--average", f"--data_path={tiny_corpus}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert str(tmp_path / "other") in done.stderr


def test_a_text_that_is_no_longer_that_of_the_run_is_named_and_not_averaged(folders, tiny_corpus, tmp_path):
    changed = shutil.copytree(tiny_corpus, tmp_path / "changed")
    copy = shutil.copytree(folders[0], tmp_path / "run")
    edit_json(copy / "config.json", lambda record: record | {"data_path": str(changed)})
    assert in_process.succeed("evaluate.py", copy, "--split=test").stderr == ""
    (changed / "test.txt").write_text(TINY["test.txt"] + "the dogs\n")
    warned = in_process.succeed("evaluate.py", copy, "--split=test")
    assert warned.stderr.count("\n") == 1
    assert str(changed) in warned.stderr and str(copy) in warned.stderr
    edit_json(copy / "config.json", lambda record: record | {"corpus": "another"})
    done = in_process.call("evaluate.py", folders[0], copy, "--average")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert str(copy) in done.stderr and "--data_path" in done.stderr


@pytest.mark.parametrize("cell", ["gru", "peephole_lstm"])
def test_a_run_of_another_cell_is_scored_and_writes(cell, tiny_corpus, tmp_path):
    settings = [f"--set=cell={cell}", "--set=layers=4,3", f"--data_path={tiny_corpus}", f"--save_path={tmp_path}"]
    assert "Kernel: stepwise" in in_process.succeed("train.py", "--model=test", *settings).stdout
    (record,) = records(tmp_path, "--split=test")
    assert record["perplexity"] == pytest.approx(result(tmp_path)["test_perplexity"], rel=1e-6)
    text = in_process.succeed("generate.py", tmp_path, "--length=5").stdout
    assert len(text.split()) + text.count("\n") - 1 == 5


@pytest.mark.slow
def test_averaging_takes_the_memory_of_one_model(tmp_path):
    """Of `medium`, 79 MB a run: TensorFlow never frees what it compiles for a model, and with it the weights."""
    words = (EOS, *map(str, range(9_999)))
    (tmp_path / "text.txt").write_text(" ".join(words[1:600]))
    write_run(tmp_path / "run", MEDIUM, words)
    peaks = []
    for count in (2, 6):  # with the second, its checkpoint is read beside the model
        arguments = [*[tmp_path / "run"] * count, "--average", f"--data_path={tmp_path / 'text.txt'}"]
        command = [sys.executable, "evaluate.py", *arguments]
        process = subprocess.Popen(command, cwd=processes.ROOT, stdout=subprocess.PIPE, env=processes.ON_THE_CPU)
        assert process.stdout.read().count(b"average") == count
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss * 1024)
    assert peaks[1] - peaks[0] < 2 * 79e6
