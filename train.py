"""Trains a recurrent language model as Zaremba et al. (2014) did, and scores it on the test text.

    python train.py --model=medium --data_path=simple-examples/data --save_path=runs/medium
    python train.py --model=demo --data_path=demo --save_path=runs/demo
    tensorboard --logdir=runs

The same command again carries on where a run was stopped.
"""

import dataclasses
import hashlib
import importlib.metadata
import math
import pathlib
import platform
import subprocess
from typing import NamedTuple

import numpy as np
from absl import flags

import commands
import corpora
import reader
from configs import CONFIGS, DEFAULTS
from ptb import devices, grammar, replicas, sampling
from ptb.curves import Curves
from ptb.evaluation import make_eval_step, perplexity, score
from ptb.profiling import profiled
from ptb.progress import Diverged, Progress, learnt_variables, rewind
from ptb.run import Run
from ptb.signals import StopRequest
from ptb.training import Sums, make_train_step

flags.DEFINE_enum("model", "small", list(CONFIGS), "Which configuration to train: see configs.py.")
flags.DEFINE_string(
    "data_path",
    None,
    "Folder or simple-examples.tgz that holds ptb.train.txt, ptb.valid.txt and ptb.test.txt; "
    'one text file, to be cut into these; "demo" for the built-in corpus; by default PTB is downloaded once and kept.',
)
flags.DEFINE_string("save_path", None, "Folder for checkpoints, curves and results (default: runs/<model>-<seed>).")
flags.DEFINE_integer("seed", 1, "Decides the initial weights and the dropout masks.", lower_bound=0, upper_bound=2**31 - 1)
flags.DEFINE_enum("rnn_mode", "auto", devices.RNN_MODES, "Which kernel takes the cell through time: see ptb/kernels.py.")
flags.DEFINE_enum("precision", "auto", devices.PRECISIONS, "Of matrix products: see ptb/devices.py.")
flags.DEFINE_enum("distribute", "none", replicas.STRATEGIES, "Over which devices to share each batch: see docs/scaling.md.")
flags.DEFINE_float("checkpoint_minutes", 5, "How often to write a checkpoint within an epoch.", lower_bound=0)
flags.DEFINE_integer("report_every", 0, "Steps from one printed line to the next (0: ten lines an epoch).", lower_bound=0)
flags.DEFINE_integer("sample_every", 0, "Steps from one sample of text in TensorBoard to the next (0: none).", lower_bound=0)
flags.DEFINE_enum(
    "on_nonfinite",
    "stop",
    ["stop", "rewind"],
    "When the training diverges: stop, or go back a checkpoint and halve the learning rates.",
)
flags.DEFINE_bool("profile", False, "Record ten of the first steps for TensorBoard's profile plugin.")
FLAGS = flags.FLAGS

REPORTS_PER_EPOCH = 10
SAMPLE_LENGTH = 100  # tokens
TEST_WINDOW = 500  # at batch 1 the state is carried all the way: the length of the windows makes no difference to the score


class Watching(NamedTuple):
    """How a run is saved and looked at while it goes on, which changes nothing about what it learns."""

    checkpoint_seconds: float = 300
    report_every: int = 0  # steps; 0: ten times an epoch
    sample_every: int = 0  # steps; 0: never
    profile: bool = False


def main(argv):
    if len(argv) > 1:
        raise flags.Error(f"unexpected argument {argv[1]!r}: flags begin with --, see --helpshort")
    if FLAGS.distribute == "multi_worker" and FLAGS.on_nonfinite == "rewind":
        raise flags.Error("--on_nonfinite=rewind is for one process: with --distribute=multi_worker, start again by hand")
    config = CONFIGS[FLAGS.model]
    gpus = devices.visible_gpus()
    kernel = devices.choose_kernel(FLAGS.rnn_mode, gpus, config.cell)
    corpus = corpora.load_corpus(FLAGS.data_path, level=config.level, fractions=config.fractions)
    precision = devices.choose_precision(FLAGS.precision, gpus)
    read_only = not replicas.is_first_worker(FLAGS.distribute)
    run = Run(FLAGS.save_path or f"runs/{FLAGS.model}-{FLAGS.seed}", read_only)
    with replicas.make_strategy(FLAGS.distribute, config.batch_size).scope(), replicas.peers_watched():
        train_in(run, config, corpus, kernel, precision)


