"""trained.py with run folders that are none, or damaged, or of another version; what the commands then say; nothing changes."""

import json
import os
import shutil

import numpy as np
import pytest

import processes
from ptb.run import RunError
from reader import DataError
from refusals import EVALUATE, GENERATE, assert_refused, contents
from texts import assert_data_error
from trained import Trained


def config(**changes):
    return lambda run: edit(run / "config.json", lambda record: record | changes)


def edit(path, function):
    path.write_text(json.dumps(function(json.loads(path.read_text()))))


def without(record, name):
    return {key: value for key, value in record.items() if key != name}


def checkpoint(name, array):
    """Puts an array into both checkpoints, or takes it out where that is None."""

    def spoil(run):
        for path in run.glob("checkpoint-*.npz"):
            arrays = dict(np.load(path)) | {name: array}
            np.savez(path, **{name: array for name, array in arrays.items() if array is not None})

    return spoil


def on_every_checkpoint(function):
    return lambda run: [path.write_bytes(function(path.read_bytes())) for path in run.glob("checkpoint-*.npz")]


EMBEDDING = "weights/language_model/embedding"
RUN_CASES = {
    "no run": (lambda run: shutil.rmtree(run), "run: holds no run"),
    "a file": (lambda run: (shutil.rmtree(run), run.write_text("")), "run/config.json: cannot be read (Not a directory)"),
    "no config": (lambda run: (run / "config.json").unlink(), "run: holds no run"),
    "config is a folder": (lambda run: ((run / "config.json").unlink(), (run / "config.json").mkdir()), "config.json"),
    "config cut off": (lambda run: os.truncate(run / "config.json", 40), "config.json: damaged"),
    "config binary": (lambda run: (run / "config.json").write_bytes(bytes(range(256))), "config.json: damaged"),
    "config a list": (lambda run: (run / "config.json").write_text("[1, 2]"), "config.json: damaged"),
    "config too deep": (lambda run: (run / "config.json").write_text("[" * 100_000), "config.json: damaged"),
    "newer config": (config(attention_heads=8), "config.json: has attention_heads; it was written by another version"),
    "older config": (
        lambda run: edit(run / "config.json", lambda record: without(record, "hidden_size")),
        "config.json: lacks hidden_size",
    ),
    "config of another type": (config(hidden_size="two"), "config.json: has an unusable value of hidden_size"),
    "config of another size": (config(hidden_size=3), "config.json: is not the configuration of checkpoint-"),
    "config of a size beyond memory": (config(hidden_size=10**9), "config.json: is not the configuration of checkpoint-"),
    "config of no layer": (config(num_layers=0), "config.json: num_layers is 0"),
    "config of many layers": (config(num_layers=10**9), "config.json: is not the configuration of checkpoint-"),
    "config of another cell": (config(cell="gru"), "config.json: is not the configuration of checkpoint-"),
    "config of no known cell": (config(cell="foo"), "config.json: cell is 'foo', which is none of lstm, "),
    "config of no known optimiser": (config(optimizer="foo"), "config.json: optimizer is 'foo'"),
    "config of a negative size": (config(hidden_size=-3), "config.json: hidden_size is -3, which is not from 1"),
    "config that is not finite": (config(init_scale=float("nan")), "config.json: init_scale is nan"),
    "config with nothing to test on": (config(train_fraction=0.97), "config.json: train_fraction and valid_fraction leave"),
    "config of options at odds": (config(softmax_samples=5, norm_of_repeats="apart"), "config.json: the norm of repeats apart"),
    "config with a number for a path": (config(data_path=5), "config.json: has an unusable value of data_path"),
    "no checkpoint": (lambda run: [path.unlink() for path in run.glob("*.npz")], "run: holds no checkpoint yet"),
    "checkpoints cut off": (on_every_checkpoint(lambda content: content[:3000]), "damaged checkpoint"),
    "checkpoints empty": (on_every_checkpoint(lambda content: b""), "damaged checkpoint"),
    "checkpoints of text": (on_every_checkpoint(lambda content: b"text"), "damaged checkpoint"),
    "an array missing": (checkpoint(EMBEDDING, None), "holds nothing where weights/"),
    "an array more": (checkpoint("weights/attention", np.zeros(3)), "holds weights/attention, unknown to this model"),
    "another shape": (checkpoint(EMBEDDING, np.zeros((8, 3), np.float32)), "holds (8, 3) float32"),
    "no record": (checkpoint("__record__", None), "damaged checkpoint"),
    "no vocabulary": (lambda run: (run / "vocabulary.txt").unlink(), "vocabulary.txt: cannot be read"),
    "vocabulary cut off": (lambda run: os.truncate(run / "vocabulary.txt", 11), "vocabulary.txt: is empty or cut off"),
    "vocabulary too small": (lambda run: (run / "vocabulary.txt").write_text("the\n<eos>\n"), "is not the vocabulary of"),
    "vocabulary too large": (lambda run: (run / "vocabulary.txt").open("a").write("more\n"), "is not the vocabulary of"),
    "vocabulary without <eos>": (
        lambda run: (run / "vocabulary.txt").write_text((run / "vocabulary.txt").read_text().replace("<eos>", "eos")),
        "is not the vocabulary of",
    ),
}


