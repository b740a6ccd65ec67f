"""Scores trained runs: one by one, or the average of their probabilities, on valid, test or any text.

python evaluate.py runs/small-1                                  # valid and test at batch 1, every prediction
python evaluate.py runs/small-1 runs/small-2 --average           # the mean of their probabilities, as in the paper
python evaluate.py runs/small-1 --data_path=other/corpus         # another corpus, in the run's own vocabulary
echo "the company said it will" | python evaluate.py runs/small-1 --stdin --words
"""

import csv
import itertools
import json
import logging
import math
import os
import pathlib
import signal
import sys

import numpy as np
from absl import flags

import commands
import corpora
import reader
import textfiles
import trained
from ptb import devices, evaluation
from ptb.run import RunError

FLAGS = flags.FLAGS

logger = logging.getLogger(__name__)

PER_TOKEN = ("split", "word", "log_probability", "rank")  # nats, and 1 where the model held no other word more likely


def define_flags():
    flags.DEFINE_string(
        "data_path",
        None,
        "Text to score, as for train.py, or one text file; by default what the run was trained on. "
        "All of its words but the first are predicted.",
    )
    flags.DEFINE_multi_enum(
        "split",
        ["valid", "test"],
        ["train", "valid", "test"],
        "Which parts of the text to score; one text file is scored whole unless this is given.",
    )
    flags.DEFINE_bool("average", False, "Score the mean of the runs' probabilities: of the first, of the first two, … of all.")
    flags.DEFINE_string(
        "per_token", None, "Also write split, word, log probability and rank of every word that is predicted to this CSV file."
    )
    flags.DEFINE_bool("stdin", False, "Score the sentences on standard input, one a line.")
    flags.DEFINE_bool("carry_state", False, "With --stdin: carry the state from line to line, as in one text.")
    flags.DEFINE_bool("words", False, "With --stdin: show the log probability of each word.")
    flags.DEFINE_bool("json", False, "Print JSON, one record a line, rather than a table.")
    flags.DEFINE_enum("rnn_mode", "auto", devices.RNN_MODES, "Which kernel takes the cell through time: see ptb/kernels.py.")
    flags.DEFINE_enum("precision", "float32", devices.PRECISIONS, "Of matrix products: see ptb/devices.py.")


def main(argv):
    paths = argv[1:]
    check_flags(paths)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever has read enough closes the pipe
    runs = [trained.Trained(path) for path in paths]  # all, before the first is scored for an hour
    for record in score_sentences(runs[0], sentences()) if FLAGS.stdin else score_runs(runs):
        print(json.dumps(record) if FLAGS.json else table_row(record), flush=True)


def check_flags(paths):
    """Raises flags.Error where no run is named, or what is asked for does not go together."""
    if not paths:
        raise flags.Error("which run? Name one or more run folders, for example: evaluate.py runs/small-1")
    if FLAGS.stdin:
        commands.refuse(
            "is not for --stdin, which scores its own text with one run", "data_path", "split", "average", "per_token"
        )
    else:
        commands.refuse("is for --stdin", "carry_state", "words")
    if len(paths) > 1:
        commands.refuse("takes one run", "stdin", "per_token")


class Scorer:
    """A model and what is compiled for it, kept from run to run while they are alike: TensorFlow never lets go of either."""

    def __init__(self):
        self.precision = devices.choose_precision(FLAGS.precision, devices.visible_gpus())
        self.kind = self.model = None

    def load(self, opened):
        """Takes the weights of a run."""
        kind = opened.config, opened.vocabulary
        self.model = opened.load_model(FLAGS.rnn_mode, self.precision, into=self.model if kind == self.kind else None)
        if kind != self.kind:
            self.kind = kind
            self.eval_step = evaluation.make_eval_step(self.model, jit_compile=True)
            self.rank_step = evaluation.make_rank_step(self.model, jit_compile=True)

    def log_probabilities(self, tokens):
        """Returns the log probability in nats of every token but the first, `[len(tokens) - 1]`."""
        return -evaluation.carry_through(self.eval_step, self.model, reader.scoring_windows(tokens))[0]

    def ranks(self, tokens):
        """Returns the rank of every token but the first, `[len(tokens) - 1]`."""
        return evaluation.carry_through(self.rank_step, self.model, reader.scoring_windows(tokens))[0]


def score_runs(runs):
    """Yields a record for each run and split, or with --average for each number of runs averaged and split."""
    scorer, sums = Scorer(), {}
    if FLAGS.average:
        check_comparable(runs)
    for count, opened in enumerate(runs, 1):
        scorer.load(opened)
        if count == 1 or not FLAGS.average:
            to_score = texts(opened)
        if FLAGS.per_token:
            write_rows([PER_TOKEN], "w")
        for split, tokens in to_score.items():
            log_probabilities = checked(scorer.log_probabilities(tokens), opened.run)
            if FLAGS.per_token:
                words = [opened.vocabulary.words[token] for token in tokens[1:]]
                write_rows(zip(itertools.repeat(split), words, log_probabilities.tolist(), scorer.ranks(tokens).tolist()))
            if FLAGS.average:  # of probabilities, as in section 4.1 of the paper, not of logits
                sums[split] = np.logaddexp(sums.get(split, -np.inf), log_probabilities.astype(np.float64))
                log_probabilities = sums[split] - math.log(count)
            score = evaluation.Score(-float(log_probabilities.sum(dtype=np.float64)), log_probabilities.size)
            name = f"average of {count}" if FLAGS.average else str(opened.run.path)
            record = {"run": name, "split": split, "tokens": score.tokens, "perplexity": score.perplexity}
            record["precision"] = scorer.precision
            yield record | ({"bits_per_character": score.bits} if opened.config.level == "char" else {})


