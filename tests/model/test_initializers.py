"""Initial weights as in PyTorch's modules and in lamb: bounds and standard deviations."""

import numpy as np
import pytest

from ptb.config import Model
from ptb.model.language_model import LanguageModel

SIZES = {"layers": (300, 200), "embedding_size": 200, "tied": True}


def weights(**options):
    """Return the initial weights of a model by name."""
    model = LanguageModel(2000, Model(**SIZES | options))
    return {variable.path.removeprefix("language_model/"): variable.numpy() for variable in model.trainable_variables}


def assert_uniform(values, scale):
    assert np.abs(values).max() <= scale + 1e-7
    assert values.std() == pytest.approx(scale / np.sqrt(3), rel=0.05)


def assert_truncated_normal(values, stddev):
    """A normal distribution that is cut at two standard deviations keeps 0.88 of one."""
    assert values.std() == pytest.approx(stddev, rel=0.05)
    assert np.abs(values).max() == pytest.approx(2 * stddev / 0.8796, rel=0.05)


def test_torch():
    """nn.LSTM: everything in ± 1 / √units, both biases too. word_language_model and AWD-LSTM: embedding in ± 0.1, bias 0."""
    start = weights(initializers="torch", init_scale=0.1, two_biases=True)
    assert_uniform(start["embedding"], 0.1)
    assert not start["softmax_bias"].any()
    for layer, units in (("lstm_0", 300), ("lstm_1", 200)):
        for name in ("kernel", "recurrent_kernel", "bias", "recurrent_bias"):
            assert_uniform(start[f"{layer}/{name}"], units**-0.5)


def test_the_projection_of_torch_starts_as_nn_linear():
    """± 1 / √fan-in, the bias too: main.py of zihangdai/mos initialises the embedding and the softmax alone."""
    start = weights(initializers="torch", layers=(400,), embedding_size=200, mixture=4)
    for name in ("projection", "projection_bias", "priors"):
        assert_uniform(start[name], 400**-0.5)


def test_lamb():
    """The variance is 1 / fan-in after the truncation, because lamb draws with 1.3 times that: utils.py."""
    start = weights(initializers="lamb", forget_bias=1.0)
    assert_truncated_normal(start["embedding"], 200**-0.5)
    assert not start["softmax_bias"].any()
    for layer, inputs, units in (("lstm_0", 200, 300), ("lstm_1", 300, 200)):
        assert_truncated_normal(start[f"{layer}/kernel"], inputs**-0.5)
        assert_truncated_normal(start[f"{layer}/recurrent_kernel"], units**-0.5)
        assert_truncated_normal(start[f"{layer}/bias"] - np.repeat([0, 1, 0, 0], units), units**-0.5)


def test_the_projection_of_lamb_is_orthogonal():
    start = weights(initializers="lamb", layers=(30,), embedding_size=20, projection="affine")
    np.testing.assert_allclose(start["projection"].T @ start["projection"], np.eye(20), atol=1e-5)
    assert not start["projection_bias"].any()


@pytest.mark.parametrize("kind", ["torch", "lamb"])
def test_the_seed_decides_the_weights_and_no_two_are_equal(kind):
    def start(seed):
        architecture = Model(layers=(4, 4), cell="mogrifier_lstm", mogrifier_rank=4, initializers=kind, two_biases=True)
        return LanguageModel(9, architecture, seed=seed).get_weights()

    drawn = [array for array in start(1) if array.any()]
    assert len(drawn) > 20
    assert len({array.tobytes() for array in drawn}) == len(drawn)
    for one, same in zip(start(1), start(1), strict=True):
        np.testing.assert_array_equal(one, same)
    assert not {array.tobytes() for array in start(2)} & {array.tobytes() for array in drawn}
