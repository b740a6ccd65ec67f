"""What users get wrong, over all commands: one line that names the file or the flag, an exit code, and nothing written."""

import dataclasses
import gzip
import io
import os
import sys
import tarfile

import pytest

import processes
import textfiles
from refusals import EVALUATE, GENERATE, TRAIN, assert_refused, contents
from texts import SENTENCE, TINY, write_files

USAGE = [
    (("train.py", "--model=huge"), "--model=huge"),
    (("train.py", "--model"), "--model"),
    (("train.py", "--modle=small"), "Did you mean: model"),
    (("train.py", "--seed=-1"), "--seed"),
    (("train.py", "--seed=2147483648"), "--seed"),
    (("train.py", "--seed=one"), "--seed=one"),
    (("train.py", "--checkpoint_minutes=-1"), "--checkpoint_minutes"),
    (("train.py", "--checkpoint_minutes=soon"), "--checkpoint_minutes=soon"),
    (("train.py", "--rnn_mode=gru"), "--rnn_mode=gru"),
    (("train.py", "--precision=float8"), "--precision=float8"),
    (("train.py", "--on_nonfinite=ignore"), "--on_nonfinite=ignore"),
    (("train.py", "small"), "unexpected argument 'small'"),
    (("train.py", "--distribute=everywhere"), "--distribute=everywhere"),
    (("train.py", "--distribute=multi_worker", "--on_nonfinite=rewind"), "--on_nonfinite=rewind"),
    (("evaluate.py",), "which run?"),
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


def members(name="train.txt", kind=tarfile.REGTYPE, size=None, folder="data/"):
    """An archive of the corpus in which one member is spoilt."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for text, content in TINY.items():
            member = tarfile.TarInfo(folder + text)
            member.size = len(content)
            if text == name:
                member.type, member.linkname = kind, "/etc/passwd"
                member.size = size or member.size
            archive.addfile(member, io.BytesIO(content.encode().ljust(member.size)))
    return file.getvalue()


TEXT_CASES = {
    "missing split": ({"train.txt": None}, "does not hold"),
    "empty": ({"test.txt": b""}, "test.txt: holds no words"),
    "blank": ({"valid.txt": b"\n \n"}, "valid.txt: holds no words"),
    "binary": ({"train.txt": bytes(range(256))}, "train.txt: line 1 holds a zero byte"),
    "UTF-16": ({"train.txt": SENTENCE.encode("utf-16") * 40}, "train.txt: line 1"),
    "not UTF-8": ({"valid.txt": b"the caf\xe9\n"}, "valid.txt: line 1 is not UTF-8"),
    "huge line": ({"train.txt": b"a " * textfiles.MAX_LINE_BYTES}, "train.txt: line 1 has over"),
    "wrong split": ({"test.txt": TINY["train.txt"]}, "test.txt: is the same text as"),
    "short training text": ({"train.txt": SENTENCE}, "the training text: has 11 tokens, too few"),
    "short validation text": ({"valid.txt": "the cat\n"}, "the validation text: has 3 tokens, too few"),
    "no <unk>": ({"train.txt": "the cat\n" * 40}, "the vocabulary has no <unk>"),
}
ARCHIVE_CASES = {
    "no archive": (b"the cat", "readable simple-examples.tgz"),
    "empty": (b"", "readable simple-examples.tgz"),
    "cut off": (members()[:-100], "readable simple-examples.tgz"),
    "bit flipped": (members()[:200] + b"\xff" + members()[201:], "data.tgz"),
    "member outside": (members(folder="../"), "a path out of the archive"),
    "absolute member": (members(folder="/data/"), "a path out of the archive"),
    "symbolic link": (members(kind=tarfile.SYMTYPE), "is a link or a special file"),
    "hard link": (members(kind=tarfile.LNKTYPE), "is a link or a special file"),
    "device": (members(kind=tarfile.CHRTYPE), "is a link or a special file"),
    "bomb": (gzip.compress(bytes(textfiles.MAX_ARCHIVE_BYTES + (1 << 20)), 1), "data.tgz"),
    "huge member": (members(size=textfiles.MAX_MEMBER_BYTES + 1), "has over"),
}


@pytest.mark.parametrize("case", TEXT_CASES)
def test_texts_to_train_on(folder_to_spoil, case):
    files, fragment = TEXT_CASES[case]
    for name, content in files.items():
        (folder_to_spoil / "data" / name).unlink()
        if content is not None:
            write_files(folder_to_spoil / "data", {name: content})
    before = contents(folder_to_spoil)
    assert_refused(processes.run(*TRAIN, "--data_path=data", cwd=folder_to_spoil), 1, [fragment], folder_to_spoil, before)


@pytest.mark.parametrize("case", ARCHIVE_CASES)
def test_archives_to_train_on(folder_to_spoil, case):
    content, fragment = ARCHIVE_CASES[case]
    write_files(folder_to_spoil, {"data.tgz": content})
    before = contents(folder_to_spoil)
    process = processes.run(*TRAIN, "--data_path=data.tgz", cwd=folder_to_spoil)
    assert_refused(process, 1, ["data.tgz", fragment], folder_to_spoil, before)


OTHER_CASES = {
    "no text": ((*EVALUATE, "--data_path=nowhere"), "nowhere"),
    "another text than PTB": (("reproduce.py", "--model=small", "--data_path=data"), "--data_path=data: is not PTB"),
    "home of nobody": ((*EVALUATE, "--data_path=~nosuchuser/text.txt"), "~nosuchuser/text.txt"),
    "run of nobody": (("evaluate.py", "~nosuchuser/run"), "~nosuchuser/run"),
    "empty text": ((*EVALUATE, "--data_path=/dev/null"), "/dev/null"),
    "nowhere to write": ((*EVALUATE, "--per_token=no/such/file.csv"), "no/such/file.csv: No such file or directory"),
    "no room to write": ((*EVALUATE, "--per_token=/dev/full"), "/dev/full: No space left on device"),
    "no word of the prompt known": (
        (*GENERATE, "--prompt=zebra yak\nzebra"),
        "--prompt: none of its words is in the vocabulary",
    ),
    "a kernel that the cell has not": (("gradcheck.py", "--model=gru", "--rnn_mode=fused"), "--rnn_mode=fused"),
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


@dataclasses.dataclass
class Cluster:
    """Called in a process before train.py: what the environment says of the cluster."""

    description: str

    def __call__(self):
        os.environ["TF_CONFIG"] = self.description


CLUSTERS = {
    "none": "",
    "no JSON": "worker:2222",
    "no cluster": "[]",
    "no task": '{"cluster": {"worker": ["localhost:2222"]}}',
    "no such worker": '{"cluster": {"worker": ["localhost:2222"]}, "task": {"type": "worker", "index": 3}}',
    "no list": '{"cluster": {"worker": "localhost:2222"}, "task": {"type": "worker", "index": 0}}',
    "evaluator": '{"cluster": {"worker": ["a:1"], "evaluator": ["b:1"]}, "task": {"type": "evaluator", "index": 0}}',
    "no port": '{"cluster": {"worker": ["here", "there"]}, "task": {"type": "worker", "index": 0}}',
}


@pytest.mark.parametrize("case", CLUSTERS)
def test_clusters(finished_folder, case):
    before = contents(finished_folder)
    command = (*TRAIN, "--data_path=data", "--distribute=multi_worker")
    process = processes.run(*command, cwd=finished_folder, before=Cluster(CLUSTERS[case]))
    assert process.returncode == 1
    assert "--distribute=multi_worker: " in process.stderr
    assert "TF_CONFIG" in process.stderr
    assert process.stderr.count("\n") == 1
    assert contents(finished_folder) == before


def test_a_word_that_the_terminal_cannot_show_is_written_some_other_way(tmp_path):
    write_files(tmp_path / "data", {name: text.replace("cat", "café") for name, text in TINY.items()})
    train = ("train.py", "--model=test", "--data_path=data", "--save_path=run")
    assert processes.run(*train, cwd=tmp_path).returncode == 0
    process = processes.run(*GENERATE, "--top=8", cwd=tmp_path, before=ascii_terminal)
    assert process.returncode == 0, process.stderr
    assert "caf\\xe9\n" in process.stdout


def ascii_terminal():
    sys.stdout.reconfigure(encoding="ascii", errors="strict")


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


def test_debug_shows_the_traceback(finished_folder):
    process = processes.run(*EVALUATE, "--data_path=nowhere", "--debug", cwd=finished_folder)
    assert process.returncode == 1
    assert "Traceback (most recent call last)" in process.stderr
    assert "textfiles.DataError: nowhere" in process.stderr
