"""Score trained runs, one by one or the average of their probabilities, on valid, test or any text.

python evaluate.py runs/small-1                                  # valid and test at batch 1, every prediction
python evaluate.py runs/small-1 runs/small-2 --average           # the mean of their probabilities, as in the paper
python evaluate.py runs/small-1 --data_path=other/corpus         # another corpus, in the run's own vocabulary
python evaluate.py runs/small-1 --adapt=dynamic                  # keeps learning from the text it scores; tuned on valid
echo "the company said it will" | python evaluate.py runs/small-1 --stdin --words
python evaluate.py runs/small-1 --nbest --lm_scale=0.5 <hypotheses.txt      # ranks the N-best lists of a recogniser again
"""

import csv
import hashlib
import itertools
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator

import numpy as np
from absl import flags

import cli
from ptb.data.files import SPLITS
from ptb.data.tokens import UNK
from ptb.evaluation.adapt import METHODS, Adapter
from ptb.evaluation.nbest import parse_nbest, rerank
from ptb.evaluation.score import Score
from ptb.evaluation.sentences import SentenceScore, Totals
from ptb.runs.load import TrainedModel, load
from ptb.runs.storage import RunError
from ptb.runs.texts import read_texts

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
    help = "Score valid and test by a method whose settings are chosen on valid: docs/techniques.md."
    flags.DEFINE_enum("adapt", None, METHODS, help, **options)
    help = (
        "Score the sentences on standard input, one per line, then print their totals. Each begins after an <eos>; a text, "
        "scored without this flag, begins with its first word, which is not predicted."
    )
    flags.DEFINE_bool("stdin", False, help, **options)
    flags.DEFINE_bool("carry_state", False, "With --stdin: carry the state from line to line, as in one text.", **options)
    flags.DEFINE_bool("words", False, "With --stdin: show the log probability of each word.", **options)
    help = (
        "Score lines of standard input, `id hypothesis` (Kaldi) or `id | scores | hypothesis` (Flashlight): docs/commands.md."
    )
    flags.DEFINE_bool("nbest", False, help, **options)
    help = "With --nbest: rank each utterance by score + lm_scale * log p. A line of Kaldi is then `id score hypothesis`."
    flags.DEFINE_float("lm_scale", None, help, **options)
    flags.register_validator("lm_scale", lambda scale: scale is None or math.isfinite(scale), "must be finite", **options)
    flags.DEFINE_bool("json", False, "Print JSON, one record per line, instead of a table.", **options)
    cli.define_checkpoint(values)
    cli.define_encoding(values, None, reads_stdin=True)
    cli.define_lowercase(values, "Read texts in lower case, except for words that the vocabulary has, such as PTB's N.")
    cli.define_rnn_mode(values)
    cli.define_precision(values, "float32")


def main(values: flags.FlagValues, paths: list[str]) -> None:
    check_flags(values, paths)
    options = {name: values[name].value for name in ("checkpoint", "rnn_mode", "precision", "lowercase")}
    models = [load(path, **options) for path in paths]  # before hours of scoring
    if values.adapt or values.stdin or values.nbest:
        cli.name_weights(models[0])
    if values.adapt:
        records = score_adaptively(models[0], values.adapt, values.data_path, values.encoding)
    elif values.nbest:
        records = score_nbest(models[0], cli.StandardInput(values.encoding), values.lm_scale)
    elif values.stdin:
        records = score_sentences(models[0], cli.StandardInput(values.encoding), values.carry_state, values.words)
    else:
        splits = values.split if values["split"].present else None
        records = score_texts(models, values.data_path, splits, values.average, values.per_token, values.encoding)
    for record in records:
        print(json.dumps(record) if values.json else table_row(record), flush=True)


