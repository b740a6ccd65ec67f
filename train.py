"""Trains a recurrent language model as Zaremba et al. (2014) did, and scores it on the test text.

    python train.py --model=medium --data_path=simple-examples/data --save_path=runs/medium
    python train.py --model=demo --data_path=demo --save_path=runs/demo
    tensorboard --logdir=runs

The same command again carries on where a run was stopped.
"""

import contextlib
import dataclasses
import logging
import pathlib
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
from ptb.signals import StopRequest, say
from ptb.training import Sums, make_train_step

FLAGS = flags.FLAGS

logger = logging.getLogger(__name__)

REPORTS_PER_EPOCH = 10
SAMPLE_LENGTH = 100  # tokens


class Watching(NamedTuple):
    """How a run is saved and looked at while it goes on, which changes nothing about what it learns."""

    checkpoint_seconds: float = 300
    report_every: int = 0  # steps; 0: ten times an epoch
    sample_every: int = 0  # steps; 0: never
    profile: bool = False


def define_flags():
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
    flags.DEFINE_enum(
        "precision", "auto", devices.PRECISIONS, "Of matrix products; auto: tf32 or bfloat16 where there are units for it."
    )
    flags.DEFINE_enum("distribute", "none", replicas.STRATEGIES, "Over which devices to share each batch: see docs/scaling.md.")
    flags.DEFINE_float("checkpoint_minutes", 5, "How often to write a checkpoint within an epoch.")
    flags.DEFINE_integer("report_every", 0, "Steps from one printed line to the next (0: ten lines an epoch).", lower_bound=0)
    flags.DEFINE_integer("sample_every", 0, "Steps from one text sample in TensorBoard to the next (0: never).", lower_bound=0)
    flags.DEFINE_enum(
        "on_nonfinite",
        "stop",
        ["stop", "rewind"],
        "When the training diverges: stop, or go back to the beginning of the epoch and halve the learning rates.",
    )
    flags.DEFINE_bool("profile", False, "Record ten of the first steps for TensorBoard's profile plugin.")
    flags.register_validator("checkpoint_minutes", lambda minutes: minutes >= 0, "has to be 0 or more")  # which NaN is not


def main(_):
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
    asked = {"model": FLAGS.model, "seed": FLAGS.seed, "precision": FLAGS.precision, "corpus": corpus.fingerprint()}
    asked |= dataclasses.asdict(config)
    replicas.check_alike(asked | {"chosen precision": precision, "kernel": kernel})
    asked["data_path"] = FLAGS.data_path
    if run.holds(asked, DEFAULTS) and run.result:
        say(f"{run.path}: finished, test perplexity {run.result['test_perplexity']:.3f}; nothing to do")
        return
    cut_into_windows(corpus, config)  # too short a text is refused before anything is written
    agree = replicas.make_agreement() if replicas.are_processes() else None
    with run.locked(), StopRequest(agree=agree) as stop:
        run.begin(asked, DEFAULTS)
        run.write_vocabulary(corpus.vocabulary)
        count = replicas.number()
        device = ("GPU" if devices.visible_gpus() else "CPU") + (f" × {count}" if count > 1 else "")
        say(f"Model: {FLAGS.model} Kernel: {kernel} Precision: {precision} Device: {device}")
        model = config.make_model(
            len(corpus.vocabulary), seed=FLAGS.seed, rnn_mode=kernel, product_dtype=devices.use_precision(precision)
        )
        setting = {"precision": precision, "kernel": kernel, "seed": FLAGS.seed, "replicas": count}
        setting |= {"machine": devices.machine(), "versions": devices.versions(), "git_revision": git_revision()}
        watching = Watching(
            checkpoint_seconds=60 * FLAGS.checkpoint_minutes,
            report_every=FLAGS.report_every,
            sample_every=FLAGS.sample_every,
            profile=FLAGS.profile,
        )
        rewinds = FLAGS.on_nonfinite == "rewind"
        progress = train(config, corpus, run, model, setting, stop, watching, rewinds)
        test = finish(config, corpus, run, model, progress, setting, stop)
        if FLAGS.data_path == "demo" and config.level == "word":
            print_floor(test)


def train(config, corpus, run, model, setting, stop, watching, rewinds=False):
    """Trains `model` from where the run's newest checkpoint left it to the end. Returns the Progress.

    With `rewinds`, a training that diverges begins its epoch again, at lower learning rates.
    """
    while True:
        try:
            return Training(config, corpus, run, model, setting, stop, watching).to_the_end()
        except Diverged as error:
            if not rewinds:
                raise
            say(error.what)
            step, factor = rewind(run)
            say(f"Going back to step {step}, learning rates × {factor:g}")


