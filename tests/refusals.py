"""What a command that refuses leaves: one line, an exit code, and nothing written."""

TRAIN = ("train.py", "--model=test", "--save_path=new")
EVALUATE = ("evaluate.py", "run")
GENERATE = ("generate.py", "run")


def contents(folder):
    """Everything below a folder."""
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def assert_refused(process, code, fragments, folder, before, printed=""):
    assert process.returncode == code, process.stderr
    assert process.stderr.count("\n") == 1, process.stderr
    for fragment in fragments:
        assert fragment in process.stderr
    assert process.stdout == printed
    assert contents(folder) == before
