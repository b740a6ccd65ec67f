"""The run folder: the same run begins again, another is rejected, and files of unknown owners are left alone."""

import errno
import json
import os

import pytest

from configs import SMALL
from helpers.run_files import record_of
from helpers.texts import raises_one_line
from ptb.config import from_json, override
from ptb.data.tokens import EOS
from ptb.data.vocabulary import Vocabulary
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError

WORDS = Vocabulary(("the", EOS, "<unk>"))
FORMER = {  # config.json of small before configurations had parts
    **{"init_scale": 0.1, "learning_rate": 1.0, "max_grad_norm": 5, "num_layers": 2, "num_steps": 20, "hidden_size": 200},
    **{"full_rate_epochs": 4, "num_epochs": 13, "keep_prob": 1.0, "lr_decay": 0.5, "batch_size": 20},
    **{"model": "small", "seed": 1, "precision": "float32", "corpus": "", "data_path": None},
}


@pytest.fixture
def run(tmp_path):
    """A run of small that has begun, in a folder whose parents did not exist."""
    run = RunFolder(tmp_path / "deep" / "run")
    run.begin(record_of(SMALL), WORDS)
    return run


def test_a_run_that_has_begun_left_its_configuration_and_vocabulary(run):
    assert from_json(run.record["config"]) == SMALL
    assert Vocabulary.load(run.vocabulary_path) == WORDS
    assert run.matches(record_of(SMALL))
    assert run.result is None


def test_the_text_may_move_and_the_configuration_may_have_another_name(run):
    moved = record_of(SMALL, model="mine", data_path="elsewhere")
    assert run.matches(moved)
    run.begin(moved, WORDS)
    assert (run.record["model"], run.record["data_path"]) == ("mine", "elsewhere")


@pytest.mark.parametrize(
    ("changes", "fields", "named"),
    [
        ({"learning_rate": 0.5}, {}, ["learning_rate", "1.0", "0.5"]),
        ({"layers": (3,), "dropout": 0.5}, {}, ["model.layers", "dropout.input"]),
        ({"optimizer": "RMSprop"}, {}, ["RMSprop"]),
        ({}, {"seed": 2}, ["seed", "1", "2"]),
        ({}, {"precision": "bfloat16"}, ["precision", "bfloat16"]),
        ({}, {"corpus": "another"}, ["corpus", "another"]),
    ],
)
def test_another_run_is_rejected_by_the_names_of_what_differs(run, changes, fields, named):
    other = record_of(override(SMALL, changes), **fields)
    with raises_one_line(RunError, run.path, "--save_path", *named):
        run.matches(other)
    with pytest.raises(RunError):
        run.begin(other, WORDS)
    assert run.record == record_of(SMALL)


@pytest.mark.parametrize("name", ["vocabulary.txt", "checkpoint-000000003.npz", "events.out.1", "train/events.out.1"])
def test_run_files_without_config_json_are_not_touched(tmp_path, name):
    unowned = tmp_path / "run" / name
    unowned.parent.mkdir(parents=True)
    unowned.write_text("whose?")
    with raises_one_line(RunError, unowned, "config.json"):
        RunFolder(tmp_path / "run").begin(record_of(SMALL), WORDS)
    assert unowned.read_text() == "whose?"
    assert not (tmp_path / "run" / "config.json").exists()
    assert not RunFolder(tmp_path / "run", read_only=True).matches(record_of(SMALL))  # the first worker may have begun


def test_a_further_worker_writes_nothing(tmp_path):
    worker = RunFolder(tmp_path / "run", read_only=True)
    with worker.locked():
        worker.begin(record_of(SMALL), WORDS)
        worker.write_json("result.json", {})
        worker.write_history([{}])
    assert not worker.path.exists()


@pytest.mark.parametrize("content", ['{"model": ', "[1]", '{"config": {"attention": 8}}', '{"seed": 1}'])
def test_a_damaged_configuration_names_its_file(run, content):
    (run.path / "config.json").write_text(content)
    with raises_one_line(RunError, run.path / "config.json"):
        run.begin(record_of(SMALL), WORDS)
    assert (run.path / "config.json").read_text() == content


@pytest.mark.parametrize("content", ['{"test_perplexity": ', "[]", "{}", '{"test_perplexity": "low"}'])
def test_a_damaged_result_is_a_warning_because_it_can_be_made_again(run, content, caplog):
    (run.path / "result.json").write_text(content)
    assert run.result is None
    (warning,) = caplog.messages
    assert str(run.path / "result.json") in warning


def test_searches_for_other_weights_or_texts_stay_beside_the_newest(run):
    first, second = {"of": "valid", "trials": [1]}, {"of": "another text", "trials": []}
    for record in (first, second, first | {"trials": [1, 2]}):
        run.write_adaptation("cache", record)
    newest, earlier = run.adaptations("cache").items()
    assert newest == (run.path / "adapt-cache.json", {"of": "valid", "trials": [1, 2]})
    assert earlier[1] == second
    assert len(list(run.path.glob("adapt-*"))) == 2
    run.read_only = True
    run.write_adaptation("cache", {"of": "a third text"})
    assert list(run.adaptations("cache").items()) == [newest, earlier]


def test_a_run_from_before_configurations_had_parts_begins_again_in_todays_form(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FORMER))
    run = RunFolder(tmp_path)
    assert run.matches(record_of(SMALL))
    with pytest.raises(RunError):
        run.matches(record_of(override(SMALL, {"num_steps": 5})))
    assert json.loads((tmp_path / "config.json").read_text()) == FORMER
    run.begin(record_of(SMALL), WORDS)
    assert json.loads((tmp_path / "config.json").read_text()) == record_of(SMALL)


def test_a_run_with_a_retired_option_is_not_mixed_with_new_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FORMER | {"norm_of_repeats": "apart"}))
    with raises_one_line(RunError, tmp_path, "norm_of_repeats"):
        RunFolder(tmp_path).matches(record_of(SMALL))


def test_a_folder_is_locked_for_one_process(run):
    with run.locked():
        assert (run.path / "lock").read_text() == str(os.getpid())
        with raises_one_line(RunError, run.path, os.getpid()), RunFolder(run.path).locked():
            pass
        with RunFolder(run.path, read_only=True).locked():
            pass
    with run.locked():
        pass


def test_a_file_system_without_locks_is_named(run, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with raises_one_line(RunError, run.path / "lock", "No locks available"), run.locked():
        pass


def test_history_has_a_line_for_each_record(run):
    assert run.history == []
    epoch = {"seconds": 1.5, "learning_rate": 1.0, "train_perplexity": 3.0, "valid_perplexity": 2.0}
    records = [epoch | {"epoch": number} for number in (1, 2)]
    run.write_history(records)
    lines = (run.path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records == run.history


def test_the_run_that_gave_the_weights_is_known_wherever_it_is_now(tmp_path):
    """Records of earlier versions have its path alone."""
    for number, begun in enumerate(({"run": "a", "digest": "1", "step": 7}, {"run": str(tmp_path / "a"), "step": 7})):
        run = RunFolder(tmp_path / f"run-{number}")
        run.begin(record_of(SMALL, init_from=begun), WORDS)
        assert run.matches(record_of(SMALL, init_from={"run": os.path.relpath(tmp_path / "a"), "digest": "1"}))
        for other in ({"run": "b", "digest": "2"}, None):
            with raises_one_line(RunError, run.path, "init_from"):
                run.matches(record_of(SMALL, init_from=other))
