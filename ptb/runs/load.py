"""A trained model, opened from a run folder: `lm = ptb.load("runs/small-1")`."""

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from ptb.config import ConfigError
from ptb.data.corpus import read_tokens
from ptb.data.files import DataError
from ptb.data.tokens import EOS, LEVELS, UNK, join_tokens, tokenize
from ptb.data.vocabulary import Vocabulary, lowercase_hint, quoted
from ptb.data.windows import scoring_windows
from ptb.evaluation import beam, sampling
from ptb.evaluation.score import (
    LONG_TEXT,
    Score,
    make_confidence_step,
    make_eval_step,
    make_rank_step,
    score_windows,
    state_signature,
)
from ptb.evaluation.sentences import SentenceScore, SentenceScorer
from ptb.model.language_model import LanguageModel, build_model
from ptb.runs.folder import ChosenWeights, RunFolder, check_digests, digests
from ptb.runs.storage import RunError
from ptb.runtime import devices
from ptb.training.state import StateMismatch, assign_variables, trained_variables

CHECKPOINTS = ("best", "last")
GROUP = 1024  # sentences that are scored at once
SHORT_PROMPT, PROMPT_WINDOW, LONG_PROMPT = 50, 500, 5_000  # tokens: read one by one, in windows, in windows compiled by XLA


def load(
    path: str | os.PathLike,
    *,
    checkpoint: str = "best",
    rnn_mode: str = "auto",
    precision: str = "float32",
    lowercase: bool = False,
) -> "TrainedModel":
    """Open the run folder `path` with its "best" weights, those of the best validation so far, or the "last".

    `lowercase` makes all letters of texts and prompts small, except of words that the vocabulary has. Raise RunError if the
    folder holds no usable run, DataError if its vocabulary is damaged.
    """
    return TrainedModel(path, checkpoint=checkpoint, rnn_mode=rnn_mode, precision=precision, lowercase=lowercase)


class _Opened(NamedTuple):
    model: LanguageModel
    weights: ChosenWeights
    inverse_temperature: float


