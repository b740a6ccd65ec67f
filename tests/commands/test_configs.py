"""The named configurations against the paper, and those of a user's file."""

import numpy as np
import pytest

import train
from configs import CONFIGS, find_config
from ptb.config import SGD, Config, ConfigError, Dropout, Model, StepDecay, differences, override
from ptb.data.corpus import Corpus
from ptb.data.vocabulary import Vocabulary
from ptb.model.language_model import build_model

# Zaremba et al. (2014), section 4.1. The last row is the smoke test of TensorFlow 1's tutorial.
TABLE = """
name   | init | rate | clip | layers | steps | hidden | full-rate epochs | epochs | keep | decay    | batch
small  | .1   | 1    | 5    | 2      | 20    | 200    | 4                | 13     | 1.0  | 1 / 2    | 20
medium | .05  | 1    | 5    | 2      | 35    | 650    | 6                | 39     | .5   | 1 / 1.2  | 20
large  | .04  | 1    | 10   | 2      | 35    | 1500   | 14               | 55     | .35  | 1 / 1.15 | 20
test   | .1   | 1    | 1    | 1      | 2     | 2      | 1                | 1      | 1.0  | 1 / 2    | 20
"""
# Table 1 of the same: averaged models, perplexity of the validation text, of the test text.
PUBLISHED = """
small  |  1 | 120.7 | 114.5
small  |  2 | 100.4 |  96.1
small  |  5 |  87.9 |  84.1
small  | 10 |  83.5 |  80.0
medium |  1 |  86.2 |  82.7
medium |  2 |  80.6 |  77.0
medium |  5 |  76.7 |  73.3
medium | 10 |  75.2 |  72.0
large  |  1 |  82.2 |  78.4
large  |  2 |  76.9 |  73.6
large  | 10 |  72.8 |  69.5
large  | 38 |  71.9 |  68.7
"""


def cells_of(row):
    return [cell.strip() for cell in row.split("|")]


@pytest.mark.parametrize("row", TABLE.strip().splitlines()[1:], ids=lambda row: cells_of(row)[0])
def test_the_published_configurations_have_the_papers_values_and_no_other_option(row):
    name, init_scale, rate, clip, layers, steps, hidden, full_rate, epochs, keep, decay, batch = cells_of(row)
    dividend, divisor = map(float, decay.split("/"))
    assert CONFIGS[name].config == Config(
        model=Model(layers=[int(hidden)] * int(layers), init_scale=float(init_scale)),
        dropout=Dropout.everywhere(1 - float(keep)),
        optimizer=SGD(learning_rate=float(rate), clip_norm=float(clip)),
        schedule=StepDecay(full_rate_epochs=int(full_rate), factor=dividend / divisor),
        batch_size=int(batch),
        num_steps=int(steps),
        num_epochs=int(epochs),
    )


def test_published_perplexities_are_the_papers():
    published = {}
    for row in PUBLISHED.strip().splitlines():
        name, models, valid, test = cells_of(row)
        published.setdefault(name, {})[int(models)] = (float(valid), float(test))
    assert {name: dict(CONFIGS[name].published) for name in published} == published


# Later papers and programs (../shared/REFERENCE.md, section 4): perplexity of valid (– if none) and test, parameters.
LATER = """
small_tied              | 117.5 | 112.4  |  2,651,600
small_tied_projected    | 104.9 | 100.9  |  2,691,800
variational_medium      |  81.9 |  79.7  | 19,780,400
variational_large       |  77.9 |  75.2  | 66,034,000
word_language_model_200 |  90.7 |  87.1  |  2,653,200
word_language_model_650 |     – |  75.96 | 13,280,400
melis_10m               |  61.8 |  59.6  |  9,997,280
awd_lstm                |  61.2 |  58.8  | 24,221,600
mogrifier_24m           |  52.1 |  51.0  | 23,986,480
mos                     |  58.1 |  56.0  |          –
"""


def test_published_numbers_after_2014_are_those_of_the_sources():
    published, parameters = {}, {}
    for row in LATER.strip().splitlines():
        name, *cells = cells_of(row)
        valid, test, count = [None if cell == "–" else float(cell.replace(",", "")) for cell in cells]
        published[name], parameters[name] = {1: (valid, test)}, count
    zarembas = {"small", "medium", "large"}
    assert {n: dict(named.published) for n, named in CONFIGS.items() if named.published and n not in zarembas} == published
    assert {n: CONFIGS[n].parameters for n in parameters} == parameters


