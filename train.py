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
import time

import numpy as np
from absl import flags

import commands
import corpora
import reader
from configs import CONFIGS
from ptb import devices, grammar
from ptb.curves import Curves
from ptb.evaluation import make_eval_step, perplexity, score
from ptb.profiling import profiled
from ptb.progress import Diverged, Progress, rewind
from ptb.run import Run, writing
from ptb.signals import StopRequest
from ptb.training import Sums, make_train_step

flags.DEFINE_enum("model", "small", list(CONFIGS), "Which configuration to train: see configs.py.")
flags.DEFINE_string(
    "data_path",
    None,
    "Folder or simple-examples.tgz that holds ptb.train.txt, ptb.valid.txt and ptb.test.txt; "
    '"demo" for the built-in corpus; by default PTB is downloaded once and kept.',
)
flags.DEFINE_string("save_path", None, "Folder for checkpoints, curves and results (default: runs/<model>-<seed>).")
flags.DEFINE_integer("seed", 1, "Decides the initial weights and the dropout masks.", lower_bound=0, upper_bound=2**31 - 1)
flags.DEFINE_enum("rnn_mode", "auto", devices.RNN_MODES, "LSTM kernel: see ptb/kernels.py.")
flags.DEFINE_enum("precision", "auto", devices.PRECISIONS, "Of matrix products: see ptb/devices.py.")
flags.DEFINE_float("checkpoint_minutes", 5, "How often to write a checkpoint within an epoch.", lower_bound=0)
flags.DEFINE_enum(
    "on_nonfinite",
    "stop",
    ["stop", "rewind"],
    "When the training diverges: stop, or go back a checkpoint and halve the learning rates.",
)
flags.DEFINE_bool("profile", False, "Record ten of the first steps for TensorBoard's profile plugin.")
FLAGS = flags.FLAGS

REPORTS_PER_EPOCH = 10
TEST_WINDOW = 500  # at batch 1 the state is carried all the way: the length of the windows makes no difference to the score


def main(argv):
    if len(argv) > 1:
        raise flags.Error(f"unexpected argument {argv[1]!r}: flags begin with --, see --helpshort")
    config = CONFIGS[FLAGS.model]
    corpus = corpora.load_corpus(FLAGS.data_path)
    gpus = devices.visible_gpus()
    kernel = devices.choose_kernel(FLAGS.rnn_mode, gpus)
    precision = devices.choose_precision(FLAGS.precision, gpus)
    run = Run(FLAGS.save_path or f"runs/{FLAGS.model}-{FLAGS.seed}")
    asked = {"model": FLAGS.model, "seed": FLAGS.seed, "precision": FLAGS.precision, "corpus": fingerprint(corpus)}
    asked |= dataclasses.asdict(config) | {"data_path": FLAGS.data_path}
    if run.holds(asked) and run.result:
        print(f"{run.path}: finished, test perplexity {run.result['test_perplexity']:.3f}; nothing to do")
        return
    cut_into_windows(corpus, config)  # too short a text is refused before anything is written

    with run.locked(), StopRequest(f"the same command resumes {run.path}") as stop:
        run.begin(asked)
        with writing(run.vocabulary_path):
            corpus.vocabulary.save(run.vocabulary_path)
        print(f"Model: {FLAGS.model} Kernel: {kernel} Precision: {precision} Device: {'GPU' if gpus else 'CPU'}")
        model = config.make_model(
            len(corpus.vocabulary), seed=FLAGS.seed, rnn_mode=kernel, product_dtype=devices.product_dtype(precision)
        )
        setting = {"precision": precision, "kernel": kernel, "seed": FLAGS.seed}
        setting |= {"versions": versions(), "git_revision": git_revision()}
        train_to_the_end = train if FLAGS.on_nonfinite == "stop" else train_with_rewinds
        progress = train_to_the_end(
            config, corpus, run, model, setting, stop, 60 * FLAGS.checkpoint_minutes, profile=FLAGS.profile
        )
        finish(corpus, run, model, progress, setting, stop)


def train(config, corpus, run, model, setting, stop, checkpoint_seconds, profile=False):
    """Trains `model` from where the run's newest checkpoint left it to the end of the last epoch. Returns the Progress."""
    train_windows, valid_windows = cut_into_windows(corpus, config)
    report_windows = evenly_spaced(len(train_windows), REPORTS_PER_EPOCH)
    train_step = make_train_step(model, config.max_grad_norm, config.norm_of_repeats)
    train_step = profiled(train_step, run.path) if profile else train_step
    eval_step = make_eval_step(model)
    progress = Progress(model.initial_state(config.batch_size), Sums.zero())
    if progress.restore(run, model):
        print(f"Resuming {run.path} after step {progress.step}")
    else:
        progress.save(run, model)
    run.write_history(progress.history)

    curves = Curves(run.path, progress.points, run.config)
    progress.points = curves.points
    saved = time.monotonic()

    while progress.epoch <= config.num_epochs:
        progress.learning_rate = progress.rate_factor * config.learning_rate_of(progress.epoch)
        print(f"Epoch: {progress.epoch} Learning rate: {progress.learning_rate:.3f}", flush=True)
        rate = np.array(progress.learning_rate, model.dtype)
        started = time.monotonic() - progress.seconds
        for inputs, targets in train_windows[progress.window :]:
            dropout_seed = np.array([setting["seed"], progress.step], np.int32)
            progress.state, progress.sums = train_step(inputs, targets, progress.state, progress.sums, rate, dropout_seed)
            if progress.window in report_windows:
                progress.check()
                progress.seconds = time.monotonic() - started
                report(progress, len(train_windows), curves)
            progress.window += 1
            progress.step += 1
            if stop.requested or time.monotonic() - saved > checkpoint_seconds:
                progress.seconds = time.monotonic() - started
                progress.save(run, model)
                saved = time.monotonic()
                stop.exit_if_requested()

        progress.seconds = time.monotonic() - started
        progress.save(run, model)
        valid = score(eval_step, model, stop.watch(valid_windows))
        progress.history.append(epoch_record(progress, valid) | setting)
        report_epoch(progress.history[-1], curves)
        progress.begin_epoch(model.initial_state(config.batch_size))
        progress.save(run, model)
        saved = time.monotonic()
        run.write_history(progress.history)
    curves.close()
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
    texts = {"the training text": corpus.train, "the validation text": corpus.valid}
    return [reader.windows(text, config.batch_size, config.num_steps, name=name) for name, text in texts.items()]


def finish(corpus, run, model, progress, setting, stop):
    """Scores the test text at batch 1, every prediction of it, and writes `result.json`."""
    windows = reader.windows(corpus.test, 1, TEST_WINDOW, drop_remainder=False)
    test = score(make_eval_step(model), model, stop.watch(windows))
    print(f"Test Perplexity: {test.perplexity:.3f}")
    result = {
        "test_perplexity": test.perplexity,
        "tokens_scored": test.tokens,
        "protocol": "batch 1, state carried through the whole text, every prediction counted",
        "valid_perplexity": progress.history[-1]["valid_perplexity"],
        "train_perplexity": progress.history[-1]["train_perplexity"],
        "training_seconds": sum(record["seconds"] for record in progress.history),
        **setting,
    }
    if FLAGS.data_path == "demo":
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


def report(progress, num_windows, curves):
    """Prints and plots how the epoch goes, in the tutorial's words."""
    sums = Sums(*[float(total) for total in progress.sums])
    running, speed = perplexity(sums.loss, sums.tokens), sums.tokens / progress.seconds
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
        texts.update(tokens.tobytes())
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
