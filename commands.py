"""What the commands share: every error that a user can cause is one line on standard error, and an exit code."""

import errno
import logging
import signal
import sys

import absl.logging
from absl import app, flags

from ptb.devices import OUT_OF_MEMORY, DeviceError
from ptb.run import RunError
from ptb.signals import silence
from reader import DataError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, one's share of it, or a file that may grow no further
PATHS = ("data_path", "save_path", "per_token", "runs")  # flags, which a variable of the shell that is not set leaves empty

flags.DEFINE_bool("debug", False, "Show the whole traceback of an error.")


def run(main, define_flags, takes_runs=False):
    """Runs `main(argv)` with the flags parsed. Exits with 2 after wrong flags, with 1 after any other error of the user's.

    `define_flags` is called first, not where a command is imported: their flags have the same names. Arguments that are no
    flags are the names of runs, or an error.
    """

    def guarded(argv):
        try:
            if len(argv) > 1 and not takes_runs:
                raise flags.Error(f"unexpected argument {argv[1]!r}: flags begin with --, see --helpshort")
            if "" in argv[1:]:
                raise flags.Error("the name of a run is empty; name its folder, for example: runs/small-1")
            for name in PATHS:
                if name in flags.FLAGS and flags.FLAGS[name].value == "":
                    raise flags.Error(f"--{name}: is empty; name a file or a folder, or leave the flag out")
            code = main(argv)
            if sys.stdout:
                sys.stdout.flush()
            return code
        except flags.Error as error:
            return _fail(error, 2)
        except (DataError, RunError, DeviceError, OSError) as error:
            if flags.FLAGS.debug:
                raise
            if isinstance(error, OSError) and (error.filename or error.errno in FULL):
                cure = "make room there" if error.errno in FULL else "check the path and its permissions"
                if not error.filename:  # of files without a name there is only one
                    silence(sys.stdout)
                error = f"{error.filename or 'standard output'}: {error.strerror}; {cure}"
            return _fail(error, 1)
        except OUT_OF_MEMORY:
            if flags.FLAGS.debug:
                raise
            return _fail("the memory is full; use a machine or a device with more, or a smaller --model or text", 1)
        except KeyboardInterrupt:
            return _fail("interrupted", 128 + signal.SIGINT)

    define_flags()
    name = sys.argv[0].replace("%", "%%")
    absl.logging.get_absl_handler().setFormatter(logging.Formatter(f"{name}: %(message)s"))  # as _fail's, and no more
    if sys.stdout:  # a terminal that cannot show a word is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    app.run(guarded, flags_parser=_parse)


def refuse(why, *names):
    """Raises flags.Error for the first of these flags that was given; silence would hide that it does nothing."""
    for name in names:
        if flags.FLAGS[name].present and flags.FLAGS[name].value is not False:
            raise flags.Error(f"--{name}: {why}")


def _parse(argv):
    try:
        return flags.FLAGS([argv[0], "--helpshort"] if argv[1:] == ["-h"] else argv)
    except (flags.Error, ValueError) as error:  # ValueError: of absl's own flags
        sys.exit(_fail(error, 2))


def _fail(error, code):
    print(f"{sys.argv[0]}: {' '.join(map(str.strip, str(error).splitlines()))}", file=sys.stderr)
    return code
