"""Score trained runs, one by one or the average of their probabilities, on valid, test or any text.

python evaluate.py runs/small-1                                  # valid and test at batch 1, every prediction
python evaluate.py runs/small-1 runs/small-2 --average           # the mean of their probabilities, as in the paper
python evaluate.py runs/small-1 --data_path=other/corpus         # another corpus, in the run's own vocabulary
python evaluate.py runs/small-1 --adapt=dynamic                  # keeps learning from the text it scores; tuned on valid
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
from collections.abc import Iterable, Iterator

import numpy as np
from absl import flags

import cli
from ptb.data.corpus import load_corpus, read_tokens
from ptb.data.files import SPLITS, DataError, is_single_file, iterate_text
from ptb.data.vocabulary import UNK
from ptb.evaluation.score import Score
from ptb.runs.adapt import METHODS, Adapter, perplexity_of
from ptb.runs.load import SentenceScore, TrainedModel, load
from ptb.runs.storage import RunError

PER_TOKEN = ("split", "word", "log_probability", "rank")  # nats; rank 1: no other word was more likely

logger = logging.getLogger(__name__)


def define_flags(values: flags.FlagValues) -> None:
    options = {"flag_values": values}
    cli.define_data_path(values, "Text to score, as for train.py, or one text file. Default: the text of the training.")
    help = "Which parts of the text to score. One text file is scored whole unless this is given."
    flags.DEFINE_multi_enum("split", ["valid", "test"], SPLITS, help, **options)
    flags.DEFINE_bool("average", False, "Score the mean probabilities of the first run, the first two, … all runs.", **options)
    help = "Write split, word, log probability and rank of every predicted word to this CSV file."
    flags.DEFINE_string("per_token", None, help, **options)
    help = "Score valid and test by a method whose settings are chosen on valid: docs/ladder.md."
    flags.DEFINE_enum("adapt", None, METHODS, help, **options)
    flags.DEFINE_bool("stdin", False, "Score the sentences on standard input, one per line.", **options)
    flags.DEFINE_bool("carry_state", False, "With --stdin: carry the state from line to line, as in one text.", **options)
    flags.DEFINE_bool("words", False, "With --stdin: show the log probability of each word.", **options)
    flags.DEFINE_bool("json", False, "Print JSON, one record per line, instead of a table.", **options)
    cli.define_checkpoint(values)
    cli.define_rnn_mode(values)
    cli.define_precision(values, "float32")


def main(values: flags.FlagValues, paths: list[str]) -> None:
    check_flags(values, paths)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` closes the pipe when it has read enough
    options = {name: values[name].value for name in ("checkpoint", "rnn_mode", "precision")}
    models = [load(path, **options) for path in paths]  # before hours of scoring
    if values.adapt or values.stdin:
        cli.name_weights(models[0])
    if values.adapt:
        records = score_adaptively(models[0], values.adapt, values.data_path)
    elif values.stdin:
        records = score_sentences(models[0], read_stdin(), values.carry_state, values.words)
    else:
        splits = values.split if values["split"].present else None
        records = score_texts(models, values.data_path, splits, values.average, values.per_token)
    for record in records:
        print(json.dumps(record) if values.json else table_row(record), flush=True)


def check_flags(values: flags.FlagValues, paths: list[str]) -> None:
    """Raise flags.Error if no run is named, or if flags do not go together."""
    if not paths:
        raise flags.Error("which run? Name one or more run folders, for example: evaluate.py runs/small-1")
    if values.stdin:
        reason = "does not go with --stdin, which scores its own text with one run"
        cli.reject_flags(values, reason, "data_path", "split", "average", "per_token", "adapt")
    else:
        cli.reject_flags(values, "needs --stdin", "carry_state", "words")
    if values.adapt:
        cli.reject_flags(values, "does not go with --adapt, which scores valid and test", "split", "average", "per_token")
    if len(paths) > 1:
        cli.reject_flags(values, "takes one run", "stdin", "per_token", "adapt")


def score_texts(
    models: list[TrainedModel],
    data_path: str | None = None,
    splits: list[str] | None = None,
    average: bool = False,
    per_token: str | None = None,
) -> Iterator[dict]:
    """Yield a record for each run and text; with `average` for each number of runs averaged and text.

    Probabilities are averaged, as in section 4.1 of the paper, not logits. `splits` is None for valid and test, or all of a
    single file.
    """
    if average:
        check_comparable(models, data_path)
    sums, previous, texts = {}, None, {}
    for count, lm in enumerate(models, 1):
        lm.take_over(previous)
        cli.name_weights(lm)
        previous = lm
        if count == 1 or not average:
            texts = load_texts(lm, data_path, splits)
        if per_token:
            write_csv(per_token, [PER_TOKEN], "w")
        for name, ids in texts.items():
            log_probabilities = lm.log_probabilities(ids)
            if per_token:
                words = [lm.vocabulary.words[token] for token in ids[1:]]
                rows = zip(itertools.repeat(name), words, log_probabilities.tolist(), lm.ranks(ids).tolist())
                write_csv(per_token, rows)
            if average:
                sums[name] = np.logaddexp(sums.get(name, -np.inf), log_probabilities.astype(np.float64))
                log_probabilities = sums[name] - math.log(count)
            score = Score(-float(log_probabilities.sum(dtype=np.float64)), log_probabilities.size)
            scored = f"average of {count}" if average else str(lm.run.path)
            record = {"run": scored, "split": name, "tokens": score.tokens, "perplexity": score.perplexity}
            record["precision"] = lm.precision
            yield record | ({"bits_per_character": score.bits} if lm.config.data.level == "char" else {})


def score_adaptively(lm: TrainedModel, method: str, data_path: str | None = None) -> Iterator[dict]:
    """Yield the records of valid and test under one of METHODS, with the settings that are best on valid.

    Logs each trial on valid. Keeps settings, scores and trials in the run folder as adapt-<method>.json. Test is scored once.
    """
    splits = load_texts(lm, data_path, list(SPLITS))
    adapter, trials, scored = Adapter(lm, splits["train"]), [], {}

    def report(trial):
        trials.append(trial)
        logger.warning("%s on valid: %s", method, ", ".join(f"{name} {value:.5g}" for name, value in trial.items()))

    settings = adapter.tune(method, splits["valid"], report)
    for split in ("valid", "test"):
        log_probabilities = lm.require_finite(adapter.score(method, splits[split], settings))
        scored[split] = perplexity_of(log_probabilities)
        record = {"run": f"{lm.run.path} {method}", "split": split, "tokens": log_probabilities.size}
        yield record | {"perplexity": scored[split], "precision": lm.precision, "settings": settings}
    lm.run.write_json(f"adapt-{method}.json", {"settings": settings, "perplexity": scored, "trials": trials})


def check_comparable(models: list[TrainedModel], data_path: str | None = None) -> None:
    """Raise RunError unless all runs give probabilities of the same words, for the same text."""
    first, *others = models
    for lm in others:
        path, other = lm.run.path, first.run.path
        if lm.vocabulary != first.vocabulary:
            raise RunError(f"{path}: its vocabulary differs from that of {other}; average runs of one vocabulary")
        if data_path is None and lm.record["corpus"] != first.record["corpus"]:
            raise RunError(f"{path}: was trained on another text than {other}; name the text to score with --data_path")


def load_texts(lm: TrainedModel, data_path: str | None = None, splits: list[str] | None = None) -> dict[str, np.ndarray]:
    """Return the ids of each text to score, by name: a whole file, or the splits asked for."""
    data = lm.config.data
    if data_path not in (None, "demo") and is_single_file(data_path) and not splits:
        return {pathlib.Path(data_path).name: read_tokens(data_path, lm.vocabulary, data.level)}
    path = data_path or lm.record["data_path"]
    try:
        corpus = load_corpus(path, lm.vocabulary, data.level, (data.train_fraction, data.valid_fraction))
    except DataError as error:
        cure = "; or name the text with --data_path, and of a single file the --split that was held out"
        raise error if data_path else DataError(f"{error}{cure}") from None
    if data_path is None and corpus.fingerprint() != lm.record["corpus"]:
        logger.warning("%s: is not, or no longer, the text that %s was trained on", path or "PTB", lm.run.path)
    return {split: getattr(corpus, split) for split in splits or ("valid", "test")}


def read_stdin() -> Iterator[str]:
    """Yield the lines of standard input, decoded as a text file is. Raise DataError if it is closed."""
    if sys.stdin is None:
        raise DataError("standard input: is closed; give it the sentences to score")
    yield from iterate_text(sys.stdin.buffer, "standard input")


def score_sentences(
    lm: TrainedModel, lines: Iterable[str], carry_state: bool = False, show_words: bool = False
) -> Iterator[dict]:
    """Yield a record for each line: its log probability in nats, perplexity, tokens (with `<eos>`) and unknown words."""
    lines, copies = itertools.tee(lines)
    try:
        for line, score in zip(copies, lm.iterate_scores(lines, carry_state)):
            yield sentence_record(line, score, show_words)
    except DataError as error:
        raise DataError(f"standard input, {error}") from None


def sentence_record(line: str, score: SentenceScore, show_words: bool = False) -> dict:
    record = {
        "sentence": line.rstrip("\r\n"),
        "log_probability": score.log_probability,
        "tokens": len(score.tokens),
        "unknown": list(score.unknown),
        "perplexity": score.perplexity,
    }
    return record | ({"words": list(zip(score.tokens, score.log_probabilities.tolist()))} if show_words else {})


def table_row(record: dict) -> str:
    """Return a record as one line, or several lines, to be read by people."""
    if "run" in record:
        what = f"{record['run']:<32} {record['split']:<8} {record['tokens']:>9,} tokens   {record['precision']:<8}"
        bits = f"   bits {record['bits_per_character']:.4f}" if "bits_per_character" in record else ""
        return f"{what}   perplexity {record['perplexity']:9.3f}{bits}"
    unknown = record["unknown"]
    row = f"log p {record['log_probability']:10.3f}   tokens {record['tokens']:4d}   unknown {len(unknown):3d}   "
    row += f"perplexity {record['perplexity']:10.3f}   {record['sentence']}"
    for word, log_probability in record.get("words", []):
        row += f"\n    {log_probability:9.3f}  {word}" + (f" ({UNK})" if word in unknown else "")
    return row


def write_csv(path: str, rows: Iterable, mode: str = "a") -> None:
    """Write rows to a CSV file. Raise OSError with its name."""
    try:
        # backslashreplace: the name of a split may be a file name that is not UTF-8
        with open(os.path.expanduser(path), mode, newline="", encoding="utf-8", errors="backslashreplace") as file:
            csv.writer(file).writerows(rows)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


if __name__ == "__main__":
    cli.run(main, define_flags, takes_runs=True)
