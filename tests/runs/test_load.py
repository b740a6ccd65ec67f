"""Run folders to open: whole, damaged, of another version, from before checkpoints had digests; and folders that are none."""

import json
import os
import shutil

import numpy as np
import pytest

import ptb
import train
from configs import TEST
from helpers.rejected import contents
from helpers.run_files import (
    assert_same_run,
    edit_checkpoints,
    edit_json,
    record_of,
    result,
    weights,
    without_digests,
    write_run,
)
from helpers.texts import raises_one_line
from helpers.training_runs import StopAt, begin
from ptb.config import override
from ptb.data.corpus import load_corpus
from ptb.data.files import DataError
from ptb.data.vocabulary import Vocabulary
from ptb.evaluation.score import make_eval_step
from ptb.model.language_model import build_model
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError
from ptb.runtime.devices import DeviceError
from ptb.training.state import BEST, TrainState, trained_variables
from ptb.training.step import Sums

WORDS = ("the", "<eos>", "cat", "<unk>", "dog")
SMALL = override(TEST, {"layers": (3, 2)})
SOFTMAX_BIAS = "weights/language_model/softmax_bias"


@pytest.fixture
def run(tmp_path):
    """A run that was saved before its first step."""
    write_run(tmp_path / "run", SMALL, WORDS)
    return tmp_path / "run"


def test_a_run_opens_with_its_configuration_vocabulary_record_and_weights(run):
    lm = ptb.load(run)
    assert (lm.config, lm.vocabulary.words, lm.record) == (SMALL, WORDS, record_of(SMALL))
    saved = weights(run)
    assert {f"weights/{variable.path}" for variable in lm.model.trainable_variables} == set(saved)
    for variable in lm.model.trainable_variables:
        np.testing.assert_array_equal(variable, saved[f"weights/{variable.path}"])


def test_a_run_opens_with_its_best_weights_if_it_keeps_any(run):
    edit_checkpoints(run, lambda arrays: arrays | {BEST + name: array + 1 for name, array in weights(run).items()})
    saved = weights(run)
    for variable in ptb.load(run).model.trainable_variables:
        np.testing.assert_array_equal(variable, saved[f"weights/{variable.path}"] + 1)


def test_opening_skips_a_damaged_checkpoint_with_a_warning(run, caplog):
    (run / "checkpoint-000000001.npz").write_bytes(b"damaged")
    assert ptb.load(run).model
    assert "checkpoint-000000001.npz" in caplog.text


def test_checkpoints_that_disappear_after_opening(run):
    lm = ptb.load(run)
    for path in run.glob("checkpoint-*.npz"):
        path.unlink()
    with raises_one_line(RunError, run):
        lm.model  # noqa: B018


@pytest.mark.parametrize("choice", [{"rnn_mode": "cudnn"}, {"precision": "tf32"}, {"precision": "float16"}])
def test_a_kernel_or_precision_that_the_machine_lacks(run, choice, monkeypatch):
    monkeypatch.setattr("ptb.runtime.devices.visible_gpus", list)
    monkeypatch.setattr("ptb.model.language_model.visible_gpus", list)
    with pytest.raises(DeviceError):
        ptb.load(run, **choice).model  # noqa: B018


