"""Small texts and archives, and the check of one-line errors."""

import contextlib
import gzip
import io
import tarfile
import zipfile

import pytest

TRAIN = "the cat saw the dog\nthe <unk> sat\n"
VALID = "the dog sat\n"
TEST = "the cat sat\nthe dog saw\n"
FILES = {"ptb.train.txt": TRAIN, "ptb.valid.txt": VALID, "ptb.test.txt": TEST}

SENTENCE = "the cat sees the dogs and the dogs see <unk>\n"
TINY = {"train.txt": SENTENCE * 40, "valid.txt": SENTENCE * 12, "test.txt": SENTENCE * 13}  # enough to train `test` on


def write_files(folder, files):
    """Write files, a map from name to text or bytes, into a folder, which is made if missing. Returns the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def tar_member(name, content=b"", **fields):
    """Return a member of a tar archive as bytes. `fields` overwrite the header last, so they may contradict the content."""
    content = content if isinstance(content, bytes) else content.encode()
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def tar_members(files, folder="./simple-examples/data/"):
    """Return one member for each of `files`, in `folder` of the archive."""
    return [tar_member(folder + name, content) for name, content in files.items()]


def tgz(*members):
    """Return a compressed archive of members as bytes."""
    return gzip.compress(b"".join(members) + bytes(2 * tarfile.BLOCKSIZE), mtime=0)


@contextlib.contextmanager
def raises_one_line(error_type, *facts):
    """Expect an error whose message is one line that contains each of `facts`, such as a file, a flag or a number."""
    with pytest.raises(error_type) as caught:
        yield caught
    message = str(caught.value)
    assert "\n" not in message
    for fact in facts:
        assert str(fact) in message


def zipped(contents, **options):
    """Return a zip archive of files, given by name, as bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()
