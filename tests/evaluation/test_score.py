"""Scores of texts against a scorer in NumPy, whatever the windows; ranks and perplexities by hand."""

import math

import numpy as np
import pytest

from helpers import oracle, placement
from ptb.config import Model
from ptb.data.windows import scoring_windows, windows
from ptb.evaluation.score import Score, make_eval_step, make_rank_step, perplexity, score, score_windows
from ptb.model.language_model import LanguageModel

TOKENS = np.random.default_rng(0).integers(0, 30, 101).astype(np.int32)


def new_model(layers=(8, 8), seed=0, rnn_mode="stepwise"):
    return LanguageModel(30, Model(layers=layers, init_scale=0.7), seed=seed, rnn_mode=rnn_mode)


def numpy_losses(model, tokens):
    return oracle.language_model_losses(oracle.weights_of(model), tokens[np.newaxis, :-1], tokens[np.newaxis, 1:])[0]


@pytest.mark.parametrize("window", [1, 7, 50, 500])
def test_every_prediction_counts_once_whatever_the_window(window):
    model = new_model()
    scored = score(make_eval_step(model), model, windows(TOKENS, 1, window, drop_remainder=False))
    assert scored.tokens == 100
    assert scored.loss == pytest.approx(numpy_losses(model, TOKENS).sum(), rel=1e-5)
    assert scored.perplexity == pytest.approx(math.exp(numpy_losses(model, TOKENS).mean()), rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_losses_are_those_of_each_target_in_order(jit_compile):
    model = new_model(layers=(5, 3))
    step = make_eval_step(model, jit_compile)
    losses = score_windows(step, model, windows(TOKENS, 1, 40, drop_remainder=False))
    assert losses.shape == (1, 100)
    np.testing.assert_allclose(losses[0], numpy_losses(model, TOKENS), rtol=1e-4)
    (inputs, targets), *_ = scoring_windows(TOKENS)
    _, state = step(inputs, targets, model.initial_state(1))
    _, expected = model(inputs, model.initial_state(1))
    for layer, wanted in zip(state, expected, strict=True):
        np.testing.assert_allclose(layer.hidden, wanted.hidden, rtol=1e-4, atol=1e-6)


def test_each_row_of_a_batch_is_a_text_of_its_own():
    model = new_model()
    losses = score_windows(make_eval_step(model), model, windows(TOKENS, 4, 6))
    for row, ids in zip(losses, TOKENS[:100].reshape(4, 25), strict=True):
        np.testing.assert_allclose(row, numpy_losses(model, ids), rtol=1e-4)


def test_one_step_is_traced_for_windows_of_every_shape():
    model = new_model()
    step = make_eval_step(model)
    for batch_size, num_steps in ((1, 7), (1, 9), (4, 6)):
        score(step, model, windows(TOKENS, batch_size, num_steps))
    assert step.experimental_get_tracing_count() == 1


def test_ranks_by_hand():
    model = new_model()
    ranks = score_windows(make_rank_step(model), model, windows(TOKENS, 1, 40, drop_remainder=False))[0]
    logits, _ = model(TOKENS[np.newaxis, :-1], model.initial_state(1))
    order = np.argsort(-logits.numpy()[0], axis=-1)
    np.testing.assert_array_equal(ranks, [1 + list(row).index(target) for row, target in zip(order, TOKENS[1:])])


def test_equally_likely_words_share_a_rank():
    model = new_model()
    model.softmax_weights.assign(np.zeros([30, 8]))
    model.softmax_bias.assign(np.float32([1, 1] + [0] * 28))
    ranks = score_windows(make_rank_step(model), model, windows(np.int32([5, 0, 1, 9]), 1, 3))[0]
    assert ranks.tolist() == [1, 1, 3]


def test_perplexity_of_a_uniform_guess_and_of_what_no_float_holds():
    assert perplexity(100 * math.log(50), 100) == pytest.approx(50)
    assert perplexity(1e6, 1) == math.inf
    assert Score(100 * math.log(8), 100).bits == pytest.approx(3)
    assert Score(100 * math.log(8), 100).perplexity == pytest.approx(8)


@pytest.mark.skipif(not placement.knows_gpus(), reason="this TensorFlow was built without GPUs")
@pytest.mark.parametrize("make_step", [make_eval_step, make_rank_step])
def test_scoring_would_ask_a_gpu_for_nothing_before_the_end(make_step, monkeypatch):
    monkeypatch.setattr("ptb.model.language_model.visible_gpus", lambda: ["a GPU"])
    graph = make_step(new_model(rnn_mode="cudnn")).get_concrete_function().graph
    assert placement.returns_to_host(graph) == []
    (features,) = graph._functions.values()
    assert "CudnnRNNV3" in {operation.type for operation in features.graph.get_operations()}
