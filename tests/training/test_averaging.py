"""Averages of weights against NumPy: means over iterates, when they start again or switch, and what is validated and kept."""

import itertools
import json
import math

import keras
import numpy as np
import pytest

import ptb
import train
from configs import TEST
from helpers import run_files
from helpers.training_runs import NEVER, StopAt, begin
from ptb.config import Adam, Cosine, Data, Dropout, override
from ptb.data.windows import scoring_windows
from ptb.evaluation.score import make_eval_step, score
from ptb.runs.folder import RunFolder
from ptb.training.averaging import WeightAverages


class Walk:
    """Weights that move at random, their averages, and the iterates for NumPy."""

    def __init__(self, kind):
        self.rng = np.random.default_rng(0)
        self.weights = [
            keras.Variable(np.zeros(shape), dtype="float64", name=name) for name, shape in (("v", [2]), ("m", [2, 3]))
        ]
        self.averages = WeightAverages(kind, self.weights)
        self.iterates, self.validations = [], []

    def move(self, steps):
        for _ in range(steps):
            for weight in self.weights:
                weight.assign_add(self.rng.normal(size=weight.shape))
            self.averages.update()
            self.iterates.append(self.values())

    def values(self):
        return [weight.numpy().copy() for weight in self.weights]

    def validate(self, *results):
        """Validate with these results in turn. Return what was reached, and the weights that were scored."""
        scored, remaining = [], list(results)

        def perplexity_of():
            scored.append(self.values())
            return remaining.pop(0)

        before = self.values()
        reached = self.averages.validate(perplexity_of, self.validations)
        assert_equal(self.values(), before)
        assert not remaining
        self.validations.append(reached)
        return reached, scored

    def chosen(self):
        return list(self.averages.chosen().values())

    def mean(self, first, last=None):
        """Return the mean of the iterates from number `first` on, counted from 0."""
        return [np.mean(arrays, 0) for arrays in zip(*self.iterates[first:last])]


def assert_equal(arrays, expected):
    for got, wanted in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)  # the share of an iterate is a float32


def test_without_averages_the_weights_are_validated_and_kept():
    walk = Walk("none")
    walk.move(3)
    assert walk.averages.variables() == {}
    reached, (scored,) = walk.validate(7.0)
    assert reached == 7
    assert_equal(scored, walk.iterates[-1])
    assert walk.averages.chosen() == {}  # the checkpoint has them


def test_two_tailed_the_short_average_replaces_the_long_one_if_it_is_as_good_and_starts_again():
    walk = Walk("two_tailed")
    walk.move(4)
    reached, (scored,) = walk.validate(9.0)  # both are the same at first
    assert_equal(scored, walk.mean(0))
    assert reached == 9
    assert_equal(walk.chosen(), walk.mean(0))

    walk.move(3)
    reached, (long, short) = walk.validate(7.0, 8.0)  # the long one stays, and takes every iterate
    assert reached == 7
    assert_equal(short, walk.mean(4))
    assert_equal(long, walk.mean(0))
    assert_equal(walk.chosen(), walk.mean(0))

    walk.move(2)
    reached, (long, short) = walk.validate(6.5, 6.0)  # the short one has run since the validation before the last
    assert reached == 6
    assert_equal(short, walk.mean(4))
    assert_equal(long, walk.mean(0))
    assert_equal(walk.chosen(), walk.mean(4))

    walk.move(1)
    reached, _ = walk.validate(6.0, math.nan)
    assert reached == 6
    assert_equal(walk.chosen(), walk.mean(4))

    _, (long, short) = walk.validate(6.0, 6.0)
    assert_equal(short, walk.mean(9))
    assert_equal(long, walk.mean(4))
    assert_equal(walk.chosen(), walk.mean(9))


def reference_switch(perplexities, nonmono=5):
    """Return the number of the validation at which AWD-LSTM's main.py switches to ASGD, counted from 0; None if it does not."""
    best_val_loss = []
    for number, val_loss in enumerate(perplexities):
        if len(best_val_loss) > nonmono and val_loss > min(best_val_loss[:-nonmono]):
            return number
        best_val_loss.append(val_loss)
    return None


@pytest.mark.parametrize(
    "perplexities",
    [
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0.5],
        [5, 9, 9, 9, 9, 9, 9, 9],
        [9, 8, 7, 7.5, 7.4, 7.3, 7.2, 7.1, 7.05, 7.01],
        [9, 8, 7, 6, 6.5, 6.5, 6.5, 6.5, 6.5, 6.5],
        [9, 8, 7, 6, 5, 5, 5, 5, 5, 5, 5, 5],  # as good is not worse
    ],
)
def test_nt_asgd_starts_as_in_the_original_and_takes_every_iterate_from_then_on(perplexities):
    walk, switch = Walk("nt_asgd"), reference_switch(perplexities)
    for number, perplexity in enumerate(perplexities):
        walk.move(2)
        reached, (scored,) = walk.validate(perplexity)
        is_average = switch is not None and number > switch
        expected = walk.mean(2 * switch + 2) if is_average else walk.iterates[-1]
        assert reached == perplexity
        assert_equal(scored, expected)
        if is_average:
            assert_equal(walk.chosen(), expected)
        else:  # the weights of training, which the checkpoint has
            assert walk.averages.chosen() == {}


