"""Text to arrays: `Vocabulary`, `Corpus`, and the windows `[batch, num_steps]` that training and evaluation run over.

A text is UTF-8, one sentence a line, words separated by whitespace. Every line ends in one `<eos>`; so do an empty line
and a last line without a newline. On PTB, with its space before each newline, that is the tutorial's rule:
`read().replace("\\n", "<eos>").split()`.

Nothing here trusts its input: what cannot be used raises `DataError`, and reading an archive has bounds.
"""

import gzip
import io
import math
import os
import posixpath
import reprlib
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from logging import getLogger
from typing import BinaryIO, NamedTuple

import numpy as np

EOS = "<eos>"
UNK = "<unk>"

SPLITS = ("train", "valid", "test")
FILE_NAMES = tuple(tuple(naming.format(split) for split in SPLITS) for naming in ("ptb.{}.txt", "{}.txt"))
WANTED = "does not hold " + " (or ".join(", ".join(names) for names in FILE_NAMES) + ")"

MAX_LINE_BYTES = 1 << 20
MAX_MEMBER_BYTES = 64 << 20  # ptb.train.txt, the largest text of simple-examples.tgz, has 5 MB
MAX_ARCHIVE_BYTES = 512 << 20  # unpacked; packed, simple-examples.tgz has 34 MB
MAX_MEMBERS = 10_000

logger = getLogger(__name__)


class DataError(ValueError):
    """Data that cannot be used. The message is one line: which file, what is wrong with it, what to do."""


