"""What a data_path names: the three texts of a corpus, or one text, perhaps of several documents, that is cut into three.

path  →  names of texts (a folder's, an archive's, or the files given)  →  train, valid and test  or  documents
"""

import glob
import logging
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from ptb.data.archives import is_archive, list_members
from ptb.data.files import LARGE_BYTES, MAX_LINE, SPLITS, DataError, compression_of, iterate_pieces, read_file

PREFERRED = (("ptb.", ".txt"), ("", ".txt"))  # what stands before and after the name of a split; else there may be one set only
SYNONYMS = {"training": "train", "validation": "valid", "val": "valid", "dev": "valid"}
SPLIT_NAME = re.compile(
    rf"(?!\.)(?P<before>.*[._-]|)(?P<split>{'|'.join([*SPLITS, *SYNONYMS])})(?P<after>[._-].*|)", re.IGNORECASE
)
SPLIT_ENDINGS = ("", ".txt", ".text", ".tokens", ".raw")  # of names like wiki.train.tokens
NAMED = "ptb.train.txt, ptb.valid.txt, ptb.test.txt (or train.txt, valid.txt, test.txt; or others like wiki.train.tokens)"

logger = logging.getLogger(__name__)


class Text(NamedTuple):
    """A text that can be read again and again. `name` is for messages, `path` that of a plain file on disk."""

    name: str
    pieces: Callable[[], Iterable[str]]  # as `files.iterate_pieces`
    path: str | None = None


class Source(NamedTuple):
    """The texts that a path names: train, valid and test if they are three `splits`; otherwise documents of one text."""

    texts: tuple[Text, ...]
    is_split: bool

    @property
    def is_large(self) -> bool:
        """Whether the splits are plain files and one of them exceeds `LARGE_BYTES`."""
        paths = [text.path for text in self.texts]
        existing = filter(os.path.isfile, paths) if self.is_split and all(paths) else ()
        return any(os.path.getsize(path) > LARGE_BYTES for path in existing)


def find_source(path: str | os.PathLike, encoding: str = "utf-8") -> Source:
    """Return the texts that `path` names; see `ptb.data.corpus.read_corpus` for what it can be.

    Raises DataError if a folder or an archive holds no text, or not all of train, valid and test.
    """
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        return _of_folder(path, encoding)
    if is_archive(path):
        return _of_archive(path, encoding)
    files = _list_files(path)
    names = [os.path.basename(file) for file in files]
    chosen = _choose(dict(zip(names, files)), path) if len(files) > 1 else None
    for name in map(os.path.basename, chosen or ()):
        if names.count(name) > 1:
            raise DataError(f"{path}: names more than one {name}; pass the paths of three files with commas between")
    return Source(tuple(_text_of_file(file, encoding) for file in chosen or files), bool(chosen))


def one_text(lines: Iterable[str], name: str) -> Text:
    """Return the text of lines that are in memory, with or without their newlines."""
    return Text(name, lambda: (line if line.endswith("\n") else f"{line}\n" for line in lines))


def read_pieces(texts: Iterable[Text]) -> Iterator[str]:
    """Yield the pieces of one text or of several documents, each of which begins on a new line. Says so of documents.

    Raises DataError after the last piece if no document has a word.
    """
    texts, has_words = tuple(texts), False
    if len(texts) > 1:
        names = ", ".join(text.name for text in texts[:3]) + (" and so on" if len(texts) > 3 else "")
        logger.warning("%d documents are read as one text in this order: %s", len(texts), names)
    for text in texts:
        for piece in text.pieces():
            has_words = has_words or not piece.isspace()
            is_last_line = len(piece) <= MAX_LINE and not piece.endswith("\n")
            yield f"{piece}\n" if is_last_line and text is not texts[-1] else piece
    if not has_words:
        raise DataError(f"{name_of(texts)}: has no words; give a text, for example with one sentence per line")


def name_of(texts: Iterable[Text]) -> str:
    """Return the name of one text or of several documents, for messages."""
    first, *others = (text.name for text in texts)
    return f"{first} and {len(others)} more" if others else first


def _list_files(path: str) -> list[str]:
    """Return the files that `path` names: itself, those of a pattern such as books/*.txt, or several with commas between."""
    if os.path.lexists(path):
        return [path]
    if glob.has_magic(path):
        files = sorted(glob.glob(path))
        if not files:
            raise DataError(f"{path}: no file has such a name; check the pattern with ls")
        return files
    return [os.path.expanduser(part.strip()) for part in path.split(",") if part.strip()] or [path]


