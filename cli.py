"""Shared by the commands: flags that several of them have, one-line errors, and exit codes.

    def define_flags(values):
        cli.define_model(values)
        flags.DEFINE_integer("seed", 1, "Seed of ...", flag_values=values)

    def main(values):
        print(values.seed)

    if __name__ == "__main__":
        cli.run(main, define_flags)

Each run of a command has `FlagValues` of its own instead of absl's global FLAGS. So a module that defines flags can be imported
anywhere, and IPython can `%run` a command twice with different flags.
"""

import codecs
import contextlib
import difflib
import errno
import importlib.util
import inspect
import io
import logging
import re
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

if not hasattr(signal, "SIGPIPE"):  # Windows, which lacks fcntl too. Before TensorFlow is imported, which takes seconds
    sys.exit(f"{sys.argv[0]}: this program needs Linux, macOS or WSL2 (the Linux inside Windows: run `wsl --install`)")

from absl import flags

from ptb.runtime.signals import ended_by_ctrl_c, print_line, silence

with ended_by_ctrl_c():  # the imports take seconds
    from ptb.config import FORMER_NAMES, Config, ConfigError, flatten
    from ptb.data.files import DataError, is_encoding, iterate_lines
    from ptb.runs.folder import RunError
    from ptb.runs.load import CHECKPOINTS, TrainedModel
    from ptb.runtime.devices import OUT_OF_MEMORY, PRECISIONS, RNN_MODES, DeviceError
    from ptb.training.state import Diverged

WRONG_FLAGS, FAILED = 2, 1  # exit codes; 130 after Ctrl-C, 141 if the reader of standard output has gone
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space left, the user's quota or the largest file size is reached
# Flags that are empty if they are given an unset shell variable.
PATHS = ("data_path", "save_path", "init_from", "per_token", "prompt_file", "output", "text", "runs")
FOREIGN_FLAGS = {  # flags of other programs that are no field: what to write here. docs/family.md has them too
    "num_gpus": "--distribute=mirrored",
    "use_fp16": "--precision=bfloat16",
    "data": "--data_path=FOLDER",
    "data_dir": "--data_path=FILE",
    "save": "--save_path=FOLDER",
    "checkpoint_dir": "--save_path=FOLDER",
    "log_interval": "--report_every=200",
    "print_every": "--report_every=1",
    "clip": "--set clip_norm=0.25",
    "use_optimizer": "--set optimizer=Adam",
    "dry_run": "--model=test",
    "words": "--length=1000",
    "primetext": "--prompt=TEXT",
}
# What the TF 1 tutorial and earlier versions call a kernel: its name here.
FORMER_KERNELS = {"basic": "stepwise", "block": "stepwise", "cudnn": "cudnn", "fused": "stepwise"}

Main = Callable[..., int | None]  # called with the flags, and with the names of runs if the command takes any

logger = logging.getLogger(__name__)

flags.disclaim_key_flags()  # --help lists a flag that is defined here with those of the command


def run(main: Main, define_flags: Callable[[flags.FlagValues], None], takes_runs: bool = False) -> NoReturn:
    """Run a command: parse its flags, call `main(values)`, and exit with the code that it returns.

    With `takes_runs`, the other arguments name run folders, and the call is `main(values, runs)`; otherwise they are an error.
    Errors that the user can cause are one line on standard error. The exit code is 2 for wrong flags and 1 for other errors.
    """
    values = flags.FlagValues()
    flags.DEFINE_bool("debug", False, "Show the whole traceback of an error.", flag_values=values)
    define_flags(values)
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's stream has no such method
        sys.stdout.reconfigure(errors="backslashreplace")  # escape characters that the terminal cannot show
    with _log_to_stderr(), _restored_signals():
        sys.exit(_call(main, values, takes_runs))


def _call(main: Main, values: flags.FlagValues, takes_runs: bool) -> int | None:
    """Return the exit code of a command; errors that the user can cause are printed."""
    try:
        if {"-h", "--help", "--helpshort"} & set(sys.argv[1:]):
            print(inspect.cleandoc(main.__globals__["__doc__"] or ""), values.get_help(include_special_flags=False), sep="\n")
            code = None
        else:
            arguments = _parse(values, takes_runs)
            code = main(values, arguments) if takes_runs else main(values)
        if sys.stdout:
            sys.stdout.flush()  # here, because a full disk or a closed pipe may show only now
        return code
    except (flags.Error, ConfigError) as error:
        return _fail(error, WRONG_FLAGS)
    except KeyboardInterrupt:
        return _fail("interrupted", 128 + signal.SIGINT)
    except (DataError, DeviceError, Diverged, RunError, OSError, *OUT_OF_MEMORY) as error:
        if isinstance(error, BrokenPipeError) and not error.filename:  # `| head` has read enough: not an error
            silence(sys.stdout)
            return 128 + signal.SIGPIPE
        if values["debug"].value:  # also if the flags were not parsed
            raise
        return _fail(_describe(error), FAILED)


