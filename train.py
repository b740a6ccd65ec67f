"""Train a recurrent language model as Zaremba et al. (2014) did, and score it on the test text.

    python train.py --model=medium --data_path=simple-examples/data --save_path=runs/medium
    python train.py --model=small --set learning_rate=0.5 --set model.layers=512,512
    python train.py --model=demo --data_path=demo
    tensorboard --logdir=runs

    python train.py --save_path=runs/small-1 --model=small --set num_epochs=20 --resume_with_changes
    python train.py --init_from=runs/small-1 --data_path=mine.txt

The same command again continues a stopped run.
"""

import contextlib
import math
import os
import pathlib

import numpy as np
from absl import flags

import cli
from configs import find_config, published_scores
from ptb.config import Config, differences, flatten, override, to_json, value_text
from ptb.data import grammar
from ptb.data.download import PTB_FINGERPRINT
from ptb.data.tokens import UNK
from ptb.data.vocabulary import UnknownTokens
from ptb.evaluation import sampling
from ptb.evaluation.score import LONG_TEXT, make_eval_step, score
from ptb.evaluation.temperature import scale_temperature
from ptb.model.language_model import LanguageModel, build_model
from ptb.runs.budget import within_budget
from ptb.runs.folder import RunFolder, run_name
from ptb.runs.load import TrainedModel, load
from ptb.runs.outcome import overfitting, require_better_than_guessing
from ptb.runs.progress import Monitoring, Progress, can_draw, describe, is_due
from ptb.runs.resume import complete_about, describe_source, initialize, resume, resume_hint
from ptb.runs.tensorboard import SAMPLE
from ptb.runtime import devices, replicas
from ptb.runtime.profiling import profile_steps
from ptb.runtime.signals import StopRequest, print_line
from ptb.training.averaging import WeightAverages
from ptb.training.optimizers import make_optimizer
from ptb.training.schedules import length_factor, step_rate
from ptb.training.state import Diverged, TrainState, trained_variables
from ptb.training.step import Sums, make_train_step
from reader import Corpus, DataError, Windows, load_corpus, scoring_windows, validation_windows, windows

ROOT = pathlib.Path(__file__).parent


def define_flags(values: flags.FlagValues) -> None:
    cli.define_model(values)
    cli.define_set(values)
    cli.define_data_path(values)
    cli.define_encoding(values, "utf-8")
    cli.define_lowercase(values, "Read the text in lower case: --set lowercase=true.")
    options = {"flag_values": values}
    flags.DEFINE_string("save_path", None, "Folder of the run (default: runs/<model>-<what --set changed>-<seed>).", **options)
    flags.DEFINE_integer("seed", 1, "Decides all random numbers.", lower_bound=0, upper_bound=2**31 - 1, **options)
    cli.define_rnn_mode(values)
    cli.define_precision(values, "auto")
    flags.DEFINE_enum("distribute", "none", replicas.STRATEGIES, "Share each batch among devices: docs/scaling.md.", **options)
    flags.DEFINE_float("checkpoint_minutes", 5, "Minutes between checkpoints within an epoch.", lower_bound=0, **options)
    flags.DEFINE_integer("report_every", 0, "Steps between printed lines (0: ten lines an epoch).", lower_bound=0, **options)
    flags.DEFINE_integer("sample_every", 0, "Steps between sampled texts in TensorBoard (0: none).", lower_bound=0, **options)
    help = "auto: on a terminal a live line instead of the lines within an epoch; plain: always lines."
    flags.DEFINE_enum("progress", "auto", ["auto", "plain"], help, **options)
    help = "Go on with a run although --set changes it, for example --set num_epochs=20. Needs --save_path."
    flags.DEFINE_bool("resume_with_changes", False, help, **options)
    help = "Begin with the weights, the vocabulary and the configuration of this run, to train on another text."
    flags.DEFINE_string("init_from", None, help, **options)
    flags.DEFINE_bool("extend_vocabulary", False, "With --init_from: add the new words of the text.", **options)
    help = "If training diverges: stop, or rewind to the start of the epoch and halve the learning rates."
    flags.DEFINE_enum("on_nonfinite", "stop", ["stop", "rewind"], help, **options)
    flags.DEFINE_bool("profile", False, "Record ten of the first steps for TensorBoard's profile plugin.", **options)
    flags.register_validator("checkpoint_minutes", math.isfinite, "must be a number of minutes", **options)


