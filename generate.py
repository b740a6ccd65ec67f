"""Write text with a trained run, or suggest the next word.

python generate.py runs/small-1 --prompt="the company said" --length=50 --temperature=0.8 --seed=1 --num_samples=3
python generate.py runs/small-1 --prompt="the company" --sample=argmax
python generate.py runs/small-1 --prompt="the company" --top=10          # the most likely next words
"""

import logging
import math
import signal
from collections.abc import Iterable

from absl import flags

import cli
from ptb.data.files import DataError
from ptb.data.vocabulary import UNK, tokenize
from ptb.runs.load import TrainedModel, load

logger = logging.getLogger(__name__)


def define_flags(values: flags.FlagValues) -> None:
    options = {"flag_values": values}
    help = "Words to continue; a new line ends a sentence. Default: start a new sentence."
    flags.DEFINE_string("prompt", "", help, **options)
    flags.DEFINE_integer("length", 50, "Words (or characters) to write, sentence ends included.", lower_bound=1, **options)
    flags.DEFINE_integer("num_samples", 1, "Texts to write, one after the other.", lower_bound=1, **options)
    help = "Decides the draws: the same seed writes the same text."
    flags.DEFINE_integer("seed", 1, help, lower_bound=0, upper_bound=2**32 - 1, **options)
    flags.DEFINE_enum("sample", "multinomial", ["multinomial", "argmax"], "Draw each word, or take the likeliest.", **options)
    help = "Divides the logits: below 1 favours likely words, above 1 unlikely ones."
    flags.DEFINE_float("temperature", 1, help, **options)
    flags.DEFINE_integer("top_k", None, "Draw from this many of the most likely words only.", lower_bound=1, **options)
    help = "Draw from the smallest set of most likely words with at least this probability (nucleus)."
    flags.DEFINE_float("top_p", 1, help, **options)
    flags.DEFINE_bool("avoid_unk", False, f"Never write {UNK}.", **options)
    help = "Write no text, but this many of the most likely next words, with probabilities."
    flags.DEFINE_integer("top", None, help, lower_bound=1, **options)
    cli.define_checkpoint(values)
    cli.define_rnn_mode(values)
    cli.define_precision(values, "float32")
    message = "must be above 0; for the limit 0 use --sample=argmax"
    flags.register_validator("temperature", lambda t: 0 < t < math.inf, message, **options)
    flags.register_validator("top_p", lambda p: 0 < p <= 1, "is a probability: above 0 and at most 1", **options)


def main(values: flags.FlagValues, paths: list[str]) -> None:
    check_flags(values, paths)
    for number in (signal.SIGINT, signal.SIGPIPE):  # the reader has seen enough: not an error
        signal.signal(number, signal.SIG_DFL)
    lm = load(paths[0], checkpoint=values.checkpoint, rnn_mode=values.rnn_mode, precision=values.precision)
    check_prompt(lm, values.prompt)
    narrowing = {
        "temperature": values.temperature,
        "top_k": 1 if values.sample == "argmax" else values.top_k,
        "top_p": values.top_p,
        "excluded": [lm.vocabulary.ids[UNK]] if values.avoid_unk and UNK in lm.vocabulary.ids else [],
    }
    if values.top:
        for word, p in lm.next_words(values.prompt, values.top, **narrowing):
            print(f"{p:10.6f}  {word}")
        return
    for sample in range(values.num_samples):
        if sample:
            print()
        write(lm.iterate_text(values.prompt, values.length, values.seed, sample, **narrowing))


def check_flags(values: flags.FlagValues, paths: list[str]) -> None:
    """Raise flags.Error unless one run is named and flags go together."""
    if not paths:
        raise flags.Error('which run? Name its folder, for example: generate.py runs/small-1 --prompt="the company"')
    if values.sample == "argmax":
        reason = "has no effect with --sample=argmax, which takes the likeliest word"
        cli.reject_flags(values, reason, "temperature", "top_k", "top_p", "seed", "num_samples")
    if values.top:
        cli.reject_flags(values, "is for writing text, which --top does not", "sample", "length", "num_samples", "seed")
    if len(paths) > 1:
        raise flags.Error(f'unexpected argument {paths[1]!r}: name one run, and quote a prompt: --prompt="the company"')


def check_prompt(lm: TrainedModel, prompt: str) -> None:
    """Warn of unknown words that become `<unk>`. Raise DataError if the vocabulary cannot stand for the prompt."""
    try:
        lm.encode_prompt(prompt)
    except DataError as error:
        raise DataError(f"--{error}") from None
    unknown = lm.unknown_tokens([*tokenize(prompt.split("\n"), lm.config.data.level, framed=False)])
    if unknown:
        logger.warning("--prompt: not in the vocabulary, read as %s: %s", UNK, ", ".join(map(repr, unknown)))


def write(pieces: Iterable[str]) -> None:
    """Print a text piece by piece, as it comes; it ends in one new line."""
    piece = "\n"
    for piece in pieces:
        print(piece, end="", flush=True)
    if piece != "\n":
        print()


if __name__ == "__main__":
    cli.run(main, define_flags, takes_runs=True)