def _parse(values: flags.FlagValues, takes_runs: bool) -> list[str]:
    """Parse the command line into `values`. Return the arguments that are not flags."""
    try:
        _, *arguments = values(sys.argv)
    except flags.UnrecognizedFlagError as error:
        raise flags.Error(_explain_unknown_flag(error.flagname, error.flagvalue.partition("=")[2], values)) from None
    except ValueError as error:  # absl's: --nodebug=1
        raise flags.Error(str(error)) from None
    if arguments and not takes_runs:
        cure = f"write --set {arguments[0]}" if "set" in values and "=" in arguments[0] else "flags begin with --, see --help"
        raise flags.Error(f"unexpected argument {arguments[0]!r}: {cure}")
    if "" in arguments:
        raise flags.Error("the name of a run is empty; name its folder, for example: runs/small-1")
    for name in PATHS:
        if name in values and values[name].value == "":
            raise flags.Error(f"--{name}: is empty; name a file or a folder, or leave the flag out")
    return arguments


def _explain_unknown_flag(name: str, value: str, values: flags.FlagValues) -> str:
    """Return a line that says what to write instead of an unknown flag."""
    foreign, setting = FOREIGN_FLAGS.get(name.replace("-", "_")), _setting(name, value)
    cure = setting if setting and value.isalpha() else foreign or setting  # --clip=element is ours, --clip=0.25 PyTorch's
    if cure and re.match(r"--(\w+)", cure)[1] in values:
        return f"--{name}: is no flag here; write {cure}"
    near = difflib.get_close_matches(name, values, n=1)
    return f"--{name}: unknown flag; " + (f"did you mean --{near[0]}?" if near else "--help lists the flags")


def _setting(name: str, value: str) -> str | None:
    """Return the --set for a flag that is named like a field of the configuration, here or in other programs."""
    if name in FORMER_NAMES:
        return f"--set {FORMER_NAMES[name]}"
    fields = ["dropout", *(path.rpartition(".")[2] for path in flatten(Config()))]
    return f"--set {name}={value or 'VALUE'}" if name in fields else None


def _describe(error: Exception) -> str:
    """Return the message for an error that the user can cause."""
    if isinstance(error, OUT_OF_MEMORY):
        return "the memory is full; use a machine or a device with more, or a smaller --model or text"
    if isinstance(error, OSError) and (error.filename or error.errno in DISK_FULL):
        if not error.filename:
            silence(sys.stdout)  # the only file that is written without a name; Python would write its buffer at exit
        cure = "make room there" if error.errno in DISK_FULL else "check the path and its permissions"
        return f"{error.filename or 'standard output'}: {error.strerror}; {cure}"
    return str(error)


def _fail(error: object, code: int) -> int:
    print_line(f"{sys.argv[0]}: {' '.join(map(str.strip, str(error).splitlines()))}", sys.stderr)
    return code


@contextlib.contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Print log messages in the format of the errors: `train.py: message`."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(sys.argv[0].replace("%", "%%") + ": %(message)s"))
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)  # another %run adds its own


@contextlib.contextmanager
def _restored_signals() -> Iterator[None]:
    """Restore what a command changes: after `%run generate.py` Ctrl-C should not end IPython."""
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGPIPE)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class StandardInput:
    """The lines of standard input, decoded as a text file is. Raises DataError if it is closed or not text."""

    def __init__(self, encoding: str | None = None):
        if sys.stdin is None:
            raise DataError("standard input: is closed; give it the lines to read")
        self._encoding = encoding or "utf-8"
        newline = "\n".encode(self._encoding, "ignore").removeprefix(codecs.BOM_UTF8)
        self._has_countable_lines = newline == b"\n"  # not in UTF-16: letters have this byte too
        self._source, self._taken = _CountedLines(sys.stdin.buffer), 0

    def __iter__(self) -> Iterator[str]:
        for line in iterate_lines(io.BufferedReader(self._source), "standard input", self._encoding):
            self._taken += 1
            yield line

    def ready(self) -> bool:
        """Return whether the next line is here already, so that nobody has to be waited for; False if that is not known."""
        return self._has_countable_lines and self._taken < self._source.lines


class _CountedLines(io.RawIOBase):
    """Passes on the bytes of a stream as they come, and counts the lines."""

    def __init__(self, stream):
        self.stream, self.lines = stream, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        content = self.stream.read1(len(buffer))
        buffer[: len(content)] = content
        self.lines += content.count(b"\n")
        return len(content)


@contextlib.contextmanager
def naming_standard_input() -> Iterator[None]:
    """Put the name of standard input before a DataError that has only the number of a line or sentence."""
    try:
        yield
    except DataError as error:
        message = str(error)
        raise DataError(message if message.startswith("standard input") else f"standard input, {message}") from None