def main(values: flags.FlagValues) -> None:
    check_flags(values)
    source = load(values.init_from) if values.init_from else None
    name, named = named_config(values, source)
    settings = cli.parse_settings(values.set)
    config = override(named, ({"lowercase": True} if values.lowercase else {}) | settings)
    if config.budget_minutes and "num_epochs" in settings:
        raise flags.Error("--set num_epochs: budget_minutes decides it; add --set budget_minutes=0")
    choose_kernel(values.rnn_mode, config)  # raises before a long text is read
    corpus = read_corpus(values, config, source)
    begins = f"{name}-from-{source.run.path.name}" if source else name
    path = values.save_path or f"runs/{run_name(begins, differences(config, named), values.seed)}"
    run = RunFolder(path, read_only=not replicas.is_first_worker(values.distribute))
    about = {"model": name, "data_path": values.data_path, "encoding": values.encoding}
    with replicas.make_strategy(values.distribute, config.batch_size).scope(), replicas.report_lost_workers():
        result = train(
            config,
            corpus,
            run,
            seed=values.seed,
            rnn_mode=values.rnn_mode,
            precision=values.precision,
            monitoring=make_monitoring(values, name, corpus),
            rewinds=values.on_nonfinite == "rewind",
            resume_with_changes=values.resume_with_changes,
            init_from=source,
            about=about | {"overrides": differences(config, named)},
        )
    has_all_words = corpus.vocabulary.ids.get(UNK, -1) not in corpus.test  # a text with <unk> is easier to predict
    if values.data_path == "demo" and config.data.level == "word" and has_all_words:
        print_floor(result["test_perplexity"])


def check_flags(values: flags.FlagValues) -> None:
    """Reject combinations of flags that do not work together."""
    if values.distribute == "multi_worker" and values.on_nonfinite == "rewind":
        raise flags.Error("--on_nonfinite=rewind: works in one process only; with --distribute=multi_worker, restart by hand")
    if values.resume_with_changes and not values.save_path:
        raise flags.Error("--resume_with_changes: which run? Name its folder with --save_path")
    if not values.init_from:
        cli.reject_flags(values, "needs --init_from", "extend_vocabulary")


def named_config(values: flags.FlagValues, source: TrainedModel | None) -> tuple[str, Config]:
    """Return the name and the configuration of --model, or those of the run that --init_from names if there is no --model."""
    if source and not values["model"].present:
        return source.record["model"], source.config
    return values.model.rpartition(":")[2], find_config(values.model)


def read_corpus(values: flags.FlagValues, config: Config, source: TrainedModel | None) -> Corpus:
    """Read the text of --data_path, with the vocabulary of the run that --init_from names, if any."""
    reading = {"encoding": values.encoding, "extend": values.extend_vocabulary} | config.data.reading
    try:
        return load_corpus(values.data_path, source.vocabulary if source else None, **reading)
    except UnknownTokens as error:
        raise DataError(f"{error}; or add --extend_vocabulary" if source else str(error)) from None


def make_monitoring(values: flags.FlagValues, name: str, corpus: Corpus) -> Monitoring:
    """Return what the flags say of progress and checkpoints; the published score of the name belongs to PTB alone."""
    published = published_scores(name) if corpus.fingerprint() == PTB_FINGERPRINT else None
    return Monitoring(
        checkpoint_seconds=60 * values.checkpoint_minutes,
        report_every=values.report_every,
        sample_every=values.sample_every,
        profile=values.profile,
        live=values.progress == "auto" and can_draw(),
        published_valid=published and published[0],
    )