def checked(log_probabilities, run):
    """Returns the log probabilities; RunError where they are no numbers, since the model has gone astray."""
    if not np.isfinite(log_probabilities).all():
        raise RunError(f"{run.path}: the model's scores are not finite; restore an older checkpoint, or train again")
    return log_probabilities


def check_comparable(runs):
    """Raises RunError unless all give probabilities of the same words, of the same text."""
    first, *others = runs
    for opened in others:
        path, other = opened.run.path, first.run.path
        if opened.vocabulary != first.vocabulary:
            raise RunError(f"{path}: its vocabulary is not that of {other}, so their probabilities cannot be averaged")
        if FLAGS.data_path is None and opened.run.config["corpus"] != first.run.config["corpus"]:
            raise RunError(f"{path}: was trained on another text than {other}; name the text to score with --data_path")


def texts(opened):
    """Returns the ids of each text to score, by name: all of a file that is named as such, or the splits asked for."""
    vocabulary, config, run = opened.vocabulary, opened.config, opened.run
    if FLAGS.data_path not in (None, "demo") and textfiles.is_one_text(FLAGS.data_path) and not FLAGS["split"].present:
        return {pathlib.Path(FLAGS.data_path).name: reader.read_tokens(FLAGS.data_path, vocabulary, config.level)}
    data_path = FLAGS.data_path or run.config["data_path"]
    try:
        corpus = corpora.load_corpus(data_path, vocabulary, config.level, config.fractions)
    except reader.DataError as error:
        cure = "; or name the text with --data_path, and of one file the --split that was held out"
        raise error if FLAGS.data_path else reader.DataError(f"{error}{cure}") from None
    if FLAGS.data_path is None and corpus.fingerprint() != run.config["corpus"]:
        logger.warning("%s: is not the text that %s was trained on, or no longer", data_path or "PTB", run.path)
    return {split: getattr(corpus, split) for split in FLAGS.split}


def sentences():
    """Yields the lines of standard input, read as a text file is."""
    if sys.stdin is None:
        raise reader.DataError("standard input: is closed; give it the sentences to score")
    yield from textfiles.iterate_text(sys.stdin.buffer, "standard input")


def score_sentences(opened, lines):
    """Yields a record for each line: its log probability in nats, perplexity and number of tokens, `<eos>` included.

    Its words that the vocabulary lacks, which are scored as `<unk>`, are named.
    """
    vocabulary, level = opened.vocabulary, opened.config.level
    eos = vocabulary.ids[reader.EOS]
    scorer = Scorer()
    scorer.load(opened)
    state = scorer.model.initial_state(1)
    for number, line in enumerate(lines, 1):
        words = [*reader.split_line(line, level), reader.EOS]
        try:
            ids = vocabulary.encode(words)
        except reader.DataError as error:
            raise reader.DataError(f"standard input, line {number}: {error}") from None
        if not FLAGS.carry_state:
            state = scorer.model.initial_state(1)
        # A sentence begins where another has ended: its first word is predicted from <eos>. Word by word, since the step is
        # compiled anew for every length of its windows.
        log_probabilities = np.zeros(len(words))
        for position, window in enumerate(reader.windows(np.append(eos, ids), 1, 1)):
            losses, state = scorer.eval_step(*window, state)
            log_probabilities[position] = -losses.numpy()[0, 0]
        score = evaluation.Score(-checked(log_probabilities, opened.run).sum(), len(words))
        record = {
            "sentence": line.rstrip("\r\n"),
            "log_probability": -score.loss,
            "tokens": score.tokens,
            "unknown": [word for word in words if word not in vocabulary.ids],
            "perplexity": score.perplexity,
        }
        if FLAGS.words:
            record["words"] = list(zip(words, log_probabilities.tolist()))
        yield record


def table_row(record):
    """Returns a record as a line, or several, for people."""
    if "run" in record:
        what = f"{record['run']:<32} {record['split']:<8} {record['tokens']:>9,} tokens   {record['precision']:<8}"
        bits = f"   bits {record['bits_per_character']:.4f}" if "bits_per_character" in record else ""
        return f"{what}   perplexity {record['perplexity']:9.3f}{bits}"
    unknown = record["unknown"]
    row = f"log p {record['log_probability']:10.3f}   tokens {record['tokens']:4d}   unknown {len(unknown):3d}   "
    row += f"perplexity {record['perplexity']:10.3f}   {record['sentence']}"
    for word, log_probability in record.get("words", []):
        row += f"\n    {log_probability:9.3f}  {word}" + (f" ({reader.UNK})" if word in unknown else "")
    return row


def write_rows(rows, mode="a"):
    """Writes rows to the file of --per_token; OSError that names it."""
    try:
        path = os.path.expanduser(FLAGS.per_token)
        with open(path, mode, newline="", encoding="utf-8", errors="backslashreplace") as file:  # for a split's file name
            csv.writer(file).writerows(rows)
    except OSError as error:
        raise OSError(error.errno, error.strerror, FLAGS.per_token) from None


if __name__ == "__main__":
    commands.run(main, define_flags, takes_runs=True)