def check_flags(values: flags.FlagValues, paths: list[str]) -> None:
    """Raise flags.Error if no run is named, or if flags do not go together."""
    if not paths:
        raise flags.Error("which run? Name one or more run folders, for example: evaluate.py runs/small-1")
    if values.stdin or values.nbest:
        reason = f"does not go with --{'nbest' if values.nbest else 'stdin'}, which scores its own text with one run"
        cli.reject_flags(values, reason, "data_path", "split", "average", "per_token", "adapt")
    if values.nbest:
        cli.reject_flags(values, "does not go with --nbest", "stdin", "carry_state", "words")
    elif not values.stdin:
        cli.reject_flags(values, "needs --stdin", "carry_state", "words")
    if not values.nbest:
        cli.reject_flags(values, "needs --nbest", "lm_scale")
    if values.adapt:
        cli.reject_flags(values, "does not go with --adapt, which scores valid and test", "split", "average", "per_token")
    if len(paths) > 1:
        cli.reject_flags(values, "takes one run", "stdin", "nbest", "per_token", "adapt")


def score_texts(
    models: list[TrainedModel],
    data_path: str | None = None,
    splits: list[str] | None = None,
    average: bool = False,
    per_token: str | None = None,
    encoding: str | None = None,
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
            texts = read_texts(lm, data_path, splits, encoding)
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
            score = Score.of(-log_probabilities)
            scored = f"average of {count}" if average else str(lm.run.path)
            record = {"run": scored, "split": name, "tokens": score.tokens, "perplexity": score.perplexity}
            record["precision"] = lm.precision
            yield record | ({"bits_per_character": score.bits} if lm.config.data.level != "word" else {})


def score_adaptively(
    lm: TrainedModel, method: str, data_path: str | None = None, encoding: str | None = None
) -> Iterator[dict]:
    """Yield the records of valid and test under one of METHODS, with the settings that are best on valid.

    Logs each trial on valid. Keeps settings, scores and trials in the run folder as adapt-<method>.json, or warns once that it
    cannot; those of other weights or texts stay beside it. Trials of these weights and texts that are there are not repeated: a
    stopped search goes on, and dynamic_cache begins with the rates of dynamic. `temperature` makes its few passes again. Test
    is scored once.
    """
    splits = read_texts(lm, data_path, list(SPLITS), encoding)
    adapter, scored = Adapter(lm.model, splits["train"]), {}
    texts = hashlib.sha256(splits["train"].tobytes() + splits["valid"].tobytes()).hexdigest()[:16]
    record = {"of": {"step": lm.weights.step, "precision": lm.precision, "texts": texts}}
    if lm.checkpoint == "last":  # may be of the same step as the best, which are averages
        record["of"]["checkpoint"] = "last"
    if lm.inverse_temperature != 1:
        record["of"]["inverse_temperature"] = lm.inverse_temperature
    known = [] if method == "temperature" else known_trials(lm, method, record["of"])
    trials = [*known]

    def keep(results):
        try:
            lm.run.write_adaptation(method, record | results)
        except RunError as error:
            logger.warning("%s; the scores are printed, but not kept", error)
            lm.run.read_only = True

    def report(trial):
        trials.append(trial)
        shown = (f"{name} {'not finite' if value is None else f'{value:.5g}'}" for name, value in trial.items())
        logger.warning("%s on valid: %s", method, ", ".join(shown))
        keep({"trials": trials})

    settings = adapter.tune(method, splits["valid"], report, known)
    for split in ("valid", "test"):
        log_probabilities = lm.require_finite(adapter.score(method, splits[split], settings))
        scored[split] = Score.of(-log_probabilities).perplexity
        score = {"run": f"{lm.run.path} {method}", "split": split, "tokens": log_probabilities.size}
        yield score | {"perplexity": scored[split], "precision": lm.precision, "settings": settings}
    keep({"settings": settings, "perplexity": scored, "trials": trials})


def known_trials(lm: TrainedModel, method: str, of: dict) -> list[dict]:
    """Return the earlier trials of a method with the same weights and texts; of `dynamic` if `dynamic_cache` has none."""
    names = (method, "dynamic") if method == "dynamic_cache" else (method,)
    records = (record for name in names for record in lm.run.adaptations(name).values())
    return next((record["trials"] for record in records if record.get("of") == of), [])


def check_comparable(models: list[TrainedModel], data_path: str | None = None) -> None:
    """Raise RunError unless all runs give probabilities of the same words, for the same text."""
    first, *others = models
    for lm in others:
        path, other = lm.run.path, first.run.path
        if lm.vocabulary != first.vocabulary:
            raise RunError(f"{path}: its vocabulary differs from that of {other}; average runs of one vocabulary")
        if data_path is None and lm.record["corpus"] != first.record["corpus"]:
            raise RunError(f"{path}: was trained on another text than {other}; name the text to score with --data_path")


def score_sentences(
    lm: TrainedModel, lines: cli.StandardInput, carry_state: bool = False, show_words: bool = False
) -> Iterator[dict]:
    """Yield a record for each line: its log probability in nats, perplexity, tokens (with `<eos>`) and unknown words.

    The last record has the totals: see `Totals`.
    """
    totals = Totals()
    sentences, copies = itertools.tee(lines)
    with cli.naming_standard_input():
        for score, line in zip(lm.iterate_scores(sentences, carry_state, lines.ready), copies):
            totals.add(score)
            yield sentence_record(line, score, show_words)
    yield totals_record(totals)


def sentence_record(line: str, score: SentenceScore, show_words: bool = False) -> dict:
    record = {
        "sentence": line.rstrip("\r\n"),
        "log_probability": score.log_probability,
        "tokens": len(score.tokens),
        "unknown": list(score.unknown),
        "perplexity": score.perplexity,
    }
    return record | ({"words": list(zip(score.tokens, score.log_probabilities.tolist()))} if show_words else {})


def totals_record(totals: Totals) -> dict:
    """Return the totals as SRILM counts them, but in nats; `without_oovs` if there are any."""
    known = totals.without_oovs()
    numbers = [{"log_probability": t.log_probability, "ppl": t.ppl, "ppl1": t.ppl1} for t in (totals, known)]
    record = {"sentences": totals.sentences, "words": totals.words, "oovs": totals.oovs} | numbers[0]
    return record | ({"without_oovs": numbers[1]} if totals.oovs else {})


def score_nbest(lm: TrainedModel, lines: cli.StandardInput, lm_scale: float | None = None) -> Iterator[dict]:
    """Yield a record for each hypothesis, with its line in the shape that it came in; see `ptb.evaluation.nbest`."""
    with cli.naming_standard_input():
        hypotheses, copies = itertools.tee(parse_nbest(lines, scored=lm_scale is not None))
        scores = lm.iterate_scores((hypothesis.text for hypothesis in copies), ready=lines.ready)
        scored = ((hypothesis, score.log_probability) for score, hypothesis in zip(scores, hypotheses))
        for hypothesis, log_p, *total in scored if lm_scale is None else rerank(scored, lm_scale):
            record = {"id": hypothesis.id, "hypothesis": hypothesis.text, "log_probability": log_p}
            yield record | {"line": hypothesis.line(log_p, *total)} | ({"score": total[0]} if total else {})


def table_row(record: dict) -> str:
    """Return a record as one line, or several lines, to be read by people."""
    if "run" in record:
        what = f"{record['run']:<32} {record['split']:<8} {record['tokens']:>9,} tokens   {record['precision']:<8}"
        bits = f"   bits {record['bits_per_character']:.4f}" if "bits_per_character" in record else ""
        return f"{what}   perplexity {record['perplexity']:9.3f}{bits}"
    if "line" in record:
        return record["line"]
    return totals_rows(record) if "sentences" in record else sentence_rows(record)


def sentence_rows(record: dict) -> str:
    unknown = record["unknown"]
    row = f"log p {record['log_probability']:10.3f}   tokens {record['tokens']:4d}   unknown {len(unknown):3d}   "
    row += f"perplexity {record['perplexity']:10.3f}   {record['sentence']}"
    for word, log_probability in record.get("words", []):
        row += f"\n    {log_probability:9.3f}  {word}" + (f" ({UNK})" if word in unknown else "")
    return row


def totals_rows(record: dict) -> str:
    """Return the totals with SRILM's names of the numbers; its log probability is to base 10."""

    def numbers(part):
        ppl, ppl1 = ("undefined" if part[name] is None else f"{part[name]:.3f}" for name in ("ppl", "ppl1"))
        return f"logprob= {part['log_probability'] / math.log(10):.3f} ppl= {ppl} ppl1= {ppl1}"

    rows = f"{record['sentences']} sentences, {record['words']} words, {record['oovs']} OOVs\n{numbers(record)}"
    if "without_oovs" in record:
        rows += f"   OOVs as {UNK}\n{numbers(record['without_oovs'])}   without OOVs"
    return rows


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
