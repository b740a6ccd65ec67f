"""Compare the gradient of a configuration's loss with central differences, in float64.

    python gradcheck.py --model=small
    python gradcheck.py --model=gru --rnn_mode=stepwise

Cell, kernel, dropout and loss are those of the configuration; layers, window and vocabulary are a few units each. Prints the
largest relative error for each variable. Exit code 1 if one is above 1e-5.
"""

from absl import flags

import cli
from configs import find_config
from ptb.config import override
from ptb.training.gradient_check import check_config

LIMIT = 1e-5


def define_flags(values: flags.FlagValues) -> None:
    cli.define_model(values)
    cli.define_set(values)
    cli.define_rnn_mode(values)


def main(values: flags.FlagValues) -> int:
    errors = check_config(override(find_config(values.model), cli.parse_settings(values.set)), values.rnn_mode)
    for name, error in errors.items():
        print(f"{error:.1e}  {name}")
    wrong = [name for name, error in errors.items() if not error <= LIMIT]
    if wrong:
        print(f"FAILED: above {LIMIT:g}: {', '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    cli.run(main, define_flags)