def train_in(run, config, corpus, kernel, precision):
    """Does all that is still to be done in a run's folder: training from wherever it is to the end, or nothing."""
    asked = {"model": FLAGS.model, "seed": FLAGS.seed, "precision": FLAGS.precision, "corpus": fingerprint(corpus)}
    asked |= dataclasses.asdict(config)
    replicas.check_alike(asked)
    asked["data_path"] = FLAGS.data_path
    if run.holds(asked, DEFAULTS) and run.result:
        print(f"{run.path}: finished, test perplexity {run.result['test_perplexity']:.3f}; nothing to do")
        return
    cut_into_windows(corpus, config)  # too short a text is refused before anything is written
    agree = replicas.make_agreement() if replicas.are_processes() else None
    with run.locked(), StopRequest(f"the same command resumes {run.path}", agree) as stop:
        run.begin(asked, DEFAULTS)
        run.save_vocabulary(corpus.vocabulary)
        count = replicas.number()
        device = ("GPU" if devices.visible_gpus() else "CPU") + (f" × {count}" if count > 1 else "")
        print(f"Model: {FLAGS.model} Kernel: {kernel} Precision: {precision} Device: {device}")
        model = config.make_model(
            len(corpus.vocabulary), seed=FLAGS.seed, rnn_mode=kernel, product_dtype=devices.product_dtype(precision)
        )
        setting = {"precision": precision, "kernel": kernel, "seed": FLAGS.seed, "replicas": count}
        setting |= {"versions": versions(), "git_revision": git_revision()}
        watching = Watching(60 * FLAGS.checkpoint_minutes, FLAGS.report_every, FLAGS.sample_every, FLAGS.profile)
        train_to_the_end = train if FLAGS.on_nonfinite == "stop" else train_with_rewinds
        progress = train_to_the_end(config, corpus, run, model, setting, stop, watching)
        finish(config, corpus, run, model, progress, setting, stop)


def train(config, corpus, run, model, setting, stop, watching):
    """Trains `model` from where the run's newest checkpoint left it to the end. Returns the Progress."""
    train_windows, valid_windows = cut_into_windows(corpus, config)
    optimizer = config.make_optimizer()
    train_step = make_train_step(model, config.gradient_clip(), optimizer, config.objective())
    train_step = profiled(train_step, run.path) if watching.profile else train_step
    eval_step = make_eval_step(model)
    next_step = sampling.make_next_step(model)
    progress = Progress(
        learnt_variables(model, optimizer), model.initial_state(config.batch_size), Sums.zero(), explosion=config.explosion
    )
    if progress.restore(run):
        print(f"Resuming {run.path} after step {progress.step}")
    else:
        progress.save(run)
    run.write_history(progress.history)
    replicas.check_alike({"step": progress.step})

    curves = Curves(run, progress.points, run.config)
    progress.points = curves.points
    report_windows = evenly_spaced(len(train_windows), REPORTS_PER_EPOCH)
    if watching.report_every:
        report_windows = range(watching.report_every - 1, len(train_windows), watching.report_every)

    def validate():
        valid = score(eval_step, model, stop.watch(valid_windows))
        if config.patience:
            progress.note_validation(valid.perplexity)
            best = f"best so far: valid perplexity {progress.best_perplexity:.3f} at step {progress.best_step}"
            stop.hint = f"{best}; the same command resumes {run.path}"
        progress.validated = progress.step
        progress.start_clock()
        return valid

    while progress.epoch <= config.num_epochs and not (progress.window == 0 and progress.out_of_patience(config.patience)):
        progress.learning_rate = progress.rate_factor * config.learning_rate_of(progress.epoch)
        print(f"Epoch: {progress.epoch} Learning rate: {progress.learning_rate:.3f}", flush=True)
        rate = np.array(progress.learning_rate, model.dtype)
        progress.start_clock()
        for inputs, targets in train_windows[progress.window :]:
            if is_due(config.validate_every, progress.step) and progress.validated < progress.step:
                progress.save(run)
                curves.add("", "valid_perplexity", progress.step, validate().perplexity)
            if progress.out_of_patience(config.patience):
                break
            dropout_seed = np.array([setting["seed"], progress.step], np.int32)
            progress.state, progress.sums = train_step(inputs, targets, progress.state, progress.sums, rate, dropout_seed)
            if progress.window in report_windows:
                progress.check()
                report(progress, len(train_windows), curves)
            progress.window += 1
            progress.step += 1
            if is_due(watching.sample_every, progress.step):
                curves.add("", "sample", progress.step, sample(next_step, model, corpus.vocabulary, config, progress.step))
            stopping = stop.requested
            if stopping or progress.seconds_since_save() > watching.checkpoint_seconds:
                progress.save(run)
            if stopping:
                stop.exit()

        progress.save(run)
        progress.history.append(epoch_record(progress, validate()) | setting)
        report_epoch(progress.history[-1], curves)
        progress.begin_epoch(model.initial_state(config.batch_size))
        progress.save(run)
        run.write_history(progress.history)
    curves.close()
    progress.take_best()
    return progress


def train_with_rewinds(config, corpus, run, *arguments, **options):
    """Does what `train` does, but each time that the training diverges goes back a checkpoint and lowers the rate."""
    while True:
        try:
            return train(config, corpus, run, *arguments, **options)
        except Diverged as error:
            print(error)
            step, factor = rewind(run)
            print(f"Going back to step {step}, learning rates × {factor:g}", flush=True)


