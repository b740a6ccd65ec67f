"""What users get wrong, over all commands: one line that names the file or the flag, an exit code, and nothing written."""

import os
import signal
import sys
import tarfile

import numpy as np
import pytest

from helpers import in_process, processes
from helpers.rejected import EVALUATE, GENERATE, TRAIN, assert_rejected, contents
from helpers.run_files import edit_checkpoints
from helpers.texts import SENTENCE, tar_member, tgz, write_files

USAGE = [
    (("train.py", "--model=huge"), "huge"),
    (("train.py", "--model=mine.py:HUGE"), "mine.py"),
    (("train.py", "--model=~nosuchuser/mine.py:HUGE"), "mine.py"),
    (("train.py", "--model"), "--model"),
    (("train.py", "--modle=small"), "--model"),
    (("train.py", "--seed=-1"), "--seed"),
    (("train.py", "--seed=2147483648"), "--seed"),
    (("train.py", "--seed=one"), "--seed=one"),
    (("train.py", "--checkpoint_minutes=-1"), "--checkpoint_minutes"),
    (("train.py", "--checkpoint_minutes=soon"), "--checkpoint_minutes=soon"),
    (("train.py", "--checkpoint_minutes=nan"), "--checkpoint_minutes=nan"),
    (("train.py", "--rnn_mode=gru"), "--rnn_mode=gru"),
    (("train.py", "--precision=float8"), "--precision=float8"),
    (("train.py", "--on_nonfinite=ignore"), "--on_nonfinite=ignore"),
    (("train.py", "small"), "'small'"),
    (("train.py", "--data_path="), "--data_path"),
    (("train.py", "--save_path="), "--save_path"),
    (("train.py", "--init_from="), "--init_from"),
    (("train.py", "--extend_vocabulary"), "--extend_vocabulary"),
    (("train.py", "--distribute=everywhere"), "--distribute=everywhere"),
    (("train.py", "--distribute=multi_worker", "--on_nonfinite=rewind"), "--on_nonfinite=rewind"),
    (("train.py", "--report_every=-1"), "--report_every"),
    (("train.py", "--sample_every=often"), "--sample_every=often"),
    (("evaluate.py",), "run"),
    (("evaluate.py", "run", ""), "run"),
    (("evaluate.py", "run", "--data_path="), "--data_path"),
    (("evaluate.py", "run", "--per_token="), "--per_token"),
    (("evaluate.py", "run", "--split=all"), "--split=all"),
    (("evaluate.py", "run", "--average=perhaps"), "--average=perhaps"),
    (("evaluate.py", "run", "--model=small"), "--model"),
    (("evaluate.py", "run", "--precision=float8"), "--precision=float8"),
    (("evaluate.py", "run", "run", "--stdin"), "--stdin"),
    (("evaluate.py", "run", "run", "--average", "--per_token=words.csv"), "--per_token"),
    (("evaluate.py", "run", "--stdin", "--average"), "--average"),
    (("evaluate.py", "run", "--stdin", "--split=train"), "--split"),
    (("evaluate.py", "run", "--stdin", "--data_path=data"), "--data_path"),
    (("evaluate.py", "run", "--stdin", "--per_token=words.csv"), "--per_token"),
    (("evaluate.py", "run", "--stdin", "--adapt=cache"), "--adapt"),
    (("evaluate.py", "run", "--adapt=cache", "--split=test"), "--split"),
    (("evaluate.py", "run", "--adapt=cache", "--average"), "--average"),
    (("evaluate.py", "run", "--nbest", "--words"), "--words"),
    (("evaluate.py", "run", "--nbest", "--stdin"), "--stdin"),
    (("evaluate.py", "run", "run", "--nbest"), "--nbest"),
    (("evaluate.py", "run", "--lm_scale=1"), "--lm_scale"),
    (("evaluate.py", "run", "--nbest", "--lm_scale=nan"), "--lm_scale"),
    (("evaluate.py", "run", "--words"), "--words"),
    (("evaluate.py", "run", "--carry_state"), "--carry_state"),
    (("generate.py",), "run"),
    (("generate.py", "run", "the", "company"), "'the'"),
    (("generate.py", "run", "--length=0"), "--length"),
    (("generate.py", "run", "--num_samples=-3"), "--num_samples"),
    (("generate.py", "run", "--seed=-1"), "--seed"),
    (("generate.py", "run", "--sample=greedy"), "--sample=greedy"),
    (("generate.py", "run", "--temperature=0"), "--temperature=0"),
    (("generate.py", "run", "--temperature=nan"), "--temperature=nan"),
    (("generate.py", "run", "--temperature=inf"), "--temperature=inf"),
    (("generate.py", "run", "--temperature=cold"), "--temperature=cold"),
    (("generate.py", "run", "--top_k=0"), "--top_k"),
    (("generate.py", "run", "--top_p=0"), "--top_p=0"),
    (("generate.py", "run", "--top_p=1.5"), "--top_p=1.5"),
    (("generate.py", "run", "--top=0"), "--top"),
    *[
        (("generate.py", "run", "--sample=argmax", f"--{name}={value}"), f"--{name}")
        for name, value in {"temperature": 2, "top_k": 3, "top_p": 0.5, "seed": 2, "num_samples": 3}.items()
    ],
    *[
        (("generate.py", "run", "--top=3", f"--{name}={value}"), f"--{name}")
        for name, value in {"sample": "argmax", "length": 5, "num_samples": 2, "seed": 2, "beam": 2, "sentences": 1}.items()
    ],
    *[
        (("generate.py", "run", "--beam=3", f"--{name}={value}"), f"--{name}")
        for name, value in {"sample": "argmax", "temperature": 2, "top_k": 3, "top_p": 0.5, "num_samples": 4, "seed": 2}.items()
    ],
    (("generate.py", "run", "--beam=0"), "--beam"),
    (("generate.py", "run", "--sentences=0"), "--sentences"),
    (("generate.py", "run", "--prompt_file="), "--prompt_file"),
    (("generate.py", "run", "--prompt_file=x", "--prompt=the"), "--prompt"),
    (("generate.py", "run", "--interactive", "--prompt=the"), "--prompt"),
    (("generate.py", "run", "--prompt=the", "--encoding=latin-1"), "--encoding"),
    (("export.py", "--format=keras"), "run"),
    (("export.py", "run"), "--format"),
    (("export.py", "run", "--format=coreml"), "coreml"),
    (("export.py", "run", "data", "--format=keras"), "'data'"),
    (("export.py", "run", "--format=keras", "--text=data/test.txt"), "--text"),
    (("export.py", "run", "--format=npz", "--text="), "--text"),
    (("export.py", "run", "--format=npz", "--encoding=latin-1"), "--encoding"),
    (("export.py", "run", "--format=npz", "--lowercase"), "--lowercase"),
    (("export.py", "run", "--format=keras", "--output="), "--output"),
    (("gradcheck.py", "--model=huge"), "huge"),
    (("gradcheck.py", "small"), "'small'"),
    (("reproduce.py", "--seeds=3"), "--model"),
    (("reproduce.py", "--model=huge"), "--model=huge"),
    (("reproduce.py", "--model=small", "--seeds=0"), "--seeds"),
    (("reproduce.py", "small"), "'small'"),
    (("reproduce.py", "--model=small", "--runs="), "--runs"),
]