def test_a_run_that_is_like_another_can_use_its_model(run, tmp_path):
    other = write_run(tmp_path / "other", SMALL, WORDS, seed=2)
    write_run(tmp_path / "wider", override(SMALL, {"layers": (5,)}), WORDS)
    first, second, third = map(ptb.load, (run, tmp_path / "other", tmp_path / "wider"))
    model, step = first.model, first.compiled(make_eval_step)
    second.take_over(first)
    third.take_over(second)
    assert second.model is model
    assert second.compiled(make_eval_step) is step
    for ours, theirs in zip(second.model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert third.model is not model


def test_fields_at_their_defaults_do_not_count_so_that_a_later_version_can_add_some(run):
    edit_json(run / "config.json", lambda record: record | {"config": without_defaults(record["config"])})
    assert ptb.load(run).model
    assert ptb.load(run).config == SMALL


def without_defaults(record):
    assert record["bptt_steps"] == 0 and not any(record["stopping"].values())
    return {name: value for name, value in record.items() if name not in ("bptt_steps", "stopping")}


# What can be wrong with a run folder, and the file that the error names.


def config(part, **fields):
    """Change fields of a part of the configuration in config.json; with None the whole record."""

    def change(record):
        if part is None:
            return record | fields
        return record | {"config": record["config"] | {part: record["config"][part] | fields}}

    return lambda run: edit_json(run / "config.json", change)


def without(*names):
    return lambda run: edit_json(run / "config.json", lambda record: {k: v for k, v in record.items() if k not in names})


def array(name, value):
    """Put an array into every checkpoint, or remove it if the value is None."""
    return lambda run: edit_checkpoints(
        run, lambda arrays: {k: v for k, v in (arrays | {name: value}).items() if v is not None}
    )


def write(name, content):
    return lambda run: (run / name).write_bytes(content)


def checkpoints(content):
    return lambda run: [path.write_bytes(content(path.read_bytes())) for path in run.glob("checkpoint-*.npz")]


CONFIG_CASES = {
    "a folder": lambda run: ((run / "config.json").unlink(), (run / "config.json").mkdir()),
    "truncated": lambda run: os.truncate(run / "config.json", 40),
    "binary": write("config.json", bytes(range(256))),
    "a list": write("config.json", b"[1, 2]"),
    "empty": write("config.json", b"{}"),
    "nested too deep": write("config.json", b"[" * 100_000),
    "of a newer version": config("model", attention_heads=8),
    "a kind of a newer version": config("optimizer", kind="Adam"),
    "a kind of something else": config("optimizer", kind="StepDecay", full_rate_epochs=1, factor=1.0),
    "a kind that is no name": config("optimizer", kind=["SGD"]),
    "without its configuration": without("config"),
    "without a seed": without("seed"),
    "a number for a path": config(None, data_path=5),
    "a text for the configuration": config(None, config="small"),
    "of another type": config("model", layers="two"),
    "of another size": config("model", layers=[3, 3]),
    "beyond all memory": config("model", layers=[10**9, 2]),
    "of another depth": config("model", layers=[3, 2, 2]),
    "no layer": config("model", layers=[]),
    "a negative size": config("model", layers=[-3, 2]),
    "of another cell": config("model", cell="gru"),
    "of no known cell": config("model", cell="foo"),
    "not finite": config("model", init_scale=float("nan")),
    "options that exclude each other": config("model", cell="gru", two_biases=True),
    "of another learning rate": config("optimizer", learning_rate=0.25),
    "nothing to test on": config("data", train_fraction=0.97),
}
CHECKPOINT_CASES = {
    "truncated": checkpoints(lambda content: content[:1000]),
    "empty": checkpoints(lambda content: b""),
    "text": checkpoints(lambda content: b"text"),
    "without a record": array("__record__", None),
    "a record of bytes": array("__record__", np.frombuffer(b"\xff", np.uint8)),
    "digests that are no object": array("__record__", np.frombuffer(b'{"digests": [1]}', np.uint8)),
    "an array missing": array(SOFTMAX_BIAS, None),
    "an array more": array("weights/attention", np.zeros(3)),
    "another shape": array(SOFTMAX_BIAS, np.zeros(6, np.float32)),
    "another type": array(SOFTMAX_BIAS, np.zeros(5, np.float64)),
}
VOCABULARY_CASES = {
    "missing": lambda run: (run / "vocabulary.txt").unlink(),
    "truncated": lambda run: os.truncate(run / "vocabulary.txt", 11),
    "not UTF-8": write("vocabulary.txt", b"the\n<eos>\ncat\n\xff\ndog\n"),
    "too small": write("vocabulary.txt", b"the\n<eos>\n"),
    "too large": write("vocabulary.txt", b"the\n<eos>\ncat\n<unk>\ndog\nmore\n"),
    "in another order": write("vocabulary.txt", b"the\n<eos>\ndog\n<unk>\ncat\n"),
    "without <eos>": write("vocabulary.txt", b"the\neos\ncat\n<unk>\ndog\n"),
}
CASES = [
    *[("config.json", case) for case in CONFIG_CASES.items()],
    *[("checkpoint-000000000.npz", case) for case in CHECKPOINT_CASES.items()],
    *[("vocabulary.txt", case) for case in VOCABULARY_CASES.items()],
]


@pytest.mark.parametrize(("file", "case"), CASES, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_damaged_file_is_an_error_that_names_it_and_nothing_changes(run, file, case, caplog):
    case[1](run)
    before = contents(run)
    with raises_one_line((RunError, DataError), run / file):
        ptb.load(run).model  # noqa: B018
    assert not caplog.records
    assert contents(run) == before


def test_a_vocabulary_without_eos_is_an_error_before_the_weights_are_read(run):
    VOCABULARY_CASES["without <eos>"](run)
    with raises_one_line(RunError, run / "vocabulary.txt", "<eos>"):
        ptb.load(run)


@pytest.mark.parametrize("damage", [shutil.rmtree, lambda run: (run / "config.json").unlink()])
def test_a_folder_without_config_json_holds_no_run(run, damage):
    damage(run)
    with raises_one_line(RunError, run, "config.json"):
        ptb.load(run)


def test_a_file_is_no_run(tmp_path):
    (tmp_path / "run").write_text("")
    with raises_one_line(RunError, tmp_path / "run"):
        ptb.load(tmp_path / "run")


def test_a_run_without_a_checkpoint(run):
    (run / "checkpoint-000000000.npz").unlink()
    with raises_one_line(RunError, run):
        ptb.load(run)


@pytest.mark.parametrize("case", ["an array missing", "an array more", "another shape"])
def test_training_does_not_continue_from_a_checkpoint_of_another_model(case, tiny_corpus, tmp_path):
    corpus, folder = load_corpus(str(tiny_corpus)), tmp_path / "run"
    write_run(folder, SMALL, corpus.vocabulary.words, corpus=corpus.fingerprint())
    CHECKPOINT_CASES[case](folder)
    before = contents(folder)
    with raises_one_line(RunError, folder / "checkpoint-000000000.npz"):
        train.train(SMALL, corpus, folder, precision="float32")
    after = contents(folder)
    assert after.pop(folder / "lock")
    assert after == before


@pytest.mark.parametrize(
    "use",
    [
        lambda lm: lm.score(["the cat"]),
        lambda lm: lm.perplexity("the cat"),
        lambda lm: lm.next_words("the"),
        lambda lm: lm.generate("the"),
    ],
)
def test_a_model_whose_training_diverged_is_an_error_when_it_is_used(run, use):
    array(SOFTMAX_BIAS, np.full(5, np.nan, np.float32))(run)
    with raises_one_line(RunError, run):
        use(ptb.load(run))


@pytest.mark.parametrize(
    ("changes", "words", "named"),
    [({"learning_rate": 0.5}, WORDS, "config.json"), ({}, ("the", "<eos>", "cat", "<unk>", "bird"), "vocabulary.txt")],
)
def test_a_run_does_not_resume_from_the_checkpoint_of_another_although_the_shapes_fit(run, changes, words, named, tmp_path):
    write_run(tmp_path / "other", override(SMALL, changes), words)
    for path in (tmp_path / "other").glob("checkpoint-*.npz"):
        shutil.copy(path, run)
    resumed = RunFolder(run)
    resumed.begin(record_of(SMALL), Vocabulary(WORDS))
    model = build_model(SMALL, len(WORDS))
    with raises_one_line(RunError, run / named):
        resumed.restore(TrainState(trained_variables(model), model.initial_state(SMALL.batch_size), Sums.zero()))


# Runs of earlier versions: config.json was one flat object, and checkpoints had no digests.

FORMER = {
    **{"init_scale": 0.1, "learning_rate": 0.01, "max_grad_norm": 1, "num_layers": 2, "num_steps": 2, "hidden_size": 8},
    **{"full_rate_epochs": 1, "num_epochs": 3, "keep_prob": 0.5, "lr_decay": 0.5, "batch_size": 20},
    **{"decay_convention": "lua", "norm_of_repeats": "summed", "two_biases": True, "cell": "lstm", "forget_bias": 0.0},
    **{"orthogonal_recurrence": False, "one_hot_input": False, "drop_input": False, "drop_output": True, "level": "word"},
    **{"train_fraction": 0.9, "valid_fraction": 0.05, "reduction": "sum", "softmax_samples": 0, "softmax_l2": 0.0},
    **{"clip": "norm", "optimizer": "rmsprop", "bptt_steps": 0, "validate_every": 0, "patience": 2, "explosion": 5.0},
    **{"model": "test", "seed": 1, "precision": "float32", "corpus": "", "data_path": None},
}
TODAY = override(
    TEST,
    {
        **{"layers": (8, 8), "two_biases": True, "optimizer": "RMSprop", "learning_rate": 0.01, "full_rate_epochs": 2},
        **{"dropout.hidden": 0.5, "dropout.output": 0.5, "patience": 2, "max_loss_ratio": 5.0, "num_epochs": 3},
    },
)


def make_former(folder, corpus="", **changes):
    """Give a run of TODAY the files of an earlier version."""
    (folder / "config.json").write_text(json.dumps(FORMER | {"corpus": corpus} | changes))
    edit_checkpoints(folder, without_digests)


def test_a_run_of_an_earlier_version_opens_scores_the_same_and_resumes_bit_for_bit(tiny_corpus, tmp_path):
    corpus = load_corpus(str(tiny_corpus))
    unbroken, former = tmp_path / "unbroken", tmp_path / "former"
    begin(TODAY, corpus, unbroken)
    with pytest.raises(SystemExit):
        begin(TODAY, corpus, former, StopAt(14))
    make_former(former, corpus.fingerprint())
    begin(TODAY, corpus, former)
    for folder in (unbroken, former):
        expected = train.train(TODAY, corpus, folder, precision="float32")["test_perplexity"]  # nothing left but the score
    assert_same_run(former, unbroken)

    make_former(former, corpus.fingerprint())
    assert ptb.load(former).config == TODAY
    assert ptb.load(former).perplexity(tiny_corpus / "test.txt") == pytest.approx(expected, rel=1e-6)
    before = contents(former)
    assert train.train(TODAY, corpus, former, precision="float32") == result(former)  # finished: nothing to do
    assert contents(former) == before


def test_a_run_with_a_retired_option_can_still_be_scored(tmp_path):
    model = write_run(tmp_path, TODAY, WORDS)
    make_former(tmp_path, norm_of_repeats="apart")
    lm = ptb.load(tmp_path)
    assert lm.config == TODAY
    np.testing.assert_array_equal(lm.model.embedding, model.embedding)


FORMER_CASES = {
    "of another type": {"hidden_size": "two"},
    "of another size": {"hidden_size": 3},
    "of another depth": {"num_layers": 1},
    "no layer": {"num_layers": 0},
    "of countless layers": {"num_layers": 10**12},
    "of another cell": {"cell": "gru", "two_biases": False},
    "of no known optimiser": {"optimizer": "foo"},
    "not finite": {"init_scale": float("nan")},
    "of no known field": {"attention_heads": 8},
}


@pytest.mark.parametrize("case", FORMER_CASES)
def test_damaged_runs_of_an_earlier_version(tmp_path, case):
    write_run(tmp_path, TODAY, WORDS)
    make_former(tmp_path, **FORMER_CASES[case])
    with raises_one_line(RunError, tmp_path):
        ptb.load(tmp_path).model  # noqa: B018


def test_a_former_configuration_that_lacks_a_field(tmp_path):
    write_run(tmp_path, TODAY, WORDS)
    make_former(tmp_path)
    edit_json(tmp_path / "config.json", lambda record: {k: v for k, v in record.items() if k != "hidden_size"})
    with raises_one_line(RunError, tmp_path / "config.json", "hidden_size"):
        ptb.load(tmp_path)