def cut_into_windows(corpus, config):
    """Returns the windows of the training text and those of the validation text; DataError where one is too short."""
    sizes = config.batch_size, config.num_steps
    return (
        reader.windows(corpus.train, *sizes, overlap=config.overlap, name="the training text"),
        reader.windows(corpus.valid, *sizes, name="the validation text"),
    )


def finish(config, corpus, run, model, progress, setting, stop):
    """Scores the test text at batch 1, every prediction of it, and writes `result.json`."""
    windows = reader.windows(corpus.test, 1, TEST_WINDOW, drop_remainder=False)
    test = score(make_eval_step(model, jit_compile=True), model, stop.watch(windows))
    print(f"Test Perplexity: {test.perplexity:.3f}")
    result = {
        "test_perplexity": test.perplexity,
        "tokens_scored": test.tokens,
        "protocol": "batch 1, state carried through the whole text, every prediction counted",
        "valid_perplexity": progress.best_perplexity or progress.history[-1]["valid_perplexity"],
        "train_perplexity": progress.history[-1]["train_perplexity"],
        "training_seconds": sum(record["seconds"] for record in progress.history),
        **setting,
    }
    if config.level == "char":
        result["test_bits_per_character"] = test.bits
        print(f"Test Bits per Character: {test.bits:.4f}")
    if config.patience:
        result["best_step"] = progress.best_step
        print(f"These are the weights of step {progress.best_step}, the best on the validation text")
    if FLAGS.data_path == "demo" and config.level == "word":
        result["floor"] = math.exp(grammar.entropy_per_token())
        gap = test.perplexity / result["floor"] - 1
        print(
            f"Floor: {result['floor']:.3f}, the perplexity of the grammar that wrote the text; this model: {gap:.1%} above it"
        )
    run.write_json("result.json", result)


def evenly_spaced(count, reports):
    """Returns after which windows, of `count`, to report: where the tutorial does; after each where there are too few."""
    period = max(count // reports, 1)
    return {k * period + min(reports, period - 1) for k in range(min(reports, count))}


def is_due(period, step):
    """Returns whether to do after `step` steps what is done every `period` steps; never where that is 0."""
    return period > 0 and step > 0 and step % period == 0


def sample(next_step, model, vocabulary, config, step):
    """Returns text that the model writes now, from a seed that is the number of the step."""
    tokens = sampling.generate(next_step, vocabulary.ids[reader.EOS], model.initial_state(1), SAMPLE_LENGTH, (step,))
    return "".join(reader.join_tokens((vocabulary.words[token] for token in tokens), config.level))


def report(progress, num_windows, curves):
    """Prints and plots how the epoch goes, in the tutorial's words."""
    sums = Sums(*[float(total) for total in progress.sums])
    running, speed = perplexity(sums.loss, sums.tokens), sums.tokens / progress.read_clock()
    print(f"{progress.window / num_windows:.3f} perplexity: {running:.3f} speed: {speed:.0f} wps", flush=True)
    curves.add("", "running_train_perplexity", progress.step, running)
    curves.add("", "learning_rate", progress.step, progress.learning_rate)
    curves.add("", "gradient_norm", progress.step, sums.grad_norm / sums.steps)
    curves.add("", "words_per_second", progress.step, speed)
    curves.flush()


def epoch_record(progress, valid):
    """Returns the line of `history.jsonl` for a finished epoch."""
    sums = Sums(*[float(total) for total in progress.sums])
    return {
        "epoch": progress.epoch,
        "learning_rate": progress.learning_rate,
        "train_perplexity": perplexity(sums.loss, sums.tokens),
        "valid_perplexity": valid.perplexity,
        "words_per_second": sums.tokens / progress.seconds,
        "seconds": progress.seconds,
        "mean_gradient_norm": sums.grad_norm / sums.steps,
        "clipped_fraction": sums.clipped_steps / sums.steps,
    }


def report_epoch(record, curves):
    """Prints and plots what a finished epoch has reached."""
    for series in ("train", "valid"):
        reached = record[f"{series}_perplexity"]
        print(f"Epoch: {record['epoch']} {series.capitalize()} Perplexity: {reached:.3f}", flush=True)
        curves.add(series, "perplexity", record["epoch"], reached)
    curves.flush()


def fingerprint(corpus):
    """Returns a short hash of the three texts, by which a resumed run knows its own."""
    texts = hashlib.sha256()
    for tokens in (corpus.train, corpus.valid, corpus.test):
        texts.update(np.ascontiguousarray(tokens))
    return texts.hexdigest()[:16]


def versions():
    packages = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    return {"python": platform.python_version(), **packages}


def git_revision():
    """Returns the revision of this program, "+" appended if files were changed since; None outside a git checkout."""
    folder = pathlib.Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    commands.run(main)