@pytest.mark.parametrize(("command", "named"), USAGE, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_wrong_flags(finished_folder, command, named):
    before = contents(finished_folder)
    assert_rejected(in_process.call(*command, cwd=finished_folder), 2, [named], finished_folder, before)


FILES = {
    "no text": ((*EVALUATE, "--data_path=nowhere"), "nowhere"),
    "no text with two spaces in its name": ((*EVALUATE, "--data_path=no  where"), "no  where"),
    "no home": ((*EVALUATE, "--data_path=~nosuchuser/text.txt"), "~nosuchuser/text.txt"),
    "empty text": ((*EVALUATE, "--data_path=/dev/null"), "/dev/null"),
    "no run": (("evaluate.py", "data"), "data"),
    "no home of a run": (("evaluate.py", "~nosuchuser/run"), "~nosuchuser/run"),
    "the second of two runs": (("evaluate.py", "run", "data", "--average"), "data"),
    "no text to export the states of": (("export.py", "run", "--format=npz", "--text=nowhere"), "nowhere"),
    "no run to export": (("export.py", "data", "--format=npz"), "data"),
    "no folder to export to": (("export.py", "run", "--format=npz", "--output=data/test.txt"), "data/test.txt"),
    "nowhere to write": ((*EVALUATE, "--per_token=no/such/file.csv"), "no/such/file.csv"),
    "no room to write": ((*EVALUATE, "--per_token=/dev/full"), "/dev/full"),
    "no word of the prompt known": ((*GENERATE, "--prompt=zebra yak\nzebra"), "--prompt"),
    "a kernel that the cell lacks": (("gradcheck.py", "--model=gru", "--rnn_mode=cudnn"), "--rnn_mode=cudnn"),
    "another text than PTB": (("reproduce.py", "--model=small", "--data_path=data"), "--data_path=data"),
    "save path is a file": ((*TRAIN[:2], "--data_path=data", "--save_path=data/train.txt"), "data/train.txt"),
    "save path below a file": ((*TRAIN[:2], "--data_path=data", "--save_path=data/train.txt/run"), "data/train.txt"),
    "save path that cannot be made": ((*TRAIN[:2], "--data_path=data", "--save_path=/proc/run"), "/proc/run"),
    "another run": ((*TRAIN[:2], "--data_path=data", "--save_path=run", "--seed=2"), "seed"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_used(finished_folder, case):
    command, named = FILES[case]
    before = contents(finished_folder)
    assert_rejected(in_process.call(*command, cwd=finished_folder), 1, [named], finished_folder, before)


@pytest.mark.parametrize("command", [EVALUATE, GENERATE, (*TRAIN, "--data_path=data")])
def test_a_kernel_for_a_gpu_without_a_gpu(finished_folder, command, monkeypatch):
    monkeypatch.setattr("ptb.runtime.devices.visible_gpus", list)
    monkeypatch.setattr("ptb.model.language_model.visible_gpus", list)
    before = contents(finished_folder)
    done = in_process.call(*command, "--rnn_mode=cudnn", cwd=finished_folder)
    assert_rejected(done, 1, ["--rnn_mode=cudnn"], finished_folder, before)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"train.txt": SENTENCE}, "training"),
        ({"valid.txt": " \n"}, "valid.txt"),
        ({"test.txt": "the cat\n\0"}, "test.txt"),
    ],
)
def test_texts_that_cannot_be_trained_on(folder_to_damage, files, named):
    write_files(folder_to_damage / "data", files)
    before = contents(folder_to_damage)
    done = in_process.call(*TRAIN, "--data_path=data", cwd=folder_to_damage)
    assert_rejected(done, 1, [named], folder_to_damage, before)


