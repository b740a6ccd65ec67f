"""How a training ended: worse than guessing, or with weights that were better before."""

import math

from ptb.evaluation.score import Score
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError
from ptb.training.state import TrainState

CHANCE = 4.0  # nats, two standard errors of a single loss: losses of words spread by some 2 nats
OVERFIT = 1.01  # a last validation perplexity over this many times the best is no accident of the last steps


def require_better_than_guessing(
    run: RunFolder, state: TrainState | None, score: Score, vocab_size: int, split: str = "test"
) -> None:
    """Raise RunError if a perplexity is clearly above the number of words, the perplexity of equal odds for all words.

    The mean loss of a short text may be above by chance. `state` is that of a run that takes its last weights; the message
    names the best ones then, if they are better.
    """
    if score.loss / score.tokens <= math.log(vocab_size) + CHANCE / math.sqrt(score.tokens):
        return
    cure = "train again with a lower --set learning_rate and another --save_path"
    if state and 0 < state.best_perplexity < vocab_size and state.best_step < state.step:
        cure = f"{best_weights_hint(run, state)}; or {cure}"
    raise RunError(
        f"{run.path}: ended worse than guessing: {split} perplexity {score.perplexity:,.1f} with {vocab_size:,} words; {cure}"
    )


def overfitting(run: RunFolder, state: TrainState) -> str | None:
    """Return what to say if the last validation was clearly worse than the best; None if not."""
    last = state.valid_perplexity
    if not state.best_perplexity or last <= OVERFIT * state.best_perplexity:
        return None
    best = f"valid perplexity was best, {state.best_perplexity:.3f}, in epoch {state.best_epoch} and rose to {last:.3f}"
    return f"Overfitting: {best}; {best_weights_hint(run, state)}"


def best_weights_hint(run: RunFolder, state: TrainState) -> str:
    """Return how to use the best weights of a run whose configuration takes the last."""
    return (
        f"evaluate.py {run.path} takes the best weights, of step {state.best_step}; for its result too add "
        f"--save_path={run.path} --set keep_best=true --resume_with_changes"
    )
