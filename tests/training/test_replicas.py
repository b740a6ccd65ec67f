"""Every technique of later papers trains on two replicas as on one; tests/runtime/test_replicas.py has those of before."""

import numpy as np
import pytest

from configs import TEST
from helpers import processes, run_files
from helpers.replica_runs import train_on_one_and_on_two
from ptb.config import Adam, Dropout, override

COMMON = {"batch_size": 8, "num_steps": 3, "num_epochs": 2, "layers": (6, 6), "tied": True}
ALL_PLACES = Dropout(input=0.2, hidden=0.2, output=0.2, projected=0.2, state=0.2, embedding=0.2, weights=0.2)
CONFIGS = {
    "sgd": override(
        TEST,
        COMMON
        | {"cell": "capped_lstm", "sum_layers": True, "projection": "affine", "embedding_size": 5, "initializers": "lamb"}
        | {"dropout": ALL_PLACES, "dropout.locked": True, "averaging": "two_tailed"}
        | {"learning_rate": 0.5, "weight_decay": 1e-2, "l2": 1e-3, "projection_l2": 1e-2, "ar": 1.0, "tar": 1.0},
    ),
    "adam": override(
        TEST,
        COMMON
        | {
            "cell": "mogrifier_lstm",
            "mogrifier_rounds": 2,
            "mogrifier_rank": 2,
            "embedding_size": 5,
            "mixture": 2,
            "layers": (6,),
        }
        | {"dropout": ALL_PLACES, "optimizer": Adam(learning_rate=1e-3, beta1=0.0), "averaging": "nt_asgd"}
        | {"reduction": "mean", "partial_shuffle": True, "schedule": "Plateau"},
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("replicas"), np.random.default_rng(0)
    for split, count in (("train", 40), ("valid", 20), ("test", 10)):
        lines = [" ".join(rng.choice(list("abcdefgh"), 7)) + "\n" for _ in range(count)]
        (folder / f"{split}.txt").write_text("".join(lines))
    process = processes.context.Process(target=train_on_one_and_on_two, args=(CONFIGS, str(folder), str(folder)))
    process.start()
    process.join(300)
    assert process.exitcode == 0, (folder / "stderr").read_text()[-3000:]
    return folder


def arrays_of(run):
    """Return the weights, averages and statistics of the optimiser in the newest checkpoint by name."""
    newest = sorted(run.glob("checkpoint-*.npz"))[-1]
    with np.load(newest) as arrays:
        groups = ("weights/", "average/", "best/", "optimizer/", "carried/state/")
        return {name: arrays[name] for name in arrays.files if name.startswith(groups)}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_two_replicas_train_like_one(folder, name):
    """Weights, averages and state within rounding, which Adam divides by a gradient's own size."""
    one, two = (folder / f"{name}-{count}" for count in (1, 2))
    expected, reached = arrays_of(one), arrays_of(two)
    assert reached.keys() == expected.keys()
    tolerance = 1e-5 if name == "sgd" else 1e-4
    for path, array in expected.items():
        np.testing.assert_allclose(reached[path], array, atol=tolerance * np.abs(array).max(), rtol=0, err_msg=path)
    for ours, theirs in zip(run_files.history(two), run_files.history(one), strict=True):
        for quantity in ("train_perplexity", "valid_perplexity", "mean_gradient_norm"):
            assert ours[quantity] == pytest.approx(theirs[quantity], rel=tolerance)
