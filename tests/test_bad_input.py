"""What users get wrong, over all commands: one line that names the file or the flag, an exit code, and nothing written."""

import dataclasses
import gzip
import io
import json
import os
import re
import shutil
import sys
import tarfile

import numpy as np
import pytest

import processes
import textfiles

SENTENCE = "the cat sees the dogs and the dogs see <unk>\n"
TEXTS = {"train.txt": SENTENCE * 40, "valid.txt": SENTENCE * 12, "test.txt": SENTENCE * 13}


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a corpus in `data` and a finished run of it in `run`."""
    folder = tmp_path_factory.mktemp("finished")
    write(folder / "data", TEXTS)
    process = processes.run("train.py", "--model=test", "--data_path=data", "--save_path=run", cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A fresh copy of it, to spoil."""
    return shutil.copytree(finished, tmp_path / "folder")


def contents(folder):
    """Everything below a folder."""
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def assert_refused(process, code, fragments, folder, before):
    assert process.returncode == code, process.stderr
    assert process.stderr.count("\n") == 1, process.stderr
    for fragment in fragments:
        assert fragment in process.stderr
    assert process.stdout == ""
    assert contents(folder) == before


TRAIN = ("train.py", "--model=test", "--save_path=new")
EVALUATE = ("evaluate.py", "run")
GENERATE = ("generate.py", "run")

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
def test_wrong_flags(finished, command, fragment):
    before = contents(finished)
    assert_refused(processes.run(*command, cwd=finished), 2, [fragment], finished, before)


def members(name="train.txt", kind=tarfile.REGTYPE, size=None, folder="data/"):
    """An archive of the corpus in which one member is spoilt."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for text, content in TEXTS.items():
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
    "wrong split": ({"test.txt": TEXTS["train.txt"]}, "test.txt: is the same text as"),
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
def test_texts_to_train_on(folder, case):
    files, fragment = TEXT_CASES[case]
    for name, content in files.items():
        (folder / "data" / name).unlink()
        if content is not None:
            write(folder / "data", {name: content})
    before = contents(folder)
    assert_refused(processes.run(*TRAIN, "--data_path=data", cwd=folder), 1, [fragment], folder, before)


@pytest.mark.parametrize("case", ARCHIVE_CASES)
def test_archives_to_train_on(folder, case):
    content, fragment = ARCHIVE_CASES[case]
    write(folder, {"data.tgz": content})
    before = contents(folder)
    assert_refused(processes.run(*TRAIN, "--data_path=data.tgz", cwd=folder), 1, ["data.tgz", fragment], folder, before)


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
    "its text has moved": (
        lambda run: (run.parent / "data").rename(run.parent / "elsewhere"),
        "; or name the text with --data_path",
    ),
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
    "an array more": (checkpoint("weights/attention", np.zeros(3)), "holds weights/attention, which this model has not"),
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
def test_run_folders_to_evaluate(folder, case):
    spoil, fragment = RUN_CASES[case]
    spoil(folder / "run")
    before = contents(folder)
    assert_refused(processes.run(*EVALUATE, cwd=folder), 1, [fragment], folder, before)


@pytest.mark.parametrize("case", ["no run", "newer config", "checkpoints cut off", "vocabulary cut off", "another shape"])
def test_run_folders_to_generate_from(folder, case):
    spoil, fragment = RUN_CASES[case]
    spoil(folder / "run")
    before = contents(folder)
    assert_refused(processes.run(*GENERATE, cwd=folder), 1, [fragment], folder, before)


@pytest.mark.parametrize("more", [(), ("--top=3",)])
def test_a_model_that_has_gone_astray_to_generate_from(folder, more):
    vocab_size = len((folder / "run" / "vocabulary.txt").read_text().splitlines())
    checkpoint("weights/language_model/softmax_bias", np.full(vocab_size, np.nan, np.float32))(folder / "run")
    before = contents(folder)
    assert_refused(processes.run(*GENERATE, *more, cwd=folder), 1, ["run: ", "are not finite; "], folder, before)


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
def test_other_paths(finished, case):
    command, fragment = OTHER_CASES[case]
    before = contents(finished)
    process = processes.run(*command, cwd=finished)
    assert_refused(process, 1, [fragment], finished, before)


@pytest.mark.parametrize(
    "damage",
    ["newer config", "config cut off", "checkpoints cut off", "an array missing", "another shape", "an array more"],
)
def test_run_folders_to_train_on_in(folder, damage):
    spoil, fragment = RUN_CASES[damage]
    (folder / "run" / "result.json").unlink()
    spoil(folder / "run")
    before = {path: content for path, content in contents(folder).items() if path.name != "lock"}
    process = processes.run("train.py", "--model=test", "--data_path=data", "--save_path=run", cwd=folder)
    assert process.returncode == 1
    assert re.search("attention_heads was 8, now None" if damage == "newer config" else re.escape(fragment), process.stderr)
    assert process.stderr.count("\n") == 1
    assert {path: content for path, content in contents(folder).items() if path.name != "lock"} == before


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
def test_clusters(finished, case):
    before = contents(finished)
    command = (*TRAIN, "--data_path=data", "--distribute=multi_worker")
    process = processes.run(*command, cwd=finished, before=Cluster(CLUSTERS[case]))
    assert process.returncode == 1
    assert "--distribute=multi_worker: " in process.stderr
    assert "TF_CONFIG" in process.stderr
    assert process.stderr.count("\n") == 1
    assert contents(finished) == before


def test_a_word_that_the_terminal_cannot_show_is_written_some_other_way(tmp_path):
    write(tmp_path / "data", {name: text.replace("cat", "café") for name, text in TEXTS.items()})
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
def test_sentences_that_are_not_utf8(finished, locale):
    before = contents(finished)
    process = processes.run(*EVALUATE, "--stdin", cwd=finished, stdin=b"caf\xe9\n", before=locale)
    assert_refused(process, 1, ["standard input: line 1 is not UTF-8"], finished, before)


def test_standard_input_that_is_closed(finished):
    before = contents(finished)
    process = processes.run(*EVALUATE, "--stdin", cwd=finished, before=without_standard_input)
    assert_refused(process, 1, ["standard input: is closed"], finished, before)


def without_standard_input():
    sys.stdin = None  # as Python has it then


def test_debug_shows_the_traceback(finished):
    process = processes.run(*EVALUATE, "--data_path=nowhere", "--debug", cwd=finished)
    assert process.returncode == 1
    assert "Traceback (most recent call last)" in process.stderr
    assert "textfiles.DataError: nowhere" in process.stderr
