"""A trained model, opened from a run folder: `lm = ptb.load("runs/small-1")`."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ptb.config import ConfigError, from_json
from ptb.data.corpus import read_tokens
from ptb.data.files import DataError
from ptb.data.vocabulary import EOS, LEVELS, UNK, Vocabulary, join_tokens, split_line, tokenize
from ptb.data.windows import scoring_windows
from ptb.evaluation import sampling
from ptb.evaluation.score import Score, make_eval_step, make_rank_step, score_windows
from ptb.model.language_model import LanguageModel, build_model
from ptb.runs.folder import RunFolder, check_digests, digests
from ptb.runs.storage import RunError
from ptb.runtime import devices
from ptb.training.state import StateMismatch, assign_variables, trained_variables

CHECKPOINTS = ("best", "last")
REQUIRED = {"model": str, "seed": int, "precision": str, "corpus": str, "data_path": (str, type(None))}  # of config.json


class SentenceScore(NamedTuple):
    """Log probabilities of a sentence, in nats. Its last token is `<eos>`; unknown words are scored as `<unk>`."""

    tokens: tuple[str, ...]
    log_probabilities: np.ndarray  # [len(tokens)]
    unknown: tuple[str, ...]  # tokens that the vocabulary does not have

    @property
    def log_probability(self) -> float:
        return float(self.log_probabilities.sum(dtype=np.float64))

    @property
    def perplexity(self) -> float:
        return Score(-self.log_probability, len(self.tokens)).perplexity


def load(
    path: str | os.PathLike, *, checkpoint: str = "best", rnn_mode: str = "auto", precision: str = "float32"
) -> "TrainedModel":
    """Open the run folder `path` with its "best" weights, those of the best validation so far, or the "last".

    Raise RunError if it holds no usable run, DataError if its vocabulary is damaged.
    """
    return TrainedModel(path, checkpoint=checkpoint, rnn_mode=rnn_mode, precision=precision)


class TrainedModel:
    """The model of a run, with its best weights or its last.

    The last ones are the best if there was no validation, or if an older version trained the run and kept no best.
    `config`, `vocabulary` and `record` (the content of config.json) are read at once, `model` (a Keras model) when it is first
    used. Texts begin after an `<eos>`, with a state of zeros.
    """

    def __init__(
        self, path: str | os.PathLike, *, checkpoint: str = "best", rnn_mode: str = "auto", precision: str = "float32"
    ):
        if checkpoint not in CHECKPOINTS:
            raise ConfigError(f"checkpoint: is {checkpoint!r}; use {' or '.join(CHECKPOINTS)}")
        self.run = RunFolder(path)
        if self.run.config is None:
            raise RunError(f"{path}: holds no run (no config.json); name the --save_path of a training run")
        if not self.run.checkpoints.paths():
            raise RunError(f"{path}: holds no checkpoint yet; train it first, or let it train for longer")
        self.record, self.config = _read_config(self.run)
        self.vocabulary = Vocabulary.load(self.run.vocabulary_path)
        self.precision = devices.choose_precision(precision, devices.visible_gpus())
        self.checkpoint, self._rnn_mode = checkpoint, rnn_mode
        self.step = self.last_step = self.best_step = (
            0  # of the weights in use, the last and the best; known when they are read
        )
        self._donor: TrainedModel | None = None

    @cached_property
    def model(self) -> LanguageModel:
        """The Keras model: `logits, state = model(inputs, state)`."""
        weights = self.read_weights()
        if self._donor:
            model = self._donor.model
        else:
            product_dtype = devices.use_precision(self.precision)
            model = build_model(self.config, len(self.vocabulary), rnn_mode=self._rnn_mode, product_dtype=product_dtype)
        try:
            assign_variables(weights, trained_variables(model))
        except StateMismatch as error:
            raise RunError(
                f"{self._weights_path}: {error}; restore it, config.json and vocabulary.txt from a copy of the same run"
            ) from None
        return model

    def read_weights(self) -> dict[str, np.ndarray]:
        """Read the best or the last weights, by name. From then on `step`, `best_step` and `last_step` are known."""
        checkpoint = self.run.checkpoints.load()
        if checkpoint is None:
            raise RunError(f"{self.run.path}: its checkpoints have disappeared since it was opened; restore them from a copy")
        check_digests(checkpoint, digests(self.record, self.vocabulary))
        if EOS not in self.vocabulary.ids:
            raise RunError(f"{self.run.vocabulary_path}: has no {EOS}; restore it from a copy")
        self.step, weights, self._weights_path = self.run.choose_weights(checkpoint, self.checkpoint)
        self.last_step, self.best_step = checkpoint.step, checkpoint.best_step or checkpoint.step
        return weights

    def take_over(self, other: "TrainedModel | None") -> None:
        """Use the model and compiled functions of another run, which must not be used after, if the two runs are alike.

        TensorFlow never frees compiled functions, so scoring many runs in one process needs this.
        """
        if other and (other.config, other.vocabulary) == (self.config, self.vocabulary):
            self._donor = other
            self.eval_step, self.rank_step = other.eval_step, other.rank_step
            self.long_eval_step, self.next_step = other.long_eval_step, other.next_step

    @cached_property
    def eval_step(self):
        return make_eval_step(self.model)

    @cached_property
    def long_eval_step(self):
        """The evaluation step for long texts, compiled by XLA once per length of a window."""
        return make_eval_step(self.model, jit_compile=True)

    @cached_property
    def rank_step(self):
        return make_rank_step(self.model, jit_compile=True)

    @cached_property
    def next_step(self):
        return sampling.make_next_step(self.model)

    def log_probabilities(self, ids: np.ndarray) -> np.ndarray:
        """Return the log probability in nats of every token of a text but the first, `[len(ids) - 1]`."""
        step = self.long_eval_step
        return self.require_finite(-score_windows(step, self.model, scoring_windows(ids))[0])

    def ranks(self, ids: np.ndarray) -> np.ndarray:
        """Return the rank of every token but the first, 1 for the most likely word, `[len(ids) - 1]`."""
        step = self.rank_step
        return score_windows(step, self.model, scoring_windows(ids))[0]

    def perplexity(self, text: str | os.PathLike) -> float:
        """Return the perplexity of a text file, or of a text given as a string of one sentence per line.

        A file is scored as evaluate.py does: its first token is not predicted. A string begins after an `<eos>`.
        """
        if isinstance(text, os.PathLike) or ("\n" not in text and os.path.isfile(os.path.expanduser(text))):
            ids = read_tokens(text, self.vocabulary, self.config.data.level)
        else:
            lines = text.removesuffix("\n").split("\n")  # as in a file; str.splitlines ends lines at more characters
            ids = self.vocabulary.encode([EOS, *tokenize(lines, self.config.data.level)])
        log_probabilities = self.log_probabilities(ids)
        return Score(-float(log_probabilities.sum(dtype=np.float64)), log_probabilities.size).perplexity

    def score(self, sentences: Sequence[str], carry_state: bool = False) -> list[SentenceScore]:
        """Return the `SentenceScore` of each sentence, `<eos>` included; with `carry_state` as lines of one text."""
        if isinstance(sentences, str):  # its characters would be scored as sentences
            raise TypeError('sentences: give a list, for example: score(["the company said"])')
        return list(self.iterate_scores(sentences, carry_state))

    def iterate_scores(self, sentences, carry_state: bool = False) -> Iterator[SentenceScore]:
        """Yield what `score` returns, one sentence at a time. Raise DataError for a word with neither an id nor `<unk>`."""
        eos, state, step = self.vocabulary.ids[EOS], self.model.initial_state(1), self.eval_step
        for number, sentence in enumerate(sentences, 1):
            tokens = (*split_line(sentence, self.config.data.level), EOS)
            try:
                ids = self.vocabulary.encode(tokens)
            except DataError as error:
                raise DataError(f"sentence {number}: {error}") from None
            if not carry_state:
                state = self.model.initial_state(1)
            losses, state = step(np.append(eos, ids[:-1])[np.newaxis].astype(np.int32), ids[np.newaxis], state)
            unknown = tuple(token for token in tokens if token not in self.vocabulary.ids)
            yield SentenceScore(tokens, self.require_finite(-losses.numpy()[0]), unknown)

    def next_words(self, prompt: str = "", count: int = 10, **narrowing) -> list[tuple[str, float]]:
        """Return the `count` most likely words after a prompt, each with its probability.

        `narrowing` is that of `ptb.evaluation.sampling.distribution`: temperature, top_k, top_p, excluded.
        """
        *before, last = [self.vocabulary.ids[EOS], *self.encode_prompt(prompt)]
        logits, _ = self.next_step(last, self._state_after(before))
        p = self._distribution(logits.numpy(), **narrowing)
        return [(self.vocabulary.words[token], float(p[token])) for token in np.argsort(-p, kind="stable")[:count] if p[token]]

    def generate(self, prompt: str = "", length: int = 50, seed: int = 1, sample: int = 0, **narrowing) -> str:
        """Return the prompt and `length` words after it. `seed` and `sample`, its number, decide the draws."""
        return "".join(self.iterate_text(prompt, length, seed, sample, **narrowing))

    def iterate_text(self, prompt: str = "", length: int = 50, seed: int = 1, sample: int = 0, **narrowing) -> Iterator[str]:
        """Yield what `generate` returns, piece by piece."""
        ids = self.encode_prompt(prompt)
        *before, last = [self.vocabulary.ids[EOS], *ids]
        draws = sampling.generate(
            self.next_step,
            last,
            self._state_after(before),
            length,
            (seed, sample),
            lambda logits: self._distribution(logits, **narrowing),
        )
        words = (self.vocabulary.words[token] for chain in (ids, draws) for token in chain)
        yield from join_tokens(words, self.config.data.level)

    def embedding(self, word: str) -> np.ndarray:
        """Return the embedding of a word, `[embedding_size]`; with one-hot input its row of the first kernel."""
        model = self.model
        table = model.recurrent_layers[0].kernel if model.embedding is None else model.embedding
        return table.numpy()[self.vocabulary.encode([word])[0]]

    def states(self, sentence: str) -> list[np.ndarray]:
        """Return the hidden states of every layer after `<eos>` and after each token, a `[1 + tokens, units]` array a layer."""
        ids = self.vocabulary.encode([EOS, *split_line(sentence, self.config.data.level)])
        outputs, _ = self.model.outputs(tf.constant(ids[np.newaxis]), self.model.initial_state(1))
        return [layer.numpy()[:, 0] for layer in outputs.layers]

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return the ids of a prompt, whose last line goes on. Raise DataError if the vocabulary knows none of its tokens."""
        level = self.config.data.level
        *tokens, _ = tokenize(prompt.split("\n"), level, framed=False)  # without the last <eos>
        unknown = self.unknown_tokens(tokens)
        if unknown and UNK not in self.vocabulary.ids:
            raise DataError(f"prompt: the vocabulary has neither {_quoted(unknown)} nor {UNK}; use other {LEVELS[level]}")
        if unknown and {*tokens} <= {*unknown, EOS}:
            raise DataError(f"prompt: the vocabulary has none of {_quoted(unknown)}; use {LEVELS[level]} of the training text")
        return self.vocabulary.encode(tokens).tolist()

    def unknown_tokens(self, tokens: Sequence[str]) -> list[str]:
        """Return the tokens that the vocabulary does not have, each once."""
        return list(dict.fromkeys(token for token in tokens if token not in self.vocabulary.ids))

    def require_finite(self, values: np.ndarray) -> np.ndarray:
        """Return the values. Raise RunError if one is not finite: the training of this model diverged."""
        if not np.isfinite(values).all():
            raise RunError(f"{self.run.path}: the model's scores are not finite; restore an older checkpoint, or train again")
        return values

    def _distribution(self, logits, **narrowing):
        return sampling.distribution(self.require_finite(logits), **narrowing)

    def _state_after(self, ids):
        state = self.model.initial_state(1)
        for token in ids:
            _, state = self.next_step(token, state)
        return state


def _read_config(run):
    """Return the content of a run's `config.json` and its `Config`. Raise RunError if this version cannot read it."""
    record, path = run.config, run.path / "config.json"
    try:
        wrong = [name for name, kind in REQUIRED.items() if not isinstance(record.get(name, ...), kind)]
        if wrong:
            raise ConfigError(f"{', '.join(wrong)}: is missing or of the wrong type")
        return record, from_json(record["config"])
    except (ConfigError, LookupError) as error:
        raise RunError(f"{path}: {error}; restore it from a copy, or use the version of this program that wrote it") from None


def _quoted(words):
    return ", ".join(map(repr, words))