def train(
    config: Config,
    corpus: Corpus,
    run: RunFolder | str | pathlib.Path,
    *,
    seed: int = 1,
    rnn_mode: str = "auto",
    precision: str = "auto",
    monitoring: Monitoring = Monitoring(),
    rewinds: bool = False,
    resume_with_changes: bool = False,
    init_from: TrainedModel | str | os.PathLike | None = None,
    about: dict | None = None,
) -> dict:
    """Train a configuration to its end, from wherever its run folder is, and score the test text.

    `about` is for config.json: see `complete_about`. With `rewinds`, training that diverges returns to the start of its epoch
    with lower learning rates. With `resume_with_changes` a run goes on although some fields of its configuration differ. A new
    run begins with the weights of the run `init_from`. Return the content of result.json.

    Raises RunError if the folder holds another run or the training ends worse than guessing, DataError if a text is too short,
    DeviceError for a kernel or a precision that the machine does not have, Diverged if training diverges. SIGTERM, SIGHUP and
    Ctrl-C save a checkpoint, then exit.
    """
    run = run if isinstance(run, RunFolder) else RunFolder(run)
    gpus = devices.visible_gpus()
    kernel, chosen = choose_kernel(rnn_mode, config), devices.choose_precision(precision, gpus)

    def make_model():
        product_dtype = devices.use_precision(chosen)
        return build_model(config, len(corpus.vocabulary), seed=seed, rnn_mode=kernel, product_dtype=product_dtype)

    if config.budget_minutes:
        config = within_budget(config, run, make_model, *make_windows(corpus, config)[:2])
    about = complete_about(about or {}, run, text := corpus.fingerprint())
    record = about | {"seed": seed, "precision": precision, "corpus": text, "config": to_json(config)}
    source = init_from if init_from is None or isinstance(init_from, TrainedModel) else load(init_from)
    if source:
        record["init_from"] = describe_source(source, config, corpus.vocabulary)
    replicas.assert_workers_agree(record | dict.fromkeys(about) | {"chosen precision": chosen, "kernel": kernel})
    if run.matches(record, resume_with_changes) and (result := run.result):
        print_line(f"{run.path}: finished, test perplexity {result['test_perplexity']:.3f}; nothing to do")
        return result
    num_windows = len(make_windows(corpus, config)[0])  # rejects a text that is too short before anything is written
    agree = replicas.make_agreement() if replicas.has_many_workers() else None
    progress = Progress(run, config, hyperparameters(record, config), monitoring)
    with run.locked(), StopRequest(agree=agree) as stop, progress:
        changes = run.begin(record, corpus.vocabulary, resume_with_changes)
        count = replicas.num_replicas()
        device = ("GPU" if gpus else "CPU") + (f" × {count}" if count > 1 else "")
        print_line(f"Model: {record['model']} Kernel: {kernel} Precision: {chosen} Device: {device}")
        for path, value in record["overrides"].items():
            print_line(f"Override: {path}={value_text(value)}")
        for change in changes:
            print_line(f"Changed: {change}")
        model = make_model()
        if source and not run.checkpoints.paths():
            initialize(model, source, run, len(corpus.vocabulary))
        for line in describe(config, corpus, model.count_params(), num_windows):
            print_line(line)
        setting = {"precision": chosen, "kernel": kernel, "seed": seed, "replicas": count}
        setting |= {"machine": devices.machine(), "versions": devices.versions(), "git_revision": devices.git_revision(ROOT)}
        while True:
            try:
                state = train_epochs(config, corpus, run, model, setting, stop, progress)
                result = score_test(config, corpus, run, model, state, setting, stop)
                progress.end_run(state, result)
                run.write_json("result.json", result)  # last: from now on the run is finished
                return result
            except Diverged as error:
                if not rewinds:
                    raise
                print_line(error.what)
                step, factor = run.checkpoints.rewind()
                print_line(f"Rewinding to step {step}, learning rates × {factor:g}")


