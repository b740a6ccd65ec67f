"""What the commands share: flags, hints for wrong ones, exit codes, and errors of one line."""

import errno
import io
import logging
import re
import runpy
import signal
import subprocess
import sys

import pytest
import tensorflow as tf
from absl import flags

import cli
import evaluate
import generate
import train
from configs import SMALL, find_config
from helpers import processes
from pages.configuration import COMMANDS
from ptb.config import FORMER_NAMES, ConfigError, override
from ptb.data.files import DataError
from ptb.runs.folder import RunError
from ptb.runtime.devices import DeviceError
from ptb.training.state import Diverged


def define_flags(values):
    flags.DEFINE_integer("seed", 1, "Seed.", lower_bound=0, flag_values=values)
    flags.DEFINE_string("save_path", None, "Folder.", flag_values=values)
    flags.DEFINE_bool("stdin", False, "Read.", flag_values=values)


@pytest.fixture
def call(monkeypatch, capsys):
    """Return a function that runs a command in this process and gives its exit code, standard output and error."""

    def run_command(*arguments, main=lambda values, *_: print(values.seed), define_flags=define_flags, takes_runs=False):
        monkeypatch.setattr(sys, "argv", ["command.py", *arguments])
        with pytest.raises(SystemExit) as exit:
            cli.run(main, define_flags, takes_runs)
        return exit.value.code or 0, *capsys.readouterr()

    return run_command


def raising(error):
    def main(values):
        raise error

    return main


def test_main_gets_the_flags_and_its_result_is_the_exit_code(call):
    assert call("--seed=3") == (0, "3\n", "")
    assert call(main=lambda values: 5) == (5, "", "")


def test_main_gets_the_runs_of_a_command_that_takes_any(call):
    def main(values, runs):
        print(values.seed, runs)

    assert call("one", "--seed=3", "two", main=main, takes_runs=True) == (0, "3 ['one', 'two']\n", "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seed=-1"], "--seed=-1"),
        (["--seed=one"], "--seed=one"),
        (["--seed"], "--seed"),
        (["--nostdin=1"], "--nostdin"),
        (["--save_path="], "--save_path"),
        (["small"], "'small'"),
        (["--sede=1"], "--seed"),
        (["--xyzzy"], "--xyzzy"),
        (["--flagfile=nowhere"], "nowhere"),
        (["--batch_size=5"], "--batch_size"),
    ],
)
def test_wrong_flags(call, arguments, named):
    code, out, err = call(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("command.py: ")
    assert named in err
    assert "--set" not in err  # which this command does not have


def test_an_empty_name_of_a_run(call):
    code, _, err = call("one", "", takes_runs=True)
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("argument", "cure"),
    [
        ("--learning_rate=0.3", "--set learning_rate=0.3"),
        ("--batch_size=5", "--set batch_size=5"),
        ("--num_epochs=7", "--set num_epochs=7"),
        ("--num_steps=7", "--set num_steps=7"),
        ("--init_scale=0.2", "--set init_scale=0.2"),
        ("--dropout=0.3", "--set dropout=0.3"),
        ("--optimizer=RMSprop", "--set optimizer=RMSprop"),
        ("--lr=0.3", "--set learning_rate="),
        ("--epochs=3", "--set num_epochs="),
        ("--hidden_size=512", "--set model.layers="),
        ("--num_layers=2", "--set model.layers="),
        ("--keep_prob=0.5", "--set dropout=0.5"),
        ("--max_grad_norm=5", "--set clip_norm="),
        ("--lr_decay=0.5", "--set schedule.factor="),
        ("--clip=0.25", "--set clip_norm=0.25"),
        ("--clip=element", "--set clip=element"),
    ],
)
def test_the_name_of_a_field_as_a_flag_gets_a_hint_that_works(call, argument, cure):
    code, _, err = call(argument, main=train.main, define_flags=train.define_flags)
    assert (code, err.count("\n")) == (2, 1)
    assert cure in err
    assert override(SMALL, cli.parse_settings(re.findall(r"--set (\S+)", err)))


