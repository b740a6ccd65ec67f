"""Write text with a trained run, or suggest the next word.

python generate.py runs/small-1 --prompt="the company said" --length=50 --temperature=0.8 --seed=1 --num_samples=3
python generate.py runs/small-1 --prompt="the company" --sentences=1 --beam=5      # the likeliest sentence
python generate.py runs/small-1 --prompt="the company" --top=10                    # the most likely next words
python generate.py runs/small-1 --interactive --top=10                             # for every line that you type
"""

import logging
import math
import os
import signal
import sys
from collections.abc import Iterable

from absl import flags

import cli
from ptb.data.files import DataError, read_file
from ptb.data.tokens import UNK
from ptb.data.vocabulary import lowercase_hint, quoted
from ptb.runs.load import TrainedModel, load

SENTENCE_LENGTH = 1000  # words (or characters) after which --sentences gives up, if there is no --length

logger = logging.getLogger(__name__)


def define_flags(values: flags.FlagValues) -> None:
    options = {"flag_values": values}
    help = "Words to continue; a new line ends a sentence. Default: start a new sentence."
    flags.DEFINE_string("prompt", "", help, **options)
    help = "A file with the prompt; - is standard input. A new line at its very end does not count."
    flags.DEFINE_string("prompt_file", None, help, **options)
    flags.DEFINE_bool("interactive", False, "Answer every line of standard input as a prompt, in one process.", **options)
    flags.DEFINE_integer("length", 50, "Words (or characters) to write, sentence ends included.", lower_bound=1, **options)
    help = f"Stop after this many ends of sentences; by default after {SENTENCE_LENGTH:,} words each at most."
    flags.DEFINE_integer("sentences", None, help, lower_bound=1, **options)
    flags.DEFINE_integer("num_samples", 1, "Texts to write, one after the other.", lower_bound=1, **options)
    help = "Decides the draws: the same seed writes the same text."
    flags.DEFINE_integer("seed", 1, help, lower_bound=0, upper_bound=2**32 - 1, **options)
    flags.DEFINE_enum("sample", "multinomial", ["multinomial", "argmax"], "Draw each word, or take the likeliest.", **options)
    help = "Write the likeliest text that a beam search through this many texts finds; --num_samples=2 writes the two best."
    flags.DEFINE_integer("beam", None, help, lower_bound=1, **options)
    help = "Divides the logits: below 1 favours likely words, above 1 unlikely ones."
    flags.DEFINE_float("temperature", 1, help, **options)
    flags.DEFINE_integer("top_k", None, "Draw from this many of the most likely words only.", lower_bound=1, **options)
    help = "Draw from the smallest set of most likely words with at least this probability (nucleus)."
    flags.DEFINE_float("top_p", 1, help, **options)
    flags.DEFINE_bool("avoid_unk", False, f"Never write {UNK}.", **options)
    help = "Write no text, but this many of the most likely next words, with probabilities."
    flags.DEFINE_integer("top", None, help, lower_bound=1, **options)
    cli.define_checkpoint(values)
    cli.define_encoding(values, None, reads_stdin=True)
    cli.define_lowercase(values, "Read the prompt in lower case, except for words that the vocabulary has, such as PTB's N.")
    cli.define_rnn_mode(values)
    cli.define_precision(values, "float32")
    message = "must be above 0; for the limit 0 use --sample=argmax"
    flags.register_validator("temperature", lambda t: 0 < t < math.inf, message, **options)
    flags.register_validator("top_p", lambda p: 0 < p <= 1, "is a probability: above 0 and at most 1", **options)


def main(values: flags.FlagValues, paths: list[str]) -> None:
    check_flags(values, paths)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the reader has seen enough: not an error
    options = {name: values[name].value for name in ("checkpoint", "rnn_mode", "precision", "lowercase")}
    lm = load(paths[0], **options)
    if values.prompt_file:
        prompt = read_prompt(values.prompt_file, values.encoding, lm.encoding)
        answer(lm, values, prompt, "standard input" if values.prompt_file == "-" else values.prompt_file)
        return
    if not values.interactive:
        answer(lm, values, values.prompt, "--prompt")
        return
    for prompt in interactive_prompts(values.encoding):
        try:
            answer(lm, values, prompt, "standard input")
        except DataError as error:  # the next one may be better
            logger.warning("%s", error)
        print(flush=True)


