"""Token ids to windows: the pairs `(inputs, targets)`, each `[batch_size, num_steps]`, of training and scoring."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptb.data.files import DataError


@dataclass(frozen=True, eq=False)
class Windows(Sequence):
    """The windows between `bounds`, int `[count, 2]`, of `streams`, `[batch_size, stream_length]`; see `windows`.

    An item is a pair of views `(inputs, targets)`. A slice is again a `Windows` and copies nothing. With `offsets [batch_size]`
    each stream begins at its offset and goes around; then an item is a pair of copies.
    """

    streams: np.ndarray
    bounds: np.ndarray
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.bounds)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return replace(self, bounds=self.bounds[index])
        start, stop = self.bounds[index]
        return self._read(start, stop), self._read(start + 1, stop + 1)

    def _read(self, start, stop):
        if self.offsets is None:
            return self.streams[:, start:stop]
        places = (self.offsets[:, np.newaxis] + np.arange(start, stop)) % self.streams.shape[1]
        return np.take_along_axis(self.streams, places, 1)

    def rotated(self, seed: tuple[int, ...]) -> "Windows":
        """Return the same windows of streams that are rotated, each by a random offset: the partial shuffle of Press (2019)."""
        offsets = np.random.default_rng(seed).integers(self.streams.shape[1], size=len(self.streams))
        return replace(self, offsets=offsets)

    def with_random_lengths(self, num_steps: int, seed: tuple[int, ...]) -> "Windows":
        """Return windows of random lengths around `num_steps`, as AWD-LSTM draws them (main.py).

        The mean length is num_steps, or half of it with probability 0.05; the standard deviation is 5 steps. Lengths are
        rounded to multiples of 5, so that few shapes are compiled; windows that the streams have no room for are left out. If
        there is no room for the first, it is one of the windows of fixed length.
        """
        rng, room = np.random.default_rng(seed), self.streams.shape[1] - 1
        count = 2 + 2 * room // min(num_steps, LENGTH_UNIT)
        means = np.where(rng.random(count) < 0.95, num_steps, num_steps / 2)
        lengths = LENGTH_UNIT * np.maximum(1, np.rint(rng.normal(means, LENGTH_DEVIATION) / LENGTH_UNIT)).astype(int)
        stops = np.cumsum(lengths)
        bounds = np.stack([stops - lengths, stops], 1)
        return replace(self, bounds=bounds[stops <= room] if stops[0] <= room else self.bounds[:1])


LENGTH_UNIT, LENGTH_DEVIATION = 5, 5  # steps


def windows(
    tokens: np.ndarray,
    batch_size: int,
    num_steps: int,
    drop_remainder: bool = True,
    burn_in: int = 0,
    name: str = "the text",
) -> Windows:
    """Cut tokens, int32 `[N]`, into `batch_size` contiguous streams, and the streams into windows of `num_steps`.

    Each window is `(inputs, targets)`, two views of `tokens` of shape `[batch_size, num_steps]`. `targets` is one step
    ahead of `inputs`. Row b of a window continues row b of the window before.

    A stream has N // batch_size tokens. As in `ptb_producer` of the TensorFlow tutorial, the remainder is dropped: the
    tokens after the last stream, and the steps after the last complete window. If `drop_remainder` is false, these steps
    form a last, shorter window.

    With `burn_in` > 0 a window has burn_in + num_steps steps and still starts `num_steps` after the window before.

    Raises DataError, which begins with `name`, if the text is too short for one window; it says what to `--set`.
    Raises ValueError if `batch_size` or `num_steps` is below 1.
    """
    if batch_size < 1 or num_steps < 1:
        raise ValueError(f"batch_size {batch_size} and num_steps {num_steps} must be 1 or more")
    stream_length = len(tokens) // batch_size
    predictions = stream_length - 1 - burn_in
    count = predictions // num_steps if drop_remainder else math.ceil(predictions / num_steps)
    if count < 1:
        needed = batch_size * (1 + burn_in + (num_steps if drop_remainder else 1))
        raise DataError(
            f"{name}: has {len(tokens):,} tokens, too few for one window of batch_size {batch_size} and num_steps "
            f"{num_steps}, which needs {needed:,}; use a longer text{_smaller_sizes(len(tokens), num_steps, burn_in)}"
        )
    streams = np.asarray(tokens)[: batch_size * stream_length].reshape(batch_size, stream_length)
    starts = num_steps * np.arange(count)
    stops = np.minimum(starts + burn_in + num_steps, stream_length - 1)  # the last token is only a target
    return Windows(streams, np.stack([starts, stops], 1))


def validation_windows(tokens: np.ndarray, batch_size: int, num_steps: int, name: str = "the text") -> Windows:
    """Return the windows of a text to be scored during training, at `batch_size` or the largest that the text has room for.

    The batch size only decides where streams begin and which tokens are left over. If not even one stream has room for a
    window, the whole text is one shorter window. Raises DataError as `windows` if the text has fewer than two tokens.
    """
    batch_size = max(1, min(batch_size, len(tokens) // (1 + num_steps)))
    return windows(tokens, batch_size, num_steps, drop_remainder=len(tokens) > num_steps, name=name)


def _smaller_sizes(num_tokens: int, num_steps: int, burn_in: int) -> str:
    """Return which sizes to set for a text of so few tokens: a batch with ten windows if there is room, or with one."""
    if num_tokens < 2:
        return ""
    few_windows = min(10, (num_tokens - 1 - burn_in) // num_steps)
    if few_windows < 1:
        return f", or --set batch_size=1 --set num_steps={num_tokens - 1}" + (" --set bptt_steps=0" if burn_in else "")
    return f", or --set batch_size={num_tokens // (1 + burn_in + few_windows * num_steps)}"


def scoring_windows(tokens: np.ndarray, name: str = "the text") -> Windows:
    """Return windows for scoring a text, int32 `[N]`: batch size 1, all N - 1 predictions.

    The model carries its state from window to window, so the window length of 500 does not change the score.

    Raises DataError, which begins with `name`, if the text has fewer than two tokens.
    """
    return windows(tokens, 1, 500, drop_remainder=False, name=name)