class Training:
    """A run's way from its newest checkpoint to the end: epoch after epoch, window after window."""

    def __init__(self, config, corpus, run, model, setting, stop, watching):
        self.config, self.run, self.model = config, run, model
        self.vocabulary, self.setting, self.stop, self.watching = corpus.vocabulary, setting, stop, watching
        self.train_windows, self.valid_windows = cut_into_windows(corpus, config)
        self.report_windows = report_windows(len(self.train_windows))
        optimizer = config.make_optimizer()
        self.train_step = make_train_step(model, config.gradient_clip(), optimizer, config.objective())
        self.eval_step = make_eval_step(model)
        self.next_step = sampling.make_next_step(model)
        self.mean_of_workers = replicas.make_mean_of_workers()
        variables, state = learnt_variables(model, optimizer), model.initial_state(config.batch_size)
        self.progress = Progress(variables, state, Sums.zero(), explosion=config.explosion)

    def begin(self):
        """Goes to the newest checkpoint, or writes the first, and begins the curves with what had been plotted by then."""
        if self.progress.restore(self.run):
            say(f"Resuming {self.run.path} after step {self.progress.step}")
        else:
            self.progress.save(self.run)
        if not self.is_over():
            self.note_precision()
        self.give_hint()
        self.run.write_history(self.progress.history)
        replicas.check_alike({"step": self.progress.step})
        self.curves = Curves(self.run, self.progress.points, self.run.config)

    def to_the_end(self):
        """Takes the steps that are still to be taken. Returns the Progress."""
        self.begin()
        recorded = self.watching.profile and not self.run.read_only
        steps = profiled(self.train_step, self.run.path) if recorded else contextlib.nullcontext(self.train_step)
        with contextlib.closing(self.curves), steps as train_step:
            while not self.is_over():
                self.epoch(train_step)
        self.progress.take_best()
        return self.progress

    def is_over(self):
        """Whether there is no epoch to begin or to end."""
        return self.progress.epoch > self.config.num_epochs or (self.progress.window == 0 and self.out_of_patience())

    def give_hint(self):
        """Has a request to stop tell how to go on, and the best so far where that is kept."""
        progress = self.progress
        best = f"best so far: valid perplexity {progress.best_perplexity:.3f} at step {progress.best_step}; "
        self.stop.hint = f"{best if progress.best_step else ''}the same command resumes {self.run.path}"

    def note_precision(self):
        """Remembers in what products the run goes on, and warns where that is another than before."""
        precision, precisions = self.setting["precision"], self.progress.precisions
        if precision not in precisions[-1:]:
            if precisions:
                logger.warning("%s: its products were in %s, from now on in %s", self.run.path, precisions[-1], precision)
            precisions.append(precision)

    def epoch(self, train_step):
        """Takes what is left of an epoch, and goes to the next."""
        progress = self.progress
        progress.learning_rate = progress.rate_factor * self.config.learning_rate_of(progress.epoch)
        say(f"Epoch: {progress.epoch} Learning rate: {progress.learning_rate:.3f}")
        rate = np.array(progress.learning_rate, self.model.dtype)
        progress.start_clock()
        for inputs, targets in self.train_windows[progress.window :]:
            if is_due(self.config.validate_every, progress.step):
                self.validate()
            if self.out_of_patience():
                break
            dropout_seed = np.array([self.setting["seed"], progress.step], np.int32)
            progress.state, progress.sums = train_step(inputs, targets, progress.state, progress.sums, rate, dropout_seed)
            progress.advance()
            if self.report_is_due():
                report(progress, progress.check(), len(self.train_windows), self.curves)
            if is_due(self.watching.sample_every, progress.step):
                self.curves.add("", "sample", progress.step, self.sample())
            self.save_or_stop()
        progress.check_epoch()
        self.validate()
        progress.check_validation()
        progress.history.append(epoch_record(progress) | self.setting)
        report_epoch(progress.history[-1], self.curves)
        progress.begin_epoch(self.model.initial_state(self.config.batch_size))
        progress.save(self.run)
        self.run.write_history(progress.history)

    def validate(self):
        """Saves the run and scores the validation text, unless no step was taken since that was last done.

        Keeps the weights where there is patience and they are the best.
        """
        progress = self.progress
        if progress.validated == progress.step:
            return
        progress.save(self.run)
        valid = score(self.eval_step, self.model, self.stop.watch(self.valid_windows))
        reached = self.mean_of_workers(valid.perplexity)  # or workers that round differently would not stop at the same step
        if is_due(self.config.validate_every, progress.step):
            self.curves.add("", "valid_perplexity", progress.step, reached)
        progress.note_validation(reached, keep_best=bool(self.config.patience))
        self.give_hint()
        progress.start_clock()

    def report_is_due(self):
        every = self.watching.report_every
        return is_due(every, self.progress.step) if every else self.progress.window in self.report_windows

    def out_of_patience(self):
        return self.progress.out_of_patience(self.config.patience)

    def sample(self):
        """Returns text that the model writes now, from a seed that is the number of the step."""
        state, start = self.model.initial_state(1), self.vocabulary.ids[reader.EOS]
        try:
            tokens = list(sampling.generate(self.next_step, start, state, SAMPLE_LENGTH, (self.progress.step,)))
        except sampling.NotFiniteError as error:  # the next check says whether the training has diverged
            return f"({error})"
        return "".join(reader.join_tokens((self.vocabulary.words[token] for token in tokens), self.config.level))

    def save_or_stop(self):
        """Writes a checkpoint where it is time for one, and before the process goes where somebody wants it to."""
        stopping = self.stop.requested()
        if stopping or self.progress.seconds_since_save() > self.watching.checkpoint_seconds:
            self.progress.save(self.run)
        if stopping:
            self.stop.exit()