def answer(lm: TrainedModel, values: flags.FlagValues, prompt: str, source: str) -> None:
    """Print texts that begin with the prompt, or the words that come next. Raise DataError as `check_prompt`."""
    check_prompt(lm, prompt, source)
    excluded = [lm.vocabulary.ids[UNK]] if values.avoid_unk and UNK in lm.vocabulary.ids else []
    narrowing = {
        "temperature": values.temperature,
        "top_k": 1 if values.sample == "argmax" else values.top_k,
        "top_p": values.top_p,
        "excluded": excluded,
    }
    if values.top:
        for word, p in lm.next_words(prompt, values.top, **narrowing):
            print(f"{p:10.6f}  {cli.printable(word)}")
        return
    length = values.length
    if values.sentences and not values["length"].present:
        length = SENTENCE_LENGTH * values.sentences
    if values.beam:
        found = lm.beam_search(prompt, values.beam, length, values.sentences, excluded)
        texts = ([text] for text, _ in found[: values.num_samples])
    else:
        numbers = range(values.num_samples)
        texts = (lm.iterate_text(prompt, length, values.seed, i, values.sentences, **narrowing) for i in numbers)
    for number, pieces in enumerate(texts):
        if number:
            print()
        write(pieces)


def interactive_prompts(encoding: str | None = None) -> Iterable[str]:
    """Yield the lines of standard input; a person at a terminal is asked for each."""
    lines, asks = iter(cli.StandardInput(encoding)), sys.stdin.isatty()
    while True:
        if asks:
            print("> ", end="", file=sys.stderr, flush=True)
        line = next(lines, None)
        if line is None:
            return
        yield line.rstrip("\r\n")


def read_prompt(path: str, encoding: str | None = None, default: str = "utf-8") -> str:
    """Return the text of a prompt file, or of standard input if the path is "-". Raise DataError if it cannot be read.

    `default` is the encoding of a file if none is given; standard input is UTF-8 then.
    """
    if path == "-":
        return "".join(cli.StandardInput(encoding)).removesuffix("\n")
    return "".join(read_file(os.path.expanduser(path), encoding or default)).removesuffix("\n")


def check_flags(values: flags.FlagValues, paths: list[str]) -> None:
    """Raise flags.Error unless one run is named and flags go together."""
    if not paths:
        raise flags.Error('which run? Name its folder, for example: generate.py runs/small-1 --prompt="the company"')
    if values.sample == "argmax":
        reason = "has no effect with --sample=argmax, which takes the likeliest word"
        cli.reject_flags(values, reason, "temperature", "top_k", "top_p", "seed", "num_samples")
    if values.top:
        writing = ("sample", "length", "num_samples", "seed", "sentences", "beam")
        cli.reject_flags(values, "is for writing text, which --top does not", *writing)
    if values.beam:
        reason = "has no effect with --beam, which draws nothing"
        cli.reject_flags(values, reason, "sample", "temperature", "top_k", "top_p", "seed")
        if values.num_samples > values.beam:
            raise flags.Error(f"--num_samples: is more than the {values.beam} texts of --beam; give a larger --beam")
    if values.interactive:
        cli.reject_flags(
            values, "does not go with --interactive, which reads prompts from standard input", "prompt", "prompt_file"
        )
    if values.prompt_file:
        cli.reject_flags(values, "does not go with --prompt_file", "prompt")
    elif not values.interactive:
        cli.reject_flags(values, "needs --prompt_file or --interactive", "encoding")
    if len(paths) > 1:
        raise flags.Error(f'unexpected argument {paths[1]!r}: name one run, and quote a prompt: --prompt="the company"')


def check_prompt(lm: TrainedModel, prompt: str, source: str) -> None:
    """Warn of unknown words that become `<unk>`, and of unknown characters that are left out.

    `source` names the flag or file of the prompt. Raise DataError if the vocabulary cannot stand for it.
    """
    try:
        lm.encode_prompt(prompt)
    except DataError as error:
        raise DataError(f"{source}{str(error).removeprefix('prompt')}") from None
    unknown = lm.unknown_tokens([*lm.tokenize(prompt.split("\n"), framed=False)])
    if unknown:
        fate = f"read as {UNK}" if UNK in lm.vocabulary.ids else "left out"
        hint = lowercase_hint(unknown, lm.vocabulary)
        logger.warning("%s: not in the vocabulary, %s: %s%s", source, fate, quoted(unknown), hint)


def write(pieces: Iterable[str]) -> None:
    """Print a text piece by piece, as it comes; it ends in one new line."""
    piece = "\n"
    for piece in pieces:
        print(cli.printable(piece), end="", flush=True)
    if not piece.endswith("\n"):
        print()


if __name__ == "__main__":
    cli.run(main, define_flags, takes_runs=True)