def train_epochs(config, corpus, run, model, setting, stop, progress: Progress) -> TrainState:
    """Train `model` from the run's newest checkpoint to its last epoch, or until patience runs out. Return the state."""
    monitoring = progress.monitoring
    all_windows, valid_windows, _ = make_windows(corpus, config)
    optimizer, stopping = make_optimizer(config.optimizer), config.stopping
    averages = WeightAverages(config.averaging, model.trainable_variables)
    train_step, eval_step = make_train_step(model, config, optimizer, averages), make_eval_step(model)
    next_step = sampling.make_next_step(model)
    mean_of_workers = replicas.make_mean_of_workers()
    variables, recurrent = trained_variables(model, optimizer, averages), model.initial_state(config.batch_size)
    state = TrainState(variables, recurrent, Sums.zero(), stopping.max_loss_ratio)

    def finished():
        out_of_patience = state.window == 0 and state.out_of_patience(stopping.patience)
        return state.epoch > config.num_epochs or out_of_patience

    def validate():
        """Save the run and score the validation text, unless that was done at this step."""
        if state.validated == state.step:
            return
        run.save(state)

        def valid_perplexity():
            with progress.validation(state):
                valid = score(eval_step, model, stop.watch(valid_windows))
            return mean_of_workers(valid.perplexity)  # workers that round differently must still stop at the same step

        reached = averages.validate(valid_perplexity, state.validations)
        progress.validated(state, reached)
        state.record_validation(reached, averages.chosen)
        stop.hint = resume_hint(run, state)
        state.start_clock()

    resume(run, state, finished, setting["precision"])
    stop.hint = resume_hint(run, state)
    progress.start(state, len(all_windows))
    profiling = monitoring.profile and not run.read_only
    steps = profile_steps(train_step, run.path) if profiling else contextlib.nullcontext(train_step)
    with steps as train_step:
        while not finished():
            train_windows = epoch_windows(all_windows, config, setting["seed"], state.epoch)
            progress.begin_epoch(state, len(train_windows), step_rate(config, state, len(train_windows)))
            state.start_clock()
            for inputs, targets in train_windows[state.window :]:
                if is_due(stopping.validate_every, state.step):
                    validate()
                if state.out_of_patience(stopping.patience):
                    break
                state.learning_rate = step_rate(config, state, len(train_windows))
                rate = np.array(state.learning_rate * length_factor(config, inputs), model.dtype)
                dropout_seed = np.array([setting["seed"], state.step], np.int32)
                state.recurrent, state.sums = train_step(inputs, targets, state.recurrent, state.sums, rate, dropout_seed)
                state.advance()
                progress.step(state)
                if is_due(monitoring.sample_every, state.step):
                    text = sampling.sample_text(next_step, model, corpus.vocabulary, config.data.level, seed=state.step)
                    progress.curves.add(SAMPLE, state.step, text)
                stopping_now = stop.requested()
                if stopping_now or state.seconds_since_save() > monitoring.checkpoint_seconds:
                    run.save(state)
                if stopping_now:
                    stop.exit()
            state.check_epoch()
            validate()
            state.check_validation()
            changes = run.changes_between(state.step - state.window, state.step)
            state.history.append(state.epoch_record() | setting | ({"changes": changes} if changes else {}))
            progress.end_epoch(state, state.history[-1])
            state.begin_epoch(model.initial_state(config.batch_size))
            run.save(state)
            run.write_history(state.history)
    if config.keeps_best:
        run.restore_best(state)
    return state


