"""How a training ended: the limit of what chance explains."""

import contextlib
import math
import types

import pytest

from helpers.texts import raises_one_line
from ptb.evaluation.score import Score
from ptb.runs.folder import RunFolder
from ptb.runs.outcome import require_better_than_guessing
from ptb.runs.storage import RunError

WORDS = 50
STATE = types.SimpleNamespace(best_perplexity=20.0, best_step=3, step=9)


@pytest.mark.parametrize("tokens", [16, 10_000])
def test_a_loss_may_be_four_nats_by_the_root_of_the_tokens_above_guessing(tokens, tmp_path):
    limit = math.log(WORDS) + 4 / math.sqrt(tokens)
    for share in (0.999, 1.001):
        fails = raises_one_line(RunError, tmp_path, "learning_rate") if share > 1 else contextlib.nullcontext()
        with fails:
            require_better_than_guessing(RunFolder(tmp_path), None, Score(share * limit * tokens, tokens), WORDS)


@pytest.mark.parametrize(
    ("changes", "is_named"), [({}, True), ({"best_perplexity": 60.0}, False), ({"best_step": 9}, False)], ids=str
)
def test_a_better_earlier_state_is_named(changes, is_named, tmp_path):
    state = types.SimpleNamespace(**vars(STATE) | changes)
    with raises_one_line(RunError, "learning_rate") as caught:
        require_better_than_guessing(RunFolder(tmp_path), state, Score(10.0 * 100, 100), WORDS)
    assert ("keep_best" in str(caught.value) and f"step {state.best_step}" in str(caught.value)) == is_named