@pytest.mark.parametrize(
    ("argument", "cure"),
    [
        ("--num_gpus=2", "--distribute=mirrored"),
        ("--use_fp16", "--precision=bfloat16"),
        ("--rnn_mode=BASIC", "--rnn_mode=stepwise"),
        ("--rnn_mode=BLOCK", "--rnn_mode=stepwise"),
        ("--rnn_mode=fused", "--rnn_mode=stepwise"),
        ("--rnn_mode=CUDNN", "--rnn_mode=cudnn"),
        ("--rnn_mode=lstm", "stepwise"),
        ("--modle=small", "--model"),
        ("batch_size=5", "--set batch_size=5"),
        ("--set=batch_size", "--set"),
    ],
)
def test_other_flags_that_get_a_hint(call, argument, cure):
    code, out, err = call(argument, main=train.main, define_flags=train.define_flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert cure in err


OTHER_PROGRAMS = (processes.ROOT / "docs" / "family.md").read_text()
# A row that begins with a flag or a field of another program, and with the flag of this program that replaces it.
ROW = re.compile(r"^\| `(-*)([\w-]+)(?:[= ]([\w./-]+))?`[^|]*\| `(--\w+(?: [\w.]+)?)[^`]*`", re.MULTILINE)


def test_messages_say_what_the_tables_of_other_programs_say(call):
    rows = ROW.findall(OTHER_PROGRAMS)
    assert len(rows) > 50
    trains = flags.FlagValues()
    train.define_flags(trains)
    for _, name, value, cure in rows:
        argument = f"--{name}={value}" if value else f"--{name}"
        if cure[2:].split()[0] in trains:
            code, _, err = call(argument, main=find_model, define_flags=train.define_flags)
        else:
            code, _, err = call(argument, main=lambda values: 0, define_flags=generate.define_flags)
        assert f"write {cure}" in err if code else f"--{name}" == cure, argument


def find_model(values):
    find_config(values.model)


def test_the_tables_of_other_programs_have_every_name_with_a_hint():
    rows = {(name.replace("-", "_"), value) for _, name, value, _ in ROW.findall(OTHER_PROGRAMS)}
    assert {*FORMER_NAMES, *cli.FOREIGN_FLAGS} <= {name for name, _ in rows}
    assert {("rnn_mode", name.upper()) for name in cli.FORMER_KERNELS if name != "fused"} <= rows


def test_settings_are_read_by_name():
    assert cli.parse_settings(["learning_rate=0.5", " layers = 5,5", "learning_rate=1", "name=a=b"]) == {
        "learning_rate": "1",
        "layers": "5,5",
        "name": "a=b",
    }
    for wrong in ("learning_rate", "=0.5", ""):
        with pytest.raises(flags.Error, match="--set"):
            cli.parse_settings([wrong])


@pytest.mark.parametrize(
    ("error", "code", "named"),
    [
        (flags.Error("--seed: bad"), 2, "--seed"),
        (ConfigError("dropout: bad"), 2, "dropout"),
        (DataError("text: bad"), 1, "text"),
        (RunError("run: bad\n  twice"), 1, "run: bad twice"),
        (DeviceError("--rnn_mode: bad"), 1, "--rnn_mode"),
        (Diverged("step 3"), 1, "step 3"),
        (OSError(errno.EACCES, "denied", "file"), 1, "file: denied"),
        (OSError(errno.ENOSPC, "full", "file"), 1, "file: full"),
        (OSError("unnamed"), 1, "unnamed"),
        (MemoryError(), 1, "memory"),
        (tf.errors.ResourceExhaustedError(None, None, "out of memory"), 1, "memory"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_that_a_user_can_cause(call, error, code, named):
    found, out, err = call(main=raising(error))
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert named in err


def test_debug_and_other_errors_show_the_traceback(monkeypatch):
    for argument, error in (("--debug", DataError), ("--debug", OSError), ("--debug", MemoryError), ("--seed=1", KeyError)):
        monkeypatch.setattr(sys, "argv", ["command.py", argument])
        with pytest.raises(error):
            cli.run(raising(error()), define_flags)


@pytest.mark.parametrize("flag", ["-h", "--help", "--helpshort"])
def test_help_shows_the_example_and_every_flag(call, flag):
    defined = flags.FlagValues()
    train.define_flags(defined)
    code, out, err = call(flag, main=train.main, define_flags=train.define_flags)
    assert (code, err) == (0, "")
    assert "python train.py --model=medium" in out
    assert {*defined, "debug"} == set(re.findall(r"^  --(?:\[no\])?(\w+):", out, re.MULTILINE))


def test_help_on_a_terminal_that_cannot_show_all_of_it(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--help"])
    with pytest.raises(SystemExit):
        cli.run(evaluate.main, evaluate.define_flags, takes_runs=True)
    assert b"\\u2026" in stdout.buffer.getvalue()


def test_flags_that_would_have_no_effect_are_rejected():
    values = flags.FlagValues()
    define_flags(values)
    values(["command.py", "--nostdin", "--seed=2"])
    cli.reject_flags(values, "is not for this", "stdin", "save_path")
    with pytest.raises(flags.Error, match="--seed"):
        cli.reject_flags(values, "is not for this", "stdin", "seed")


PROGRAM = """
import logging
from absl import flags
import cli

def define_flags(values):
    cli.define_set(values)
    cli.define_model(values)

def main(values):
    print(values.model, cli.parse_settings(values.set))
    logging.getLogger("ptb").warning("careful")

if __name__ == "__main__":
    cli.run(main, define_flags)
"""


def test_a_command_runs_twice_in_one_process_as_in_ipython(monkeypatch, capsys, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    handlers = list(logging.root.handlers)
    for arguments, printed in ((["--set=a=1", "--set", "b=2"], "small {'a': '1', 'b': '2'}"), (["--model=x"], "x {}")):
        monkeypatch.setattr(sys, "argv", [str(program), *arguments])
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(program), run_name="__main__")
        assert not exit.value.code
        out, err = capsys.readouterr()
        assert out == printed + "\n"
        assert err == f"{program}: careful\n"
    assert list(logging.root.handlers) == handlers


def test_a_notebooks_stream_cannot_be_reconfigured(call, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    assert call("--seed=3")[0] == 0
    assert stream.getvalue() == "3\n"


@pytest.mark.parametrize(("encoding", "ready"), [("utf-8", True), ("utf-8-sig", True), ("latin-1", True), ("utf-16", False)])
def test_only_a_line_that_is_here_is_ready(encoding, ready, monkeypatch):
    """In UTF-16 every Gurmukhi letter has the byte of a newline; there no line is known to be here."""
    for text, expected in ((b"\xe0\xa8\x85".decode() * 9 + "\n", False), ("a\nb\n", ready)):
        content = text.encode(encoding, "ignore")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        lines = cli.StandardInput(encoding)
        next(iter(lines))
        assert lines.ready() == expected


SCRIPTS = [f"{command}.py" for command in COMMANDS]
ON_WINDOWS = """
import runpy, signal, sys
for name in ("SIGPIPE", "SIGHUP", "SIGKILL"):
    delattr(signal, name)
sys.modules["fcntl"] = None
for command in sys.argv[1:]:
    sys.argv = [command]
    try:
        runpy.run_path(command, run_name="__main__")
    except SystemExit as exit:
        print(exit.code)
print({"tensorflow", "keras"} & {*sys.modules})
"""


def test_windows_is_told_at_once_what_to_use():
    """In a fresh process without what Windows lacks, every command exits before TensorFlow is imported."""
    command = [sys.executable, "-c", ON_WINDOWS, *SCRIPTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=processes.ROOT, timeout=120)
    *lines, imported = done.stdout.splitlines()  # sys.exit prints such a text on standard error, and the code is 1
    for line, name in zip(lines, SCRIPTS, strict=True):
        assert line.startswith(f"{name}: ")
        assert "WSL2" in line
    assert (imported, done.stderr) == ("set()", "")


WRITER = """
import os, sys
import cli

os.dup2({descriptor}, 1)
sys.stdout = open(1, "w", closefd=False)
cli.run(lambda values: print("text"), lambda values: None)
"""
FULL_DISK, CLOSED_PIPE = "os.open('/dev/full', os.O_WRONLY)", "[os.close(read) or write for read, write in [os.pipe()]][0]"


@pytest.mark.parametrize("arguments", [(), ("--help",)])
@pytest.mark.parametrize(("descriptor", "code", "lines"), [(FULL_DISK, 1, 1), (CLOSED_PIPE, 128 + signal.SIGPIPE, 0)])
def test_standard_output_that_cannot_be_written(descriptor, code, lines, arguments, tmp_path):
    """A reader that closes a pipe has read enough, as in `| head`."""
    (tmp_path / "writer.py").write_text(WRITER.format(descriptor=descriptor))
    process = processes.run(tmp_path / "writer.py", *arguments)
    assert (process.returncode, process.stderr.count("\n")) == (code, lines)