@pytest.mark.parametrize("kind", ["two_tailed", "nt_asgd"])
def test_a_score_that_is_interrupted_leaves_the_weights(kind):
    walk = Walk(kind)
    walk.averages.active.assign(1.0)
    walk.move(3)
    before = walk.values()

    def interrupted():
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        walk.averages.validate(interrupted, [])
    assert_equal(walk.values(), before)


def test_the_variables_have_names_of_their_own_and_cover_everything():
    walk = Walk("two_tailed")
    names = {f"average/{name}/{part}" for name, part in itertools.product(("short", "before"), ("count", "v", "m"))}
    assert walk.averages.variables().keys() == names | {"average/active"}


# Runs.

LADDER = override(
    TEST,
    {
        "layers": (6,),
        "cell": "capped_lstm",
        "tied": True,
        "dropout": Dropout(input=0.2, state=0.2, output=0.2, weights=0.2, embedding=0.1, locked=True),
        "optimizer": Adam(learning_rate=0.02, beta1=0.0, clip_norm=1),
        "schedule": Cosine(warmup=0.1),
        "data": Data(partial_shuffle=True, random_lengths=True),
        "batch_size": 10,
        "num_steps": 5,
        "num_epochs": 2,
        "ar": 1.0,
        "tar": 1.0,
        "validate_every": 4,
    },
)
NT_ASGD = {"averaging": "nt_asgd", "optimizer": "SGD", "learning_rate": 5.0, "weight_decay": 1e-3, "schedule": "StepDecay"}
CONFIGS = {
    "two_tailed": override(LADDER, {"averaging": "two_tailed"}),
    "nt_asgd": override(LADDER, NT_ASGD | {"random_lengths": False, "num_epochs": 5, "validate_every": 2}),
}
STOPS = {"two_tailed": {"scores": 2}, "nt_asgd": {"steps": 37}}  # between the scores of the two averages; within an epoch


class StopIn(StopAt):
    """A request to stop that comes after so many steps, or within the score of a text after so many scores."""

    def __init__(self, steps=NEVER, scores=NEVER):
        super().__init__(steps)
        self.scores = scores

    def watch(self, windows):
        for window in windows:
            if self.scores == 0:
                self.exit()
            yield window
        self.scores -= 1


def finish(config, corpus, folder, model, state):
    """Score the test text, as train.py does at the end, and write the result."""
    run = RunFolder(folder)
    run.write_json("result.json", train.score_test(config, corpus, run, model, state, {}, StopAt()))


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS])
def unbroken(request, random_corpus, tmp_path_factory):
    """A finished run with averages: its configuration, folder, model and state."""
    folder, config = tmp_path_factory.mktemp("averages") / "run", CONFIGS[request.param]
    model, state = begin(config, random_corpus, folder)
    finish(config, random_corpus, folder, model, state)
    return config, folder, model, state


def averages_of(folder):
    """Return the arrays of the averages and of the best weights in the newest checkpoint by name."""
    newest = sorted(folder.glob("checkpoint-*.npz"))[-1]
    with np.load(newest) as arrays:
        return {name: arrays[name] for name in arrays.files if name.startswith(("average/", "best/", "optimizer/"))}


def test_a_run_that_stops_in_the_middle_of_its_averages_goes_on_bit_for_bit(unbroken, random_corpus, tmp_path):
    config, expected, _, _ = unbroken
    with pytest.raises(SystemExit):
        begin(config, random_corpus, tmp_path, StopIn(**STOPS[config.averaging]))
    assert averages_of(tmp_path)["average/active"] == 1
    model, state = begin(config, random_corpus, tmp_path)
    finish(config, random_corpus, tmp_path, model, state)
    run_files.assert_same_run(tmp_path, expected)
    ours, theirs = averages_of(tmp_path), averages_of(expected)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)


def test_the_best_validated_average_is_what_scores_the_test_and_what_other_commands_open(unbroken, random_corpus):
    config, folder, model, state = unbroken
    averages = averages_of(folder)
    assert averages["average/active"] == 1
    assert state.best_perplexity == min(state.validations)
    _, valid_windows, _ = train.make_windows(random_corpus, config)
    step = make_eval_step(model)
    assert score(step, model, valid_windows).perplexity == pytest.approx(state.best_perplexity, rel=1e-6)
    best = {name.removeprefix("best/"): array for name, array in averages.items() if name.startswith("best/")}
    newest = run_files.weights(folder)
    for variable in model.trainable_variables:
        name = f"weights/{variable.path}"
        np.testing.assert_array_equal(variable, best[name])
        assert not np.array_equal(variable, newest[name])
    expected = score(step, model, scoring_windows(random_corpus.test)).perplexity
    assert run_files.result(folder)["test_perplexity"] == pytest.approx(expected, rel=1e-5)
    for ours, theirs in zip(model.get_weights(), ptb.load(folder).model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert math.isfinite(expected)
    assert json.loads((folder / "result.json").read_text())["best_step"] == state.best_step