def test_an_archive_that_cannot_be_trained_on(folder_to_damage):
    write_files(folder_to_damage, {"data.tgz": tgz(tar_member("train.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd"))})
    before = contents(folder_to_damage)
    done = in_process.call(*TRAIN, "--data_path=data.tgz", cwd=folder_to_damage)
    assert_rejected(done, 1, ["data.tgz"], folder_to_damage, before)


def test_a_text_that_has_moved_since_training(folder_to_damage):
    (folder_to_damage / "data").rename(folder_to_damage / "elsewhere")
    before = contents(folder_to_damage)
    done = in_process.call(*EVALUATE, cwd=folder_to_damage)
    assert_rejected(done, 1, ["data", "--data_path"], folder_to_damage, before)


DAMAGE = {  # tests/runs/test_load.py has more
    "config.json": lambda path: os.truncate(path, 40),
    "vocabulary.txt": lambda path: os.truncate(path, 11),
    "checkpoint-": lambda path: [file.write_bytes(b"text") for file in path.parent.glob("checkpoint-*.npz")],
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("command", [EVALUATE, (*EVALUATE, "--stdin"), GENERATE])
def test_damaged_runs(folder_to_damage, command, name):
    DAMAGE[name](folder_to_damage / "run" / name)
    before = contents(folder_to_damage)
    done = in_process.call(*command, stdin="the cat\n", cwd=folder_to_damage)
    assert_rejected(done, 1, [name], folder_to_damage, before)


@pytest.mark.parametrize("name", ["config.json", "checkpoint-"])
def test_a_damaged_run_is_not_trained_on(folder_to_damage, name):
    (folder_to_damage / "run" / "result.json").unlink()
    DAMAGE[name](folder_to_damage / "run" / name)
    before = contents(folder_to_damage)
    done = in_process.call("train.py", "--model=test", "--data_path=data", "--save_path=run", cwd=folder_to_damage)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert name in done.stderr
    lock = folder_to_damage / "run" / "lock"  # has the number of the last process
    assert contents(folder_to_damage) | {lock: before[lock]} == before


@pytest.mark.parametrize("command", [(*GENERATE, "--top=3"), (*EVALUATE, "--per_token=words.csv"), (*EVALUATE, "--stdin")])
def test_a_run_whose_training_diverged(folder_to_damage, command):
    def spoil(arrays):
        bias = arrays["weights/language_model/softmax_bias"]
        return arrays | {"weights/language_model/softmax_bias": np.full_like(bias, np.nan)}

    edit_checkpoints(folder_to_damage / "run", spoil)
    before = contents(folder_to_damage)
    done = in_process.call(*command, cwd=folder_to_damage, stdin="the cat\n")
    (folder_to_damage / "words.csv").unlink(missing_ok=True)  # it has begun, with a line of names
    assert_rejected(done, 1, ["run"], folder_to_damage, before)


@pytest.mark.slow  # TensorFlow waits ten seconds for memory
def test_a_model_that_no_memory_holds(finished_folder, tmp_path):
    arguments = (*TRAIN[:2], f"--save_path={tmp_path / 'run'}", f"--data_path={finished_folder / 'data'}")
    done = in_process.call(*arguments, "--set=layers=1000000")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "memory" in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_sentences_that_are_not_utf8(finished_folder, encoding):
    before = contents(finished_folder)
    done = in_process.call(*EVALUATE, "--stdin", cwd=finished_folder, stdin=b"caf\xe9\n", encoding=encoding)
    assert_rejected(done, 1, ["standard input", "line 1"], finished_folder, before)


def test_standard_input_that_is_closed(finished_folder):
    before = contents(finished_folder)
    done = in_process.call(*EVALUATE, "--stdin", cwd=finished_folder, stdin=None)
    assert_rejected(done, 1, ["standard input"], finished_folder, before)


def test_ctrl_c_ends_a_command_that_saves_nothing_with_one_line(finished_folder, monkeypatch):
    def interrupt(path, **options):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("ptb.runs.load.load", interrupt)
    before = contents(finished_folder)
    assert_rejected(in_process.call(*EVALUATE, cwd=finished_folder), 130, [], finished_folder, before)


def test_a_cluster_whose_workers_have_no_port(finished_folder):
    before = contents(finished_folder)
    command = (*TRAIN, "--data_path=data", "--distribute=multi_worker")
    process = processes.run(*command, cwd=finished_folder, before=without_ports)
    facts = ["--distribute=multi_worker", "TF_CONFIG"]
    assert_rejected(process, 1, facts, finished_folder, before, printed=process.stdout)
    assert process.stdout.count("\n") == 1  # it waited for the other workers


def without_ports():
    os.environ["TF_CONFIG"] = '{"cluster": {"worker": ["here", "there"]}, "task": {"type": "worker", "index": 0}}'


@pytest.mark.parametrize("command", [(*EVALUATE, "--split=test"), (*GENERATE, "--top=3")])
def test_a_full_disk_under_standard_output(finished_folder, command):
    before = contents(finished_folder)
    process = processes.run(*command, cwd=finished_folder, before=full_standard_output)
    assert_rejected(process, 1, ["standard output"], finished_folder, before)


def full_standard_output():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 -- what is printed waits in a buffer, as for any file