class TrainedModel:
    """The model of a run, with its best weights or its last.

    The last ones stand for the best if there was no validation, or if an older version trained the run and kept no best.
    `config`, `vocabulary` and `record` (the content of config.json) are read at once, `model` (a Keras model) when it is first
    used. Texts begin after an `<eos>`, with a state of zeros.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        checkpoint: str = "best",
        rnn_mode: str = "auto",
        precision: str = "float32",
        lowercase: bool = False,
    ):
        if checkpoint not in CHECKPOINTS:
            raise ConfigError(f"checkpoint: is {checkpoint!r}; use {' or '.join(CHECKPOINTS)}")
        self.run = RunFolder(path)
        self.record, self.config = self.run.read_config()
        if not self.run.checkpoints.paths():
            raise RunError(f"{path}: holds no checkpoint yet; train it first, or let it train for longer")
        self.vocabulary = Vocabulary.load(self.run.vocabulary_path)
        if EOS not in self.vocabulary.ids:
            raise RunError(f"{self.run.vocabulary_path}: has no {EOS}; restore it from a copy")
        self.lowercase = lowercase or self.config.data.lowercase
        self.encoding = self.record.get("encoding", "utf-8")  # of its text; runs of older versions do not say
        self.precision = devices.choose_precision(precision, devices.visible_gpus())
        self.checkpoint, self._rnn_mode = checkpoint, rnn_mode
        self._donor: TrainedModel | None = None
        self._steps: dict[tuple, Callable] = {}  # compiled functions, by what makes them

    @property
    def model(self) -> LanguageModel:
        """The Keras model: `logits, state = model(inputs, state)`."""
        return self._opened.model

    @property
    def weights(self) -> ChosenWeights:
        """Which weights the model has; the arrays themselves are in `model`."""
        return self._opened.weights

    @property
    def inverse_temperature(self) -> float:
        """The factor of the logits that a finished run chose for its best weights (`temperature_scaling`); otherwise 1."""
        return self._opened.inverse_temperature

    @cached_property
    def _opened(self) -> "_Opened":
        weights = self.read_weights()
        inverse_temperature = self._inverse_temperature() if weights.are_best else 1.0
        if self._donor:
            model = self._donor.model
        else:
            product_dtype = devices.use_precision(self.precision)
            model = build_model(self.config, len(self.vocabulary), rnn_mode=self._rnn_mode, product_dtype=product_dtype)
        try:
            assign_variables(weights.arrays, trained_variables(model))
        except StateMismatch as error:
            raise RunError(
                f"{weights.path}: {error}; restore it, config.json and vocabulary.txt from a copy of the same run"
            ) from None
        if inverse_temperature != 1:
            model.scale_logits(inverse_temperature)
        return _Opened(model, weights._replace(arrays={}), inverse_temperature)

    def _inverse_temperature(self):
        if not self.config.temperature_scaling or (result := self.run.result) is None:
            return 1.0
        factor = result.get("inverse_temperature")
        if not isinstance(factor, float) or not 0 < factor < math.inf:
            cure = "restore it from a copy, or remove it and run the training command again"
            raise RunError(f"{self.run.path / 'result.json'}: has no inverse_temperature; {cure}")
        return factor

    def read_weights(self) -> ChosenWeights:
        """Read the best or the last weights, as training left them: without `inverse_temperature`."""
        checkpoint = self.run.checkpoints.load()
        if checkpoint is None:
            raise RunError(f"{self.run.path}: its checkpoints have disappeared since it was opened; restore them from a copy")
        check_digests(checkpoint, digests(self.record, self.vocabulary))
        return self.run.choose_weights(checkpoint, self.checkpoint)

    def take_over(self, other: "TrainedModel | None") -> None:
        """If the two runs are alike, use the model and compiled functions of the other, which must not be used afterwards.

        TensorFlow never frees compiled functions, so scoring many runs in one process needs this.
        """
        if other and (other.config, other.vocabulary) == (self.config, self.vocabulary):
            self._donor, self._steps = other, other._steps

    def compiled(self, make: Callable, jit_compile: bool = False) -> Callable:
        """Return the compiled function that `make` returns for the model, with or without XLA. Each is made once."""
        key = make, jit_compile
        if key not in self._steps:
            self._steps[key] = make(self.model, jit_compile=True) if jit_compile else make(self.model)
        return self._steps[key]

    def log_probabilities(self, ids: np.ndarray) -> np.ndarray:
        """Return the log probability in nats of every token of a text but the first, `[len(ids) - 1]`."""
        return self.require_finite(-self._score_text(make_eval_step, ids))

    def ranks(self, ids: np.ndarray) -> np.ndarray:
        """Return the rank of every token but the first, 1 for the most likely word, `[len(ids) - 1]`."""
        return self._score_text(make_rank_step, ids)

    def confidences(self, ids: np.ndarray) -> np.ndarray:
        """Return the log probability of the likeliest word in the place of every token but the first, `[len(ids) - 1]`."""
        return self.require_finite(self._score_text(make_confidence_step, ids))

    def _score_text(self, make, ids):
        return score_windows(self.compiled(make, jit_compile=len(ids) >= LONG_TEXT), self.model, scoring_windows(ids))[0]

    def perplexity(self, text: str | os.PathLike) -> float:
        """Return the perplexity of a text file, or of a text given as a string of one sentence per line.

        A file is scored as evaluate.py does: its first token is not predicted. A string begins after an `<eos>`.
        """
        if isinstance(text, os.PathLike) or ("\n" not in text and os.path.isfile(os.path.expanduser(text))):
            ids = self.read_tokens(text)
        else:
            lines = text.removesuffix("\n").split("\n")  # as in a file; str.splitlines ends lines at more characters
            ids = self.vocabulary.encode([EOS, *self.tokenize(lines)])
        return Score.of(-self.log_probabilities(ids)).perplexity

    def read_tokens(self, path: str | os.PathLike, encoding: str | None = None) -> np.ndarray:
        """Return the ids of a text file as the run reads one; see `ptb.data.corpus.read_tokens`."""
        options = {"lowercase": self.lowercase, "encoding": encoding or self.encoding}
        return read_tokens(path, self.vocabulary, self.config.data.level, **options)

    def score(self, sentences: Sequence[str], carry_state: bool = False) -> list[SentenceScore]:
        """Return the `SentenceScore` of each sentence, `<eos>` included; with `carry_state` as lines of one text."""
        if isinstance(sentences, str):  # its characters would be scored as sentences
            raise TypeError('sentences: give a list, for example: score(["the company said"])')
        return list(self.iterate_scores(sentences, carry_state, ready=lambda: True))

    def iterate_scores(
        self, sentences: Iterable[str], carry_state: bool = False, ready: Callable[[], bool] = lambda: False
    ) -> Iterator[SentenceScore]:
        """Yield what `score` returns. Raise DataError for a word with neither an id nor `<unk>`, after earlier sentences.

        While `ready()` returns that the next sentence is there already, up to `GROUP` are read ahead and scored at once, which
        is many times faster. By default a sentence is scored as it comes.
        """
        numbered = self._iterate_tokens(sentences)
        if carry_state:
            yield from self._iterate_carried(numbered)
            return
        scorer, error = SentenceScorer(self.compiled(make_eval_step), self.model, self.vocabulary.ids[EOS]), None
        while not error:
            group = []
            try:
                for item in numbered:
                    group.append(item)
                    if len(group) == GROUP or not ready():
                        break
            except DataError as raised:
                error = raised
            if not group:
                break
            for (tokens, _), scores in zip(group, scorer.score([ids for _, ids in group])):
                yield self._sentence_score(tokens, scores)
        if error:
            raise error

    def _iterate_carried(self, sentences):
        """Yield the scores of lines of one text."""
        eos, state, step = np.int32(self.vocabulary.ids[EOS]), self.model.initial_state(1), self.compiled(make_eval_step)
        for tokens, ids in sentences:
            losses = []
            for inputs, targets in scoring_windows(np.append(eos, ids)):
                loss, state = step(inputs, targets, state)
                losses.append(loss.numpy()[0])
            yield self._sentence_score(tokens, -np.concatenate(losses))

    def _iterate_tokens(self, sentences):
        """Yield the tokens of each sentence, `<eos>` included, and their ids."""
        for number, sentence in enumerate(sentences, 1):
            tokens = (*self.tokenize([sentence]),)
            try:
                yield tokens, self.vocabulary.encode(tokens)
            except DataError as error:
                raise DataError(f"sentence {number}: {error}") from None

    def _sentence_score(self, tokens, log_probabilities):
        unknown = tuple(token for token in tokens if token not in self.vocabulary.ids)
        return SentenceScore(tokens, self.require_finite(log_probabilities), unknown)

    def next_words(self, prompt: str = "", count: int = 10, **narrowing) -> list[tuple[str, float]]:
        """Return the `count` most likely words after a prompt, each with its probability.

        `narrowing` is that of `ptb.evaluation.sampling.distribution`: temperature, top_k, top_p, excluded.
        """
        *before, last = [self.vocabulary.ids[EOS], *self.encode_prompt(prompt)]
        logits, _ = self.compiled(sampling.make_next_step)(last, self._state_after(before))
        p = self._distribution(logits.numpy(), **narrowing)
        return [(self.vocabulary.words[token], float(p[token])) for token in np.argsort(-p, kind="stable")[:count] if p[token]]

    def generate(self, prompt: str = "", length: int = 50, **options) -> str:
        """Return the prompt and `length` words after it: what `iterate_text`, which has the `options`, yields."""
        return "".join(self.iterate_text(prompt, length, **options))

    def iterate_text(
        self,
        prompt: str = "",
        length: int = 50,
        seed: int = 1,
        sample: int = 0,
        sentences: int | None = None,
        **narrowing,
    ) -> Iterator[str]:
        """Yield, piece by piece, the prompt and `length` words after it, or fewer: up to the end of `sentences` sentences.

        `seed` and `sample`, the number of the text, decide the draws. `narrowing` is as for `next_words`.
        """
        ids = self.encode_prompt(prompt)
        *before, last = [self.vocabulary.ids[EOS], *ids]
        draws = sampling.generate(
            self.compiled(sampling.make_next_step),
            last,
            self._state_after(before),
            length,
            (seed, sample),
            lambda logits: self._distribution(logits, **narrowing),
        )
        draws = sampling.until_sentence(draws, self.vocabulary.ids[EOS], sentences)
        yield from self._join(itertools.chain(ids, draws))

    def beam_search(
        self,
        prompt: str = "",
        width: int = 5,
        length: int = 50,
        sentences: int | None = None,
        excluded: Sequence[int] = (),
    ) -> list[tuple[str, float]]:
        """Return the `width` likeliest texts that a beam search finds, with their log probabilities after the prompt, in nats.

        A text is the prompt and `length` words, or fewer: up to the end of `sentences` sentences. The best text comes first.
        """
        ids, eos = self.encode_prompt(prompt), self.vocabulary.ids[EOS]
        *before, last = [eos, *ids]

        def is_last(continuation):
            return continuation[-1] == eos and continuation.count(eos) == sentences

        found = beam.beam_search(self._finite_beam_step, last, self._state_after(before), width, length, is_last, excluded)
        return [("".join(self._join([*ids, *continuation.ids])), continuation.log_probability) for continuation in found]

    def _finite_beam_step(self, tokens, state):
        log_probabilities, state = self.compiled(beam.make_beam_step)(tokens, state)
        return self.require_finite(log_probabilities), state

    def _join(self, ids):
        return join_tokens((self.vocabulary.words[token] for token in ids), self.config.data.level)

    def embedding(self, word: str) -> np.ndarray:
        """Return the embedding of a word, `[embedding_size]`: its row of `embeddings`."""
        return self.embeddings()[self.vocabulary.encode([word])[0]]

    def embeddings(self) -> np.ndarray:
        """Return the input embeddings `[vocab, embedding_size]`; with one-hot input they are the first kernel."""
        model = self.model
        return (model.recurrent_layers[0].kernel if model.embedding is None else model.embedding).numpy()

    def states(self, sentence: str) -> list[np.ndarray]:
        """Return the hidden states of every layer after `<eos>` and after each token, `[1 + tokens, units]` per layer."""
        return self.states_of(self.vocabulary.encode([EOS, *self.tokenize([sentence])][:-1]))

    def states_of(self, ids: np.ndarray) -> list[np.ndarray]:
        """Return the hidden states of every layer after each id of a text, `[len(ids), units]` per layer."""
        state, windows = self.model.initial_state(1), []
        for start in range(0, len(ids), PROMPT_WINDOW):
            outputs, state = self.compiled(_make_outputs_step)(ids[np.newaxis, start : start + PROMPT_WINDOW], state)
            windows.append([layer.numpy()[:, 0] for layer in outputs.layers])
        return [np.concatenate(layer) for layer in zip(*windows)]

    def encode_prompt(self, prompt: str) -> list[int]:
        """Return the ids of a prompt, without a last `<eos>`. Characters without an id are left out if there is no `<unk>`.

        Raise DataError if the vocabulary knows none of its tokens, or for a word with neither an id nor `<unk>`.
        """
        level = self.config.data.level
        *tokens, _ = self.tokenize(prompt.split("\n"), framed=False)  # without the last <eos>
        unknown = self.unknown_tokens(tokens)
        hint = lowercase_hint(unknown, self.vocabulary)
        if unknown and {*tokens} <= {*unknown, EOS}:
            cure = hint or f"; use {LEVELS[level]} of the training text"
            raise DataError(f"prompt: the vocabulary has none of {quoted(unknown)}{cure}")
        if unknown and UNK not in self.vocabulary.ids:
            if level == "word":
                cure = hint or f"; use other {LEVELS[level]}"
                raise DataError(f"prompt: the vocabulary has neither {quoted(unknown)} nor {UNK}{cure}")
            tokens = [token for token in tokens if token in self.vocabulary.ids]
        return self.vocabulary.encode(tokens).tolist()

    def tokenize(self, lines: Iterable[str], framed: bool = True) -> Iterator[str]:
        """Yield the tokens of lines, each with an `<eos>`, as the run reads a text; see `ptb.data.tokens.split_line`."""
        return tokenize(lines, self.config.data.level, framed, self.lowercase, self.vocabulary.ids)

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
        """Return the state after a prompt. Only a longer one is worth the time to compile a step that reads windows."""
        state = self.model.initial_state(1)
        if len(ids) < SHORT_PROMPT:
            for token in ids:
                _, state = self.compiled(sampling.make_next_step)(token, state)
            return state
        for start in range(0, len(ids), PROMPT_WINDOW):
            window = np.array([ids[start : start + PROMPT_WINDOW]], np.int32)
            is_long = len(ids) >= LONG_PROMPT and window.shape[1] == PROMPT_WINDOW
            state = self.compiled(sampling.make_read_step, jit_compile=is_long)(window, state)
        return state


def _make_outputs_step(model):
    """Return the compiled `model.outputs(inputs, state)` at batch 1."""
    signature = [tf.TensorSpec([1, None], tf.int32), state_signature(model, 1)]
    return tf.function(lambda ids, state: model.outputs(ids, state), signature, autograph=False)
