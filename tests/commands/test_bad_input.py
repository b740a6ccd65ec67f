"""What users get wrong, over all commands: one line that names the file or the flag, an exit code, and nothing written."""

import functools
import os
import signal
import sys
import tarfile

import processes
import pytest
import trained
from refusals import EVALUATE, GENERATE, TRAIN, assert_refused, contents
from texts import SENTENCE, TINY, tar_member, tgz, write_files

USAGE = [
    (("train.py", "--model=huge"), "--model=huge"),
    (("train.py", "--model"), "--model"),
    (("train.py", "--modle=small"), "Did you mean: model"),
    (("train.py", "--seed=-1"), "--seed"),
    (("train.py", "--seed=2147483648"), "--seed"),
    (("train.py", "--seed=one"), "--seed=one"),
    (("train.py", "--checkpoint_minutes=-1"), "--checkpoint_minutes"),
    (("train.py", "--checkpoint_minutes=soon"), "--checkpoint_minutes=soon"),
    (("train.py", "--checkpoint_minutes=nan"), "--checkpoint_minutes=nan"),
    (("train.py", "--rnn_mode=gru"), "--rnn_mode=gru"),
    (("train.py", "--precision=float8"), "--precision=float8"),
    (("train.py", "--on_nonfinite=ignore"), "--on_nonfinite=ignore"),
    (("train.py", "small"), "unexpected argument 'small'"),
    (("train.py", "--data_path="), "--data_path: is empty"),
    (("train.py", "--save_path="), "--save_path: is empty"),
    (("evaluate.py", "run", "--data_path="), "--data_path: is empty"),
    (("train.py", "--stderrthreshold=loud"), "--stderrthreshold"),
    (("train.py", "--distribute=everywhere"), "--distribute=everywhere"),
    (("train.py", "--distribute=multi_worker", "--on_nonfinite=rewind"), "--on_nonfinite=rewind"),
    (("evaluate.py",), "which run?"),
    (("evaluate.py", "run", ""), "the name of a run is empty"),
    (("evaluate.py", "run", "--split=all"), "--split=all"),
    (("evaluate.py", "run", "--average=perhaps"), "--average=perhaps"),
    (("evaluate.py", "run", "--model=small"), "model"),
    (("evaluate.py", "run", "--precision=float8"), "--precision=float8"),
    (("train.py", "--report_every=-1"), "--report_every"),
    (("train.py", "--sample_every=often"), "--sample_every=often"),
    (("generate.py",), "which run?"),
    (("generate.py", "run", "the", "company"), "unexpected argument 'the'"),
    (("generate.py", "run", "--length=0"), "--length"),
    (("generate.py", "run", "--num_samples=-3"), "--num_samples"),
    (("generate.py", "run", "--seed=-1"), "--seed"),
    (("generate.py", "run", "--sample=greedy"), "--sample=greedy"),
    (("generate.py", "run", "--temperature=0"), "--temperature=0"),
    (("generate.py", "run", "--temperature=nan"), "--temperature=nan"),
    (("generate.py", "run", "--temperature=cold"), "--temperature=cold"),
    (("generate.py", "run", "--top_k=0"), "--top_k"),
    (("generate.py", "run", "--top_p=1.5"), "--top_p=1.5"),
    (("generate.py", "run", "--top=0"), "--top"),
    (("evaluate.py", "run", "run", "--stdin"), "--stdin: takes one run"),
    (("evaluate.py", "run", "run", "--average", "--per_token=words.csv"), "--per_token: takes one run"),
    (("evaluate.py", "run", "--stdin", "--average"), "--average: is not for --stdin"),
    (("evaluate.py", "run", "--stdin", "--split=train"), "--split: is not for --stdin"),
    (("evaluate.py", "run", "--stdin", "--data_path=data"), "--data_path: is not for --stdin"),
    (("evaluate.py", "run", "--words"), "--words: is for --stdin"),
    (("evaluate.py", "run", "--carry_state"), "--carry_state: is for --stdin"),
    (("generate.py", "run", "--sample=argmax", "--temperature=2"), "--temperature: changes nothing"),
    (("generate.py", "run", "--sample=argmax", "--top_k=3"), "--top_k: changes nothing"),
    (("generate.py", "run", "--sample=argmax", "--num_samples=3"), "--num_samples: changes nothing"),
    (("generate.py", "run", "--top=3", "--sample=argmax"), "--sample: is for writing text"),
    (("generate.py", "run", "--top=3", "--num_samples=2"), "--num_samples: is for writing text"),
    (("reproduce.py", "--seeds=3"), "--seeds: is for training"),
    (("gradcheck.py", "--model=huge"), "--model=huge"),
    (("gradcheck.py", "small"), "unexpected argument 'small'"),
    (("reproduce.py", "--model=huge"), "--model=huge"),
    (("reproduce.py", "--seeds=0"), "--seeds"),
    (("reproduce.py", "small"), "unexpected argument 'small'"),
]