def cut_into_windows(corpus, config):
    """Returns the windows of the training text and those of the validation text; DataError where one is too short."""
    sizes = config.batch_size, config.num_steps
    return (
        reader.windows(corpus.train, *sizes, overlap=config.overlap, name="the training text"),
        reader.windows(corpus.valid, *sizes, name="the validation text"),
    )


def finish(config, corpus, run, model, progress, setting, stop):
    """Scores the test text at batch 1, every prediction of it, and writes `result.json`. Returns the Score.

    In float32, as evaluate.py does: the score is that of the weights, wherever they were trained.
    """
    windows = stop.watch(reader.scoring_windows(corpus.test))
    model.multiply_in(devices.use_precision("float32"))
    test = score(make_eval_step(model, jit_compile=True), model, windows)
    say(f"Test Perplexity: {test.perplexity:.3f}")
    result = {
        "test_perplexity": test.perplexity,
        "tokens_scored": test.tokens,
        "protocol": "batch 1, state carried through the whole text, every prediction counted, products in float32",
        "valid_perplexity": progress.best_perplexity or progress.history[-1]["valid_perplexity"],
        "train_perplexity": progress.history[progress.best_epoch - 1]["train_perplexity"],  # without a best, the last
        "training_seconds": sum(record["seconds"] for record in progress.history),
        **setting,
        "precision": ", ".join(progress.precisions),
    }
    if config.level == "char":
        result["test_bits_per_character"] = test.bits
        say(f"Test Bits per Character: {test.bits:.4f}")
    if config.patience:
        result["best_step"] = progress.best_step
        say(f"These are the weights of step {progress.best_step}, the best on the validation text")
    run.write_json("result.json", result)
    return test


def print_floor(test):
    """Prints how far a model stays above the grammar that wrote the built-in corpus."""
    floor = grammar.perplexity(grammar.demo_text().test)
    gap = test.perplexity / floor - 1
    say(f"Floor: {floor:.3f}, the perplexity of the grammar that wrote the text; this model: {gap:.1%} above it")


def report_windows(count):
    """Returns after how many windows, of an epoch's `count`, to report: ten times, as the tutorial spaces them."""
    period = max(count // REPORTS_PER_EPOCH, 1)
    return {k * period + min(REPORTS_PER_EPOCH + 1, period) for k in range(min(REPORTS_PER_EPOCH, count))}


def is_due(period, step):
    """Returns whether to do after `step` steps what is done every `period` steps; never where that is 0."""
    return period > 0 and step > 0 and step % period == 0


def report(progress, sums, num_windows, curves):
    """Prints and plots how the epoch goes, in the words of the tutorial, which counts the windows from 0."""
    running, speed = perplexity(sums.loss, sums.tokens), sums.tokens / progress.read_clock()
    say(f"{(progress.window - 1) / num_windows:.3f} perplexity: {running:.3f} speed: {speed:.0f} wps")
    curves.add("", "running_train_perplexity", progress.step, running)
    curves.add("", "learning_rate", progress.step, progress.learning_rate)
    curves.add("", "mean_gradient_norm", progress.step, sums.grad_norm / sums.steps)
    curves.add("", "words_per_second", progress.step, speed)
    curves.flush()


def epoch_record(progress):
    """Returns the line of `history.jsonl` for a finished epoch."""
    sums = progress.sums.read()
    return {
        "epoch": progress.epoch,
        "learning_rate": progress.learning_rate,
        "train_perplexity": perplexity(sums.loss, sums.tokens),
        "valid_perplexity": progress.valid_perplexity,
        "words_per_second": sums.tokens / progress.seconds,
        "seconds": progress.seconds,
        "mean_gradient_norm": sums.grad_norm / sums.steps,
        "clipped_fraction": sums.clipped_steps / sums.steps,
    }


def report_epoch(record, curves):
    """Prints and plots what a finished epoch has reached."""
    for series in ("train", "valid"):
        reached = record[f"{series}_perplexity"]
        say(f"Epoch: {record['epoch']} {series.capitalize()} Perplexity: {reached:.3f}")
        curves.add(series, "perplexity", record["epoch"], reached)
    curves.flush()


def git_revision():
    """Returns the revision of this program, "+" appended where its Python files differ from it; None outside a git checkout."""
    git = ["git", "-C", str(pathlib.Path(__file__).parent)]
    try:
        revision = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py"], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision.strip() + ("+" if changed else "")


if __name__ == "__main__":
    commands.run(main, define_flags)