def printable(text: str) -> str:
    """Return a model's text for a terminal: control characters, which would command it, become escapes such as `\\x1b`."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else f"\\x{ord(c):02x}" for c in text)


def reject_flags(values: flags.FlagValues, reason: str, *names: str) -> None:
    """Raise flags.Error if one of these flags was given, because it would have no effect."""
    for name in names:
        if values[name].present and values[name].value is not False:
            raise flags.Error(f"--{name}: {reason}")


def require_matplotlib() -> None:
    """Raise RunError if matplotlib is not installed: the commands that draw need it, and no other does."""
    if importlib.util.find_spec("matplotlib") is None:
        raise RunError("matplotlib: is not installed, and draws the charts; type: pip install matplotlib")


def parse_settings(settings: Iterable[str]) -> dict[str, str]:
    """Return the values of --set by name: `["learning_rate=0.5"]` gives `{"learning_rate": "0.5"}`. Raises flags.Error."""
    pairs = [setting.partition("=") for setting in settings]
    for name, equals, value in pairs:
        if not (name.strip() and equals):
            raise flags.Error(f"--set={name}{equals}{value}: write name=value, for example: --set learning_rate=0.5")
    return {name.strip(): value.strip() for name, _, value in pairs}


def define_model(values: flags.FlagValues, default: str | None = "small") -> None:
    """Define --model, a name that `configs.find_config` reads."""
    flags.DEFINE_string(
        "model", default, "Configuration: a name from configs.py, or path/to/file.py:NAME for one of yours.", flag_values=values
    )


def define_set(values: flags.FlagValues) -> None:
    """Define --set, a list of strings for `parse_settings`."""
    flags.DEFINE_multi_string(
        "set",
        [],
        "Change a field of the configuration, as in --set learning_rate=0.5 --set model.layers=512,512.",
        flag_values=values,
    )


def define_data_path(values: flags.FlagValues, help: str | None = None) -> None:
    """Define --data_path. The default `help` is that of training."""
    flags.DEFINE_string(
        "data_path",
        None,
        help
        or "Text: a folder, .tgz or .zip with ptb.train.txt, ptb.valid.txt and ptb.test.txt, or other names with these words; "
        "one text file, a folder of .txt or several files with commas between, which are split into these; "
        'or "demo", the built-in corpus: docs/data.md. Default: PTB, downloaded once and kept.',
        flag_values=values,
    )


def define_encoding(values: flags.FlagValues, default: str | None, reads_stdin: bool = False) -> None:
    """Define --encoding, the name of a codec of Python."""
    help = "Encoding of the text, for example utf-16, latin-1 or cp1252."
    help += "" if default else f" Default: that of the training{', and UTF-8 for standard input' * reads_stdin}."
    flags.DEFINE_string("encoding", default, help, flag_values=values)
    message = "is no encoding that Python knows; write for example utf-8, utf-16, latin-1 or cp1252"
    flags.register_validator("encoding", lambda name: name is None or is_encoding(name), message, flag_values=values)


def define_lowercase(values: flags.FlagValues, help: str) -> None:
    """Define --lowercase, which makes all letters of a text small."""
    flags.DEFINE_bool("lowercase", False, help, flag_values=values)


def define_rnn_mode(values: flags.FlagValues) -> None:
    """Define --rnn_mode, an argument of `ptb.runtime.devices.choose_kernel`."""
    help = f"<{'|'.join(RNN_MODES)}>: Kernel of the recurrent layers: docs/configuration.md."
    flags.DEFINE(_KernelParser(RNN_MODES), "rnn_mode", "auto", help, flag_values=values, serializer=flags.ArgumentSerializer())


def define_precision(values: flags.FlagValues, default: str) -> None:
    """Define --precision, an argument of `ptb.runtime.devices.choose_precision`."""
    help = "Precision of matrix products. auto: tf32 or bfloat16 if the device has units for it, otherwise float32."
    flags.DEFINE_enum("precision", default, PRECISIONS, help, flag_values=values)


def define_checkpoint(values: flags.FlagValues) -> None:
    """Define --checkpoint, an argument of `ptb.load`."""
    help = "Which weights: those with the best validation so far, or the last ones of the training."
    flags.DEFINE_enum("checkpoint", "best", CHECKPOINTS, help, flag_values=values)


def name_weights(lm: TrainedModel) -> None:
    """Log which weights of a run are in use, unless the last are the best."""
    weights = lm.weights
    if weights.best_are_last:
        return
    best = f"the {'averaged ' * weights.best_are_averages}weights of step {weights.best_step}, the best on valid"
    last = f"the last weights, of step {weights.last_step}"
    used, which, other = (best, "last", last) if weights.are_best else (last, "best", best)
    logger.warning("%s: %s; --checkpoint=%s takes %s", lm.run.path, used, which, other)


class _KernelParser(flags.EnumParser):
    """Parse --rnn_mode; for another name of a kernel, say which one to write."""

    def parse(self, argument: str) -> str:
        if argument not in RNN_MODES and argument.lower() in FORMER_KERNELS:
            raise ValueError(f"has another name here; write --rnn_mode={FORMER_KERNELS[argument.lower()]}")
        return super().parse(argument)