@pytest.mark.parametrize("case", RUN_CASES)
def test_run_folders_to_open(folder_to_spoil, case, caplog):
    spoil, fragment = RUN_CASES[case]
    spoil(folder_to_spoil / "run")
    before = contents(folder_to_spoil)
    with pytest.raises((RunError, DataError)) as error:
        Trained(folder_to_spoil / "run").load_model()
    assert_data_error(error, str(folder_to_spoil / "run"), fragment)
    assert not caplog.records
    assert contents(folder_to_spoil) == before


def test_a_run_whose_checkpoints_go_after_it_was_opened(folder_to_spoil):
    run = Trained(folder_to_spoil / "run")
    checkpoint_files = list((folder_to_spoil / "run").glob("*.npz"))
    for path in checkpoint_files:
        path.unlink()
    with pytest.raises(RunError, match="its checkpoints have gone"):
        run.load_model()


@pytest.mark.parametrize(
    ("command", "case"), [(EVALUATE, "checkpoints cut off"), (GENERATE, "vocabulary cut off"), (GENERATE, "newer config")]
)
def test_run_folders_to_use(folder_to_spoil, command, case):
    spoil, fragment = RUN_CASES[case]
    spoil(folder_to_spoil / "run")
    before = contents(folder_to_spoil)
    assert_refused(processes.run(*command, cwd=folder_to_spoil), 1, [fragment], folder_to_spoil, before)


def test_a_run_whose_text_has_moved(folder_to_spoil):
    (folder_to_spoil / "data").rename(folder_to_spoil / "elsewhere")
    before = contents(folder_to_spoil)
    fragments = ["data: cannot be read", "; or name the text with --data_path"]
    assert_refused(processes.run(*EVALUATE, cwd=folder_to_spoil), 1, fragments, folder_to_spoil, before)


ASTRAY = [GENERATE, (*GENERATE, "--top=3"), (*EVALUATE, "--per_token=words.csv"), (*EVALUATE, "--stdin")]


@pytest.mark.parametrize("command", ASTRAY)
def test_a_model_that_has_gone_astray_to_use(folder_to_spoil, command):
    vocab_size = len((folder_to_spoil / "run" / "vocabulary.txt").read_text().splitlines())
    checkpoint("weights/language_model/softmax_bias", np.full(vocab_size, np.nan, np.float32))(folder_to_spoil / "run")
    before = contents(folder_to_spoil)
    process = processes.run(*command, cwd=folder_to_spoil, stdin="the cat\n")
    (folder_to_spoil / "words.csv").unlink(missing_ok=True)  # which is begun, with a line of names
    assert_refused(process, 1, ["run: ", "are not finite; "], folder_to_spoil, before)


@pytest.mark.parametrize("case", ["an array missing", "another shape", "an array more"])
def test_run_folders_to_train_on_in(folder_to_spoil, case):
    spoil, fragment = RUN_CASES[case]
    (folder_to_spoil / "run" / "result.json").unlink()
    spoil(folder_to_spoil / "run")
    before = contents(folder_to_spoil)
    process = processes.run("train.py", "--model=test", "--data_path=data", "--save_path=run", cwd=folder_to_spoil)
    after = contents(folder_to_spoil)
    lock = folder_to_spoil / "run" / "lock"  # which has this process's number
    assert process.returncode == 1
    assert fragment in process.stderr
    assert process.stderr.count("\n") == 1
    assert after | {lock: before[lock]} == before