@dataclass(frozen=True)
class Vocabulary:
    """The words of a model; the id of a word is its place in `words`."""

    words: tuple[str, ...] = field(repr=False)

    def __post_init__(self):
        seen = set()
        for number, word in enumerate(self.words, 1):
            if word.split() != [word]:
                raise DataError(f"entry {number} of the vocabulary, {reprlib.repr(word)}, is not one word")
            if word in seen:
                raise DataError(f"entry {number} of the vocabulary, {reprlib.repr(word)}, stands there twice")
            seen.add(word)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def build(cls, tokens: Iterable[str]) -> "Vocabulary":
        """Ids by descending count, then by word, as in the tutorial's `_build_vocab`."""
        counts = Counter(tokens)
        return cls(tuple(sorted(counts, key=lambda word: (-counts[word], word))))

    def encode(self, tokens: Iterable[str]) -> np.ndarray:
        """The ids of tokens, int32 `[N]`. A word outside the vocabulary becomes `<unk>`; DataError if there is none."""
        ids = self.ids
        if UNK in ids:
            unknown = ids[UNK]
            return np.fromiter((ids.get(token, unknown) for token in tokens), np.int32)
        try:
            return np.fromiter((ids[token] for token in tokens), np.int32)
        except KeyError as error:
            word = reprlib.repr(error.args[0])
            raise DataError(f"{word} is not in the vocabulary, which has no {UNK}; use words that it has") from None

    def save(self, path: str | os.PathLike):
        """Writes one word a line, by id, UTF-8. The file is whole or not there: written aside, then renamed."""
        aside = f"{os.fspath(path)}.tmp"
        with open(aside, "wb") as file:
            file.write("".join(f"{word}\n" for word in self.words).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Vocabulary":
        """Reads what `save` wrote. Raises DataError for a file that is missing, cut off or otherwise no vocabulary."""
        with _opened(path) as file:
            lines = _read_lines(file, path)
        if not lines or not lines[-1].endswith("\n"):
            raise DataError(f"{path}: is empty or cut off, not a saved vocabulary; restore it from a copy, or train again")
        try:
            return cls(tuple(line.removesuffix("\n") for line in lines))
        except DataError as error:
            raise DataError(f"{path}: {error}; restore it from a copy, or train again") from None


class Corpus(NamedTuple):
    """A text in its three splits, each int32 `[N]`, and the vocabulary of their ids."""

    vocabulary: Vocabulary
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def build_corpus(
    train: Sequence[str],
    valid: Sequence[str],
    test: Sequence[str],
    vocabulary: Vocabulary | None = None,
    names: Sequence[str] = SPLITS,
) -> Corpus:
    """The corpus of three texts, each the list of its lines. Where no vocabulary is given it is that of train alone.

    Words outside the vocabulary become `<unk>`, with one warning that counts them. Raises DataError, with the text's
    name out of `names`, for such words where the vocabulary has no `<unk>`, and for a valid or test text that is the
    training text: a score on it would be worth nothing.
    """
    texts = dict(zip(names, (train, valid, test), strict=True))
    for name in names[1:]:
        if texts[name] == train:
            raise DataError(f"{name}: is the same text as {names[0]}; give a text that is not trained on")
    if vocabulary is None:
        vocabulary = Vocabulary.build(tokenize(train))
    return Corpus(vocabulary, *_encode(texts, vocabulary))


def read_corpus(path: str | os.PathLike, vocabulary: Vocabulary | None = None) -> Corpus:
    """Reads a corpus, with the vocabulary given or else that of its training text.

    `path` is a folder with `ptb.train.txt`, `ptb.valid.txt` and `ptb.test.txt` (or `train.txt`, `valid.txt` and
    `test.txt`), a folder with these in `data/`, such as simple-examples, or `simple-examples.tgz`, which is read
    without unpacking it to disk. Raises DataError for files that are missing, damaged or not text, and where
    `build_corpus` does.
    """
    path = os.path.expanduser(path)
    texts = _read_folder(path) if os.path.isdir(path) else _read_archive(path)
    return build_corpus(*texts.values(), vocabulary=vocabulary, names=tuple(texts))


def read_tokens(path: str | os.PathLike, vocabulary: Vocabulary) -> np.ndarray:
    """Reads one text file, int32 `[N]`. Warns and raises as `read_corpus` does."""
    path = os.path.expanduser(path)
    return _encode({path: _read_file(path)}, vocabulary)[0]


def tokenize(lines: Iterable[str]) -> Iterator[str]:
    """The words of each line, then one `<eos>`."""
    for line in lines:
        yield from line.split()
        yield EOS


def windows(
    tokens: np.ndarray, batch_size: int, num_steps: int, drop_remainder: bool = True, name: str = "the text"
) -> "Windows":
    """Cuts tokens, int32 `[N]`, into `batch_size` contiguous streams, and these into windows of `num_steps`.

    Gives a sequence of `(inputs, targets)`, both views of `tokens`, `[batch_size, num_steps]`; targets are one step
    ahead, and row b of a window continues row b of the one before. A stream has N // batch_size tokens. What is left
    over is dropped as in the tutorial's `ptb_producer`: the tokens after the last stream, and the steps after the last
    whole window. With `drop_remainder` false these steps come as a last, shorter window.

    Raises DataError, with `name`, where the text is too short for one window.
    """
    if batch_size < 1 or num_steps < 1:
        raise ValueError(f"batch_size {batch_size} and num_steps {num_steps} have to be 1 or more")
    stream_length = len(tokens) // batch_size
    predictions = stream_length - 1
    count = predictions // num_steps if drop_remainder else math.ceil(predictions / num_steps)
    if count < 1:
        needed = batch_size * (1 + (num_steps if drop_remainder else 1))
        raise DataError(
            f"{name}: has {len(tokens):,} tokens, too few for one window of batch_size {batch_size} and num_steps "
            f"{num_steps}, which takes {needed:,}; use a longer text or a smaller batch_size or num_steps"
        )
    streams = np.asarray(tokens)[: batch_size * stream_length].reshape(batch_size, stream_length)
    return Windows(streams, num_steps, range(count))


@dataclass(frozen=True, eq=False)
class Windows(Sequence):
    """The windows numbered `indices` over streams `[batch_size, stream_length]`; see `windows`. A slice is lazy too."""

    streams: np.ndarray
    num_steps: int
    indices: range

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Windows(self.streams, self.num_steps, self.indices[index])
        start = self.indices[index] * self.num_steps
        stop = min(start + self.num_steps, self.streams.shape[1] - 1)
        return self.streams[:, start:stop], self.streams[:, start + 1 : stop + 1]


def _encode(texts: Mapping[str, Sequence[str]], vocabulary: Vocabulary) -> list[np.ndarray]:
    """The ids of named texts, one int32 `[N]` for each, with one warning for the unknown words of all."""
    if EOS not in vocabulary.ids:
        raise DataError(f"{', '.join(texts)}: the vocabulary to read with has no {EOS}; use that of a trained model")
    ids = vocabulary.ids
    unknown_counts = {}
    for name, lines in texts.items():
        unknown = ((word, number) for number, line in enumerate(lines, 1) for word in line.split() if word not in ids)
        first = list(islice(unknown, 5))
        if first and UNK not in ids:
            places = ", ".join(f"{reprlib.repr(word)} in line {number}" for word, number in first)
            raise DataError(
                f"{name}: has words that the vocabulary lacks ({places}) and the vocabulary has no {UNK} for them; "
                f"write {UNK} for rare words in every split, or take them out"
            )
        if first:
            unknown_counts[name] = len(first) + sum(1 for _ in unknown)
    if unknown_counts:
        counts = ", ".join(f"{count:,} in {name}" for name, count in unknown_counts.items())
        total = sum(unknown_counts.values())
        logger.warning("words outside the vocabulary, read as %s: %s (%s)", UNK, f"{total:,}", counts)
    return [vocabulary.encode(tokenize(lines)) for lines in texts.values()]


def _read_folder(path: str) -> dict[str, list[str]]:
    """The lines of train, valid and test, by file."""
    for folder in (path, os.path.join(path, "data")):
        for names in FILE_NAMES:
            files = [os.path.join(folder, name) for name in names]
            if all(map(os.path.exists, files)):
                return {file: _read_file(file) for file in files}
    raise DataError(f"{path}: {WANTED} itself or in data/; put them there, or pass the folder that holds them")


def _read_archive(path: str) -> dict[str, list[str]]:
    """The lines of train, valid and test, by member."""
    try:
        with _BoundedGzip(path) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            texts = _read_members(archive, path)
            while stream.read(MAX_LINE_BYTES):  # to the end, where the checksum stands
                pass
    except (EOFError, OSError, RecursionError, tarfile.TarError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: is neither a folder nor a readable simple-examples.tgz ({reason}); pass one") from None
    return {name: _read_text(io.BytesIO(data), name) for name, data in texts.items()}


def _read_members(archive: tarfile.TarFile, path: str) -> dict[str, bytes]:
    """Train, valid and test, by member: those of the first folder in the archive that holds all three."""
    folders = defaultdict(dict)
    for member in islice(archive, MAX_MEMBERS):
        folder, name = posixpath.split(member.name)
        if not any(name in splits for splits in FILE_NAMES):
            continue
        if posixpath.isabs(folder) or ".." in folder.split("/"):
            raise DataError(f"{path}: {name} has a path out of the archive; use a copy from a source you trust")
        if not member.isreg() or member.issparse():
            raise DataError(f"{path}: {name} is a link or a special file; pack it as a plain file")
        if member.size > MAX_MEMBER_BYTES:
            raise DataError(f"{path}: {name} has over {MAX_MEMBER_BYTES:,} bytes; unpack it and pass the folder")
        folders[folder][name] = archive.extractfile(member).read()
        for names in FILE_NAMES:
            if folders[folder].keys() >= set(names):
                return {f"{path}:{name}": folders[folder][name] for name in names}
    raise DataError(f"{path}: {WANTED} in a folder of its own; pass simple-examples.tgz as it was published, or a folder")


class _BoundedGzip(gzip.GzipFile):
    """Refuses what a decompression bomb lives on: a huge read into memory (tarfile reads a header whole, be it a
    gigabyte), and a long way through the archive."""

    def read(self, size=-1):
        if not 0 <= size <= MAX_MEMBER_BYTES:
            raise DataError(f"{self.name}: has a header of over {MAX_MEMBER_BYTES:,} bytes; pass a folder instead")
        self._check_position(self.tell() + size)
        return super().read(size)

    def seek(self, offset, whence=io.SEEK_SET):
        self._check_position(offset)
        return super().seek(offset, whence)

    def _check_position(self, position):
        if not 0 <= position <= MAX_ARCHIVE_BYTES:
            raise DataError(f"{self.name}: is damaged or unpacks to over {MAX_ARCHIVE_BYTES:,} bytes; pass a folder instead")


def _read_file(path: str) -> list[str]:
    """The lines of a text file."""
    with _opened(path) as file:
        return _read_text(file, path)


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


def _read_text(stream: BinaryIO, name: str) -> list[str]:
    """The lines of a text that has words, without the byte order mark that some editors put before them."""
    lines = _read_lines(stream, name)
    if lines:
        lines[0] = lines[0].removeprefix("\ufeff")
    if not any(map(str.split, lines)):
        raise DataError(f"{name}: holds no words; give it a text with one sentence a line")
    return lines


def _read_lines(stream: BinaryIO, name: str | os.PathLike) -> list[str]:
    """The lines, each with its newline: "\\n" alone ends one. Raises DataError for what is not UTF-8 text."""
    lines = []
    while line := stream.readline(MAX_LINE_BYTES + 1):
        place = f"{name}: line {len(lines) + 1}"
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{place} has over {MAX_LINE_BYTES:,} bytes; break the text into lines, one a sentence")
        if b"\0" in line:
            raise DataError(f"{place} holds a zero byte, so this is a binary file; give plain text in UTF-8")
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{place} is not UTF-8 ({error.reason}); convert the file to UTF-8") from None
    return lines
