"""What the commands share: every error that a user can cause is one line on standard error, and an exit code."""

import signal
import sys

from absl import app, flags

from ptb.devices import DeviceError
from ptb.run import RunError
from reader import DataError

flags.DEFINE_bool("debug", False, "Show the whole traceback of an error.")


def run(main):
    """Runs `main(argv)` with the flags parsed. Exits with 2 after wrong flags, with 1 after any other error of the user's."""

    def guarded(argv):
        try:
            return main(argv)
        except flags.Error as error:
            return _fail(error, 2)
        except (DataError, RunError, DeviceError, OSError) as error:
            if flags.FLAGS.debug:
                raise
            if isinstance(error, OSError) and error.filename:
                error = f"{error.filename}: {error.strerror}; check the path and its permissions"
            return _fail(error, 1)
        except KeyboardInterrupt:
            return _fail("interrupted", 128 + signal.SIGINT)

    app.run(guarded, flags_parser=_parse)


def _parse(argv):
    try:
        return app.parse_flags_with_usage(argv) if {"--help", "--helpshort", "--helpfull"} & {*argv} else flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(_fail(error, 2))


def _fail(error, code):
    print(f"{sys.argv[0]}: {' '.join(str(error).split())}", file=sys.stderr)
    return code
