"""Commands that reject their input: one line, an exit code, and nothing written."""

TRAIN = ("train.py", "--model=test", "--save_path=new")
EVALUATE = ("evaluate.py", "run")
GENERATE = ("generate.py", "run")


def contents(folder):
    """Return everything below a folder: the bytes of files, False for folders."""
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def assert_rejected(done, code, facts, folder, before, printed=""):
    """Check a CompletedProcess; its line on standard error has each of `facts`, such as a file, a flag or a number."""
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for fact in facts:
        assert str(fact) in done.stderr
    assert done.stdout == printed
    assert contents(folder) == before
