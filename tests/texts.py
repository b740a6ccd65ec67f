"""Small texts and archives for the tests of what reads them."""

import gzip
import tarfile

TRAIN = "the cat saw the dog\nthe <unk> sat\n"
VALID = "the dog sat\n"
TEST = "the cat sat\nthe dog saw\n"
FILES = {"ptb.train.txt": TRAIN, "ptb.valid.txt": VALID, "ptb.test.txt": TEST}

SENTENCE = "the cat sees the dogs and the dogs see <unk>\n"
TINY = {"train.txt": SENTENCE * 40, "valid.txt": SENTENCE * 12, "test.txt": SENTENCE * 13}  # enough to train `test` on


def write_files(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def tar_member(name, content=b"", **fields):
    """A member as bytes; `fields` of the header are set last, and so need not be true."""
    content = content if isinstance(content, bytes) else content.encode()
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def tgz(*members):
    return gzip.compress(b"".join(members) + bytes(2 * tarfile.BLOCKSIZE), mtime=0)


def members_of(files, folder="./simple-examples/data/"):
    return [tar_member(folder + name, content) for name, content in files.items()]


def assert_data_error(error, *fragments):
    message = str(error.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message