# Recipes of later papers and programs (../shared/REFERENCE.md, section 4), with every rate of dropout. One epoch of PTB has 414
# windows of 64 × 35 tokens, and 207 of 64 × 70: 1,000 of lamb's turns are 240 epochs of melis_10m, and 960 of the larger ones.
LAMB = {"tied": True, "clip_norm": 10, "beta1": 0, "beta2": 0.999, "epsilon": 1e-8, "averaging": "two_tailed", "batch_size": 64}
LAMB_24M = LAMB | {"sum_layers": True, "num_steps": 70, "num_epochs": 960, "schedule": StepDecay()}  # a constant rate
AWD = {
    **{"tied": True, "initializers": "torch", "init_scale": 0.1, "two_biases": True, "forget_bias": 0, "averaging": "nt_asgd"},
    **{"clip_norm": 0.25, "weight_decay": 1.2e-6, "reduction": "mean", "ar": 2, "tar": 1, "random_lengths": True},
}
PYTORCH = {
    **{"tied": True, "learning_rate": 20, "clip_norm": 0.25, "reduction": "mean", "factor": 0.25, "patience_to_decay": 1},
    **{"batch_size": 20, "num_steps": 35, "num_epochs": 40},
}
GAL = {"two_biases": True, "weight_decay": 1e-7, "tied": False}  # large: main_new_dropout_SOTA_v3.lua; medium: from memory
RECIPES = {
    "variational_medium": GAL
    | {"dropout": Dropout(embedding=0.2, input=0.35, hidden=0.35, state=0.2, output=0.35, locked=True)},
    "variational_large": GAL
    | {
        **{"layers": (1500, 1500), "init_scale": 0.04, "learning_rate": 1, "clip_norm": 10, "full_rate_epochs": 11},
        **{"factor": 1 / 1.15, "batch_size": 20, "num_steps": 35, "num_epochs": 55},
        "dropout": Dropout(embedding=0.3, input=0.5, hidden=0.5, state=0.3, output=0.5, locked=True),
    },
    "small_tied": {"tied": True, "projection": "none", "dropout": Dropout()},
    "small_tied_projected": {"tied": True, "projection": "affine", "projection_l2": 1 / (20 * 6.5), "dropout": Dropout()}
    | {"batch_size": 20},
    "word_language_model_200": PYTORCH | {"layers": (200, 200), "dropout": Dropout.everywhere(0.2)},
    "word_language_model_650": PYTORCH | {"layers": (650, 650), "dropout": Dropout.everywhere(0.5)},
    "melis_10m": LAMB
    | {
        **{"layers": (1194,), "embedding_size": 268, "projection": "linear", "learning_rate": 0.0041787, "l2": 1.2435e-4},
        **{"dropout": Dropout(input=0.580, state=0.215, output=0.327, projected=0.327), "num_steps": 35, "num_epochs": 240},
        **{"factor": 0.1, "patience_to_decay": 26 * 100 // 414},
    },
    "lamb_lstm_24m": LAMB_24M
    | {
        **{"cell": "capped_lstm", "layers": (951, 951), "learning_rate": 0.0030369, "l2": 2.4908e-4},
        "dropout": Dropout(input=0.6276, hidden=0.3070, state=0.3692, output=0.6902),
    },
    "mogrifier_24m": LAMB_24M
    | {
        **{"cell": "mogrifier_lstm", "layers": (912, 912), "learning_rate": 0.0023, "l2": 2.5235e-4},
        **{"mogrifier_rounds": 5, "mogrifier_rank": 84},
        "dropout": Dropout(input=0.7291, hidden=0.2910, state=0.3873, output=0.7157),
    },
    "awd_lstm": AWD
    | {
        **{"layers": (1150, 1150, 400), "embedding_size": 400, "learning_rate": 30},
        "dropout": Dropout(embedding=0.1, input=0.4, hidden=0.25, weights=0.5, output=0.4, locked=True),
        **{"batch_size": 20, "num_steps": 70, "num_epochs": 500},
    },
    "mos": AWD
    | {
        **{"layers": (960, 960, 620), "embedding_size": 280, "mixture": 15, "learning_rate": 20},
        "dropout": Dropout(embedding=0.1, input=0.4, hidden=0.225, weights=0.5, output=0.4, projected=0.29, locked=True),
        **{"batch_size": 12, "num_steps": 70, "num_epochs": 1000},
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_later_configuration_has_the_settings_of_its_source(name):
    config = CONFIGS[name].config
    assert differences(override(config, RECIPES[name]), config) == {}


@pytest.mark.parametrize("name", ["small", "medium", "large", "test"])
def test_parameter_counts_are_the_published_ones(name):
    config, parameters = CONFIGS[name].config, CONFIGS[name].parameters
    vocab_size, hidden = 10_000, config.model.layers[0]
    layer = 4 * (hidden * hidden + hidden * hidden + hidden)
    assert parameters == vocab_size * hidden + len(config.model.layers) * layer + vocab_size * hidden + vocab_size
    model = build_model(config, vocab_size)
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == parameters


def test_every_configuration_has_a_source_and_a_variant_has_the_name_of_its_base():
    for name, named in CONFIGS.items():
        assert named.source
        if named.base:
            base = CONFIGS[named.base]
            assert base.published and not base.base and not named.published
            assert name.startswith(named.base)
            assert differences(named.config, base.config)


def test_no_two_names_stand_for_the_same_configuration():
    configs = [named.config for named in CONFIGS.values()]
    assert len(set(configs)) == len(configs)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("small_lua_decay", {"schedule.full_rate_epochs": 5}),
        ("small_two_biases", {"model.two_biases": True}),
        ("small_lua_decay_two_biases", {"schedule.full_rate_epochs": 5, "model.two_biases": True}),
        ("medium_tutorial_decay", {"schedule.factor": 0.8}),
        ("medium_two_biases", {"model.two_biases": True}),
        ("medium_lua_decay_two_biases", {"schedule.full_rate_epochs": 7, "model.two_biases": True}),
        ("large_two_biases", {"model.two_biases": True}),
        ("large_lua_decay_two_biases", {"schedule.full_rate_epochs": 15, "model.two_biases": True}),
        ("small_sampled", {"loss.softmax_samples": 1000}),
        ("small_tied_projected_no_bias", {"model.projection": "linear"}),
    ],
)
def test_a_variant_differs_from_its_base_as_its_name_says(name, changes):
    named = CONFIGS[name]
    assert differences(named.config, CONFIGS[named.base].config) == changes


@pytest.mark.parametrize("config", [named.config for named in CONFIGS.values()], ids=CONFIGS)
def test_windows_have_the_sizes_of_the_configuration(config):
    text = np.arange(10_000, dtype=np.int32)
    train_windows, valid_windows, _ = train.make_windows(Corpus(Vocabulary(("<eos>",)), text, text, text), config)
    (inputs, targets), (following, _) = train_windows[0], train_windows[1]
    assert inputs.shape == targets.shape == (config.batch_size, config.burn_in + config.num_steps)
    np.testing.assert_array_equal(targets, inputs + 1)
    np.testing.assert_array_equal(following, inputs + config.num_steps)
    assert valid_windows[0][0].shape == (config.batch_size, config.num_steps)


@pytest.mark.parametrize(
    ("name", "changes", "kernel"),
    [
        ("medium", {}, "cudnn"),
        ("medium", {"dropout.state": 0.1}, "stepwise"),
        ("awd_lstm", {}, "cudnn"),
        ("melis_10m", {}, "stepwise"),
        ("mogrifier_24m", {}, "stepwise"),
    ],
)
def test_the_kernel_that_a_configuration_would_have_on_a_gpu(name, changes, kernel, monkeypatch):
    monkeypatch.setattr("ptb.runtime.devices.visible_gpus", lambda: ["a GPU"])
    assert train.choose_kernel("auto", override(CONFIGS[name].config, changes)) == kernel


@pytest.mark.parametrize("name", CONFIGS)
def test_find_config_takes_a_name(name):
    assert find_config(name) == CONFIGS[name].config


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from configs import SMALL, override\nMINE = override(SMALL, {'num_epochs': 3})\nNUMBER = 3\n")
    return path


def test_find_config_takes_a_file_of_the_users(file, monkeypatch):
    expected = find_config(f"{file}:MINE")
    assert differences(expected, CONFIGS["small"].config) == {"num_epochs": 3}
    monkeypatch.chdir(file.parent)
    assert find_config("mine.py:MINE") == expected
    monkeypatch.setenv("HOME", str(file.parent))
    assert find_config("~/mine.py:MINE") == expected


def test_a_file_of_the_users_may_define_dataclasses(file):
    """Whose annotations `dataclasses` looks up in `sys.modules` if they are strings."""
    head = (
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass Rates:\n    low: float = 0.5\n"
    )
    file.write_text(head + "from configs import SMALL, override\nMINE = override(SMALL, {'learning_rate': Rates().low})\n")
    assert find_config(f"{file}:MINE").optimizer.learning_rate == 0.5


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("smal", ["smal", "small", "medium", "mine.py:NAME"]),
        ("", ["small"]),
        ("mine.py", ["mine.py"]),
        ("missing.py:MINE", ["missing.py"]),
        (".:MINE", ["mine.py:NAME"]),
        ("notes.txt:MINE", ["notes.txt"]),
        ("mine.py:YOURS", ["mine.py", "YOURS", "MINE", "SMALL"]),
        ("mine.py:NUMBER", ["NUMBER"]),
        ("mine.py:", ["mine.py", "MINE"]),
        ("empty.py:MINE", ["empty.py", "MINE"]),
        ("wrong.py:MINE", ["num_epochs"]),
    ],
)
def test_a_configuration_that_does_not_exist_is_one_line(file, name, facts, monkeypatch):
    monkeypatch.chdir(file.parent)
    (file.parent / "notes.txt").touch()
    (file.parent / "empty.py").touch()
    (file.parent / "wrong.py").write_text("from ptb.config import Config\nMINE = Config(num_epochs=0)\n")
    with pytest.raises(ConfigError) as caught:
        find_config(name)
    assert "\n" not in str(caught.value)
    for fact in facts:
        assert fact in str(caught.value)


def test_an_error_in_the_users_file_passes_through(tmp_path):
    (tmp_path / "mine.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        find_config(f"{tmp_path / 'mine.py'}:MINE")