def _of_folder(folder: str, encoding: str) -> Source:
    parents = [parent for parent in (folder, os.path.join(folder, "data")) if os.path.isdir(parent)]
    try:
        listings = [
            {name: file for name in sorted(os.listdir(parent)) if not os.path.isdir(file := os.path.join(parent, name))}
            for parent in parents
        ]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from None
    chosen = _choose_among(listings, folder)
    documents = ([file for name, file in files.items() if _is_document(name)] for files in listings)
    if files := chosen or next(filter(None, documents), None):
        return Source(tuple(_text_of_file(file, encoding) for file in files), bool(chosen))
    raise DataError(
        f"{folder}: does not hold {NAMED} or .txt documents, nor does its data/; pass a folder that does, or a file"
    )


def _of_archive(path: str, encoding: str) -> Source:
    def is_text(member):
        name = posixpath.basename(member)
        return not compression_of(name) and bool(_split_of(name) or _is_document(name))

    def has_preferred(members):
        return any(set(_find_splits(files)) & {*PREFERRED} for files in _by_folder(members).values())

    members = list_members(path, is_text, has_preferred)
    texts = {
        member: Text(f"{path}:{posixpath.basename(member)}", partial(_read_member, opener, path, member, encoding))
        for member, opener in members.items()
    }
    chosen = _choose_among(_by_folder(members).values(), path)
    if texts:
        return Source(tuple(texts[member] for member in chosen or sorted(texts)), bool(chosen))
    raise DataError(f"{path}: does not hold {NAMED} in one folder, or documents in .txt; pack them so, or pass a folder")


def _by_folder(members: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the members of an archive by folder and name, in their order."""
    folders: dict[str, dict[str, str]] = {}
    for member in members:
        folder, name = posixpath.split(member)
        folders.setdefault(folder, {})[name] = member
    return folders


def _split_of(name: str) -> tuple[str, tuple[str, str]] | None:
    """Return the word for a split in a file name and the parts of the name around it; None if there is none."""
    match = SPLIT_NAME.fullmatch(name[: len(name) - len(compression_of(name))])
    if not match or os.path.splitext(f"name{match['after']}")[1].lower() not in SPLIT_ENDINGS:
        return None
    return match["split"].lower(), (match["before"], match["after"])


def _is_document(name: str) -> bool:
    return not name.startswith(".") and name.lower().removesuffix(compression_of(name)).endswith(".txt")


def _sets_of(files: Iterable[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Return the file names that say a split, by what stands around it and by split.

    The split's own name comes before a synonym, and a plain file before a compressed one.
    """
    found = [(*said, name) for name in files if (said := _split_of(name))]
    sets: dict[tuple[str, str], dict[str, str]] = {}
    for word, around, name in sorted(found, key=lambda item: (item[0] in SYNONYMS, compression_of(item[2]) != "", item[2])):
        sets.setdefault(around, {}).setdefault(SYNONYMS.get(word, word), name)
    return sets


def _find_splits(files: Iterable[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Return the sets of file names in which all of train, valid and test are."""
    return {around: names for around, names in _sets_of(files).items() if names.keys() == {*SPLITS}}


def _choose_among(folders: Iterable[Mapping[str, str]], path: str) -> list[str] | None:
    """Return what `_choose` does, from the first of several folders that has all of train, valid and test."""
    folders = sorted(folders, key=lambda files: not _find_splits(files))
    return next(filter(None, (_choose(files, path) for files in folders)), None)


def _choose(files: Mapping[str, str], path: str) -> list[str] | None:
    """Return the files of train, valid and test among `files`, by name; None if the names are those of documents.

    Raises DataError if one or two of them are missing, or if there is more than one set.
    """
    complete = _find_splits(files)
    found = [complete[around] for around in PREFERRED if around in complete] or list(complete.values())
    if len(found) > 1 and not complete.keys() & {*PREFERRED}:
        sets = " or ".join(",".join(names[split] for split in SPLITS) for names in found)
        raise DataError(f"{path}: holds more than one set of texts; pass the paths of three files: {sets}")
    if found:
        return [files[found[0][split]] for split in SPLITS]
    for around, names in _sets_of(files).items():
        if len(names) > 1 or around in PREFERRED:
            missing = " and ".join(split.join(around) for split in SPLITS if split not in names)
            held = ", ".join(names.values())
            raise DataError(
                f"{path}: does not hold {NAMED}, only {held}; add {missing}, or pass one file, which is cut into three"
            )
    return None


def _text_of_file(path: str, encoding: str) -> Text:
    plain = None if compression_of(path) else path
    return Text(path, partial(read_file, path, encoding), plain)


def _read_member(opener, path: str, member: str, encoding: str) -> Iterator[str]:
    with opener() as stream:
        yield from iterate_pieces(stream, f"{path}:{posixpath.basename(member)}", encoding, LARGE_BYTES)