def choose_kernel(rnn_mode: str, config: Config) -> str:
    """Return the name of the kernel for a configuration on this machine; see `ptb.runtime.devices.choose_kernel`."""
    return devices.choose_kernel(rnn_mode, devices.visible_gpus(), config.model.cell, bool(config.dropout.state))


def make_windows(corpus: Corpus, config: Config) -> tuple[Windows, Windows, Windows]:
    """Return the windows of the training, validation and test texts. Raises DataError if one is too short."""
    sizes = config.batch_size, config.num_steps
    return (
        windows(corpus.train, *sizes, burn_in=config.burn_in, name="the training text"),
        validation_windows(corpus.valid, *sizes, name="the validation text"),
        scoring_windows(corpus.test, name="the test text"),
    )


def epoch_windows(all_windows: Windows, config: Config, seed: int, epoch: int) -> Windows:
    """Return the windows of an epoch: the same each time, or shuffled and cut anew as the configuration says."""
    chosen = all_windows
    if config.data.partial_shuffle:
        chosen = chosen.rotated((seed, epoch, 0))
    if config.data.random_lengths:
        chosen = chosen.with_random_lengths(config.num_steps, (seed, epoch, 1))
    return chosen


def score_test(config, corpus, run, model: LanguageModel, state: TrainState, setting, stop) -> dict:
    """Score every prediction of the test text at batch 1. Return the content of `result.json`.

    Products are in float32, as in evaluate.py: the score is that of the weights, wherever they were trained.
    """
    _, valid_windows, test_windows = make_windows(corpus, config)
    model.set_product_dtype(devices.use_precision("float32"))
    scaled = {}
    if config.temperature_scaling:
        scaling = scale_temperature(model, lambda: stop.watch(valid_windows), replicas.make_mean_of_workers())
        require_better_than_guessing(run, None, scaling.unscaled, len(corpus.vocabulary), "valid")
        scaled = {"valid_perplexity": scaling.score.perplexity, "inverse_temperature": scaling.inverse_temperature}
        print_line(f"Inverse Temperature: {scaling.inverse_temperature:g} (valid: {scaling.score.perplexity:.3f})")
    test = score(make_eval_step(model, jit_compile=len(corpus.test) >= LONG_TEXT), model, stop.watch(test_windows))
    print_line(f"Test Perplexity: {test.perplexity:.3f}")
    require_better_than_guessing(run, None if config.keeps_best else state, test, len(corpus.vocabulary))
    result = {
        "test_perplexity": test.perplexity,
        "tokens_scored": test.tokens,
        "protocol": "batch 1, state carried through the whole text, every prediction counted, products in float32",
        "valid_perplexity": state.best_perplexity if config.keeps_best else state.history[-1]["valid_perplexity"],
        "train_perplexity": state.history[state.best_epoch - 1 if config.keeps_best else -1]["train_perplexity"],
        "training_seconds": sum(record["seconds"] for record in state.history),
        **scaled,
        **setting,
        "precision": ", ".join(state.precisions),
    }
    if config.data.level != "word":
        result["test_bits_per_character"] = test.bits
        print_line(f"Test Bits per Character: {test.bits:.4f}")
    if config.keeps_best:
        result["best_step"] = state.best_step
        print_line(f"These are the weights of step {state.best_step}, the best on the validation text")
    elif line := overfitting(run, state):
        print_line(line)
    return result


def print_floor(reached: float) -> None:
    """Print how far a perplexity is above the exact perplexity of the grammar that wrote the built-in corpus."""
    floor = grammar.perplexity(grammar.demo_text().test)
    print_line(
        f"Floor: {floor:.3f}, the perplexity of the grammar that wrote the text; this model: {reached / floor - 1:.1%} above"
    )


def hyperparameters(record: dict, config: Config) -> dict:
    """Return what TensorBoard shows in its table of runs."""
    return {name: record[name] for name in ("model", "seed", "precision", "data_path")} | flatten(config)


if __name__ == "__main__":
    cli.run(main, define_flags)