@pytest.mark.parametrize(("command", "fragment"), USAGE, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_wrong_flags(finished_folder, command, fragment):
    before = contents(finished_folder)
    assert_refused(processes.run(*command, cwd=finished_folder), 2, [fragment], finished_folder, before)


@pytest.mark.parametrize(
    ("files", "fragment"),
    [
        ({"test.txt": TINY["train.txt"]}, "test.txt: is the same text as"),
        ({"train.txt": SENTENCE}, "the training text: has 11 tokens, too few"),
        ({"valid.txt": "the cat\n"}, "the validation text: has 3 tokens, too few"),
    ],
)
def test_texts_to_train_on(folder_to_spoil, files, fragment):
    write_files(folder_to_spoil / "data", files)
    before = contents(folder_to_spoil)
    assert_refused(processes.run(*TRAIN, "--data_path=data", cwd=folder_to_spoil), 1, [fragment], folder_to_spoil, before)


def test_a_model_that_no_memory_holds(finished_folder, tmp_path):
    huge = functools.partial(processes.change, "test", hidden_size=10**6)
    arguments = (*TRAIN[:2], f"--save_path={tmp_path / 'run'}", f"--data_path={finished_folder / 'data'}")
    process = processes.run(*arguments, before=huge)
    assert process.returncode == 1
    assert "the memory is full; use a machine or a device with more" in process.stderr
    assert process.stderr.count("\n") == 1


def test_an_archive_to_train_on(folder_to_spoil):
    write_files(folder_to_spoil, {"data.tgz": tgz(tar_member("train.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd"))})
    before = contents(folder_to_spoil)
    process = processes.run(*TRAIN, "--data_path=data.tgz", cwd=folder_to_spoil)
    assert_refused(process, 1, ["data.tgz: train.txt is a link or a special file"], folder_to_spoil, before)


OTHER_CASES = {
    "no text": ((*EVALUATE, "--data_path=nowhere"), "nowhere: cannot be read (No such file or directory)"),
    "no text of a name with two spaces": ((*EVALUATE, "--data_path=no  where"), "no  where: cannot be read"),
    "another text than PTB": (("reproduce.py", "--model=small", "--data_path=data"), "--data_path=data: is not PTB"),
    "home of nobody": ((*EVALUATE, "--data_path=~nosuchuser/text.txt"), "~nosuchuser/text.txt: cannot be read"),
    "run of nobody": (("evaluate.py", "~nosuchuser/run"), "~nosuchuser/run: holds no run"),
    "empty text": ((*EVALUATE, "--data_path=/dev/null"), "/dev/null: holds no words"),
    "nowhere to write": ((*EVALUATE, "--per_token=no/such/file.csv"), "no/such/file.csv: No such file or directory"),
    "no room to write": ((*EVALUATE, "--per_token=/dev/full"), "/dev/full: No space left on device; make room there"),
    "no word of the prompt known": (
        (*GENERATE, "--prompt=zebra yak\nzebra"),
        "--prompt: the vocabulary has none of its words ('zebra', 'yak')",
    ),
    "a kernel that the cell has not": (
        ("gradcheck.py", "--model=gru", "--rnn_mode=fused"),
        "--rnn_mode=fused: is for the cell lstm",
    ),
    "no GPU": ((*EVALUATE, "--rnn_mode=cudnn"), "sees no GPU"),
    "save path is a file": ((*TRAIN[:2], "--data_path=data", "--save_path=data/train.txt"), "data/train.txt"),
    "save path below a file": ((*TRAIN[:2], "--data_path=data", "--save_path=data/train.txt/run"), "data/train.txt"),
    "save path where none can be": ((*TRAIN[:2], "--data_path=data", "--save_path=/proc/run"), "/proc/run: cannot be written"),
    "another run": (
        (*TRAIN[:2], "--data_path=data", "--save_path=run", "--seed=2"),
        "run: holds another run (seed was 1, now 2)",
    ),
}


@pytest.mark.parametrize("case", OTHER_CASES)
def test_other_paths(finished_folder, case):
    command, fragment = OTHER_CASES[case]
    before = contents(finished_folder)
    process = processes.run(*command, cwd=finished_folder)
    assert_refused(process, 1, [fragment], finished_folder, before)


def test_a_cluster_whose_workers_have_no_port(finished_folder):
    before = contents(finished_folder)
    command = (*TRAIN, "--data_path=data", "--distribute=multi_worker")
    process = processes.run(*command, cwd=finished_folder, before=without_ports)
    fragments = ["--distribute=multi_worker: ", "TF_CONFIG"]
    assert_refused(process, 1, fragments, finished_folder, before, printed="Waiting for the other workers\n")


def without_ports():
    os.environ["TF_CONFIG"] = '{"cluster": {"worker": ["here", "there"]}, "task": {"type": "worker", "index": 0}}'


def without_a_locale():
    sys.stdin.reconfigure(encoding="ascii", errors="surrogateescape")


@pytest.mark.parametrize("locale", [None, without_a_locale])
def test_sentences_that_are_not_utf8(finished_folder, locale):
    before = contents(finished_folder)
    process = processes.run(*EVALUATE, "--stdin", cwd=finished_folder, stdin=b"caf\xe9\n", before=locale)
    assert_refused(process, 1, ["standard input: line 1 is not UTF-8"], finished_folder, before)


def test_standard_input_that_is_closed(finished_folder):
    before = contents(finished_folder)
    process = processes.run(*EVALUATE, "--stdin", cwd=finished_folder, before=without_standard_input)
    assert_refused(process, 1, ["standard input: is closed"], finished_folder, before)


def without_standard_input():
    sys.stdin = None  # as Python has it then


@pytest.mark.parametrize("command", [EVALUATE, (*GENERATE, "--top=3")])
def test_a_full_disk_under_standard_output(finished_folder, command):
    before = contents(finished_folder)
    process = processes.run(*command, cwd=finished_folder, before=full_standard_output)
    assert_refused(process, 1, ["standard output: No space left on device"], finished_folder, before)


def full_standard_output():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 -- what is printed waits in a buffer, as for any file


def test_ctrl_c_ends_a_command_that_saves_nothing_with_one_line(finished_folder):
    before = contents(finished_folder)
    process = processes.run(*EVALUATE, cwd=finished_folder, before=interrupted_when_it_opens_a_run)
    assert_refused(process, 130, ["evaluate.py: interrupted"], finished_folder, before)


def interrupted_when_it_opens_a_run():
    trained.Trained = lambda path: signal.raise_signal(signal.SIGINT)


def test_debug_shows_the_traceback(finished_folder):
    process = processes.run(*EVALUATE, "--data_path=nowhere", "--debug", cwd=finished_folder)
    assert process.returncode == 1
    assert "Traceback (most recent call last)" in process.stderr
    assert "textfiles.DataError: nowhere" in process.stderr
