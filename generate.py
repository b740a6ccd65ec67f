"""Writes text with a trained run, or suggests the next word.

python generate.py runs/small-1 --prompt="the company said" --length=50 --temperature=0.8 --seed=1 --num_samples=3
python generate.py runs/small-1 --prompt="the company" --sample=argmax
python generate.py runs/small-1 --prompt="the company" --top=10          # the likeliest next words, with probabilities
"""

import functools
import itertools
import logging
import math
import signal

import numpy as np
from absl import flags

import commands
import reader
import trained
from ptb import devices, sampling
from ptb.run import RunError

FLAGS = flags.FLAGS

logger = logging.getLogger(__name__)


def define_flags():
    flags.DEFINE_string("prompt", "", "The words to go on from; a new line ends a sentence. Without any, a new sentence.")
    flags.DEFINE_integer("length", 50, "How many words (or characters) to write, ends of sentences included.", lower_bound=1)
    flags.DEFINE_integer("num_samples", 1, "How many texts to write, one after the other.", lower_bound=1)
    flags.DEFINE_integer("seed", 1, "Decides the draws: the same gives the same text.", lower_bound=0, upper_bound=2**32 - 1)
    flags.DEFINE_enum("sample", "multinomial", ["multinomial", "argmax"], "Draw each word, or take the likeliest.")
    flags.DEFINE_float("temperature", 1, "What logits are divided by: below 1 favours likely words, above 1 unlikely ones.")
    flags.DEFINE_integer("top_k", None, "Draw from this many of the likeliest words only.", lower_bound=1)
    flags.DEFINE_float("top_p", 1, "Draw from the smallest set of likeliest words whose probabilities reach this (nucleus).")
    flags.DEFINE_bool("avoid_unk", False, f"Never write {reader.UNK}.")
    flags.DEFINE_integer(
        "top", None, "Write no text, but this many of the likeliest next words, with probabilities.", lower_bound=1
    )
    flags.DEFINE_enum("rnn_mode", "auto", devices.RNN_MODES, "Which kernel takes the cell through time: see ptb/kernels.py.")
    flags.DEFINE_enum("precision", "float32", devices.PRECISIONS, "Of matrix products: see ptb/devices.py.")
    flags.register_validator("temperature", lambda t: 0 < t < math.inf, "has to be above 0, whose limit is --sample=argmax")
    flags.register_validator("top_p", lambda p: 0 < p <= 1, "is a probability, above 0 and at most 1")


def main(argv):
    if len(argv) < 2:
        raise flags.Error('which run? Name its folder, for example: generate.py runs/small-1 --prompt="the company"')
    if FLAGS.sample == "argmax":
        drawing = ("temperature", "top_k", "top_p", "seed", "num_samples")
        commands.refuse("changes nothing where --sample=argmax takes the likeliest word", *drawing)
    if FLAGS.top:
        commands.refuse("is for writing text, which --top does not", "sample", "length", "num_samples", "seed")
    if len(argv) > 2:
        raise flags.Error(f'unexpected argument {argv[2]!r}: one run, and quotes around a prompt: --prompt="the company"')
    # Whoever has read enough presses Ctrl-C or closes the pipe; neither is an error.
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)

    opened = trained.Trained(argv[1])
    vocabulary, level = opened.vocabulary, opened.config.level
    prompt = encode_prompt(vocabulary, level)
    model = opened.load_model(FLAGS.rnn_mode, devices.choose_precision(FLAGS.precision, devices.visible_gpus()))
    next_step = sampling.make_next_step(model)
    *before, last = [vocabulary.ids[reader.EOS], *prompt]
    state = model.initial_state(1)
    for token in before:
        _, state = next_step(token, state)

    try:
        if FLAGS.top:
            suggest(narrowed(vocabulary)(next_step(last, state)[0]), vocabulary)
            return
        for sample in range(FLAGS.num_samples):
            if sample:
                print()
            tokens = sampling.generate(next_step, last, state, FLAGS.length, (FLAGS.seed, sample), narrowed(vocabulary))
            write((vocabulary.words[token] for token in itertools.chain(prompt, tokens)), level)
    except sampling.NotFiniteError as error:
        raise RunError(f"{opened.run.path}: {error}; restore an older checkpoint, or train again") from None


def encode_prompt(vocabulary, level):
    """Returns the ids of the prompt's words; what the vocabulary lacks is named in a warning. DataError if it lacks all."""
    *words, _ = reader.tokenize(FLAGS.prompt.split("\n"), level, framed=False)  # but for the last <eos>: its sentence goes on
    unknown = dict.fromkeys(word for word in words if word not in vocabulary.ids)
    named = ", ".join(map(repr, unknown))
    tokens = reader.TOKENS[level]
    if unknown and set(words) <= {*unknown, reader.EOS}:
        raise reader.DataError(
            f"--prompt: the vocabulary has none of its {tokens} ({named}); use {tokens} of the training text"
        )
    if unknown and reader.UNK not in vocabulary.ids:
        raise reader.DataError(f"--prompt: the vocabulary lacks {named} and has no {reader.UNK} for it; use other {tokens}")
    if unknown:
        logger.warning("--prompt: not in the vocabulary, read as %s: %s", reader.UNK, named)
    return vocabulary.encode(words).tolist()


def narrowed(vocabulary):
    """Returns the function from logits to the distribution that the flags ask for."""
    return functools.partial(
        sampling.distribution,
        temperature=FLAGS.temperature,
        top_k=1 if FLAGS.sample == "argmax" else FLAGS.top_k,
        top_p=FLAGS.top_p,
        excluded=[vocabulary.ids[reader.UNK]] if FLAGS.avoid_unk and reader.UNK in vocabulary.ids else [],
    )


def suggest(p, vocabulary):
    """Prints the likeliest words of a distribution, each with its probability."""
    for token in np.argsort(-p, kind="stable")[: FLAGS.top]:
        if p[token] > 0:
            print(f"{p[token]:10.6f}  {vocabulary.words[token]}")


def write(words, level):
    """Prints words as they come, a sentence a line."""
    piece = "\n"
    for piece in reader.join_tokens(words, level):
        print(piece, end="", flush=True)
    if piece != "\n":
        print()


if __name__ == "__main__":
    commands.run(main, define_flags, takes_runs=True)
