"""The pages in docs/ for readers: their examples run, their diffs apply, their tables say what the messages say."""

import doctest
import functools
import importlib
import json
import pkgutil
import re
import shlex
import shutil
import sys

import pytest
from absl import flags

import cli
from configs import find_config
from helpers import processes
from helpers.processes import ROOT
from pages.configuration import COMMANDS
from ptb.config import override

DIFF_FILE = re.compile(r"^\+\+\+ (.+)\n", re.MULTILINE)


def blocks(page, language):
    """Return the contents of the code blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["how.md", "numbers.md"])
def test_examples_give_what_the_page_says(page):
    examples = doctest.DocTestParser().get_doctest("".join(blocks(page, "python")), {}, page, page, 0)
    assert examples.examples
    assert doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(examples).failed == 0


def test_names_of_the_library_exist():
    text = "".join(path.read_text() for path in ROOT.glob("docs/*.md"))
    names = {name for name in re.findall(r"`(ptb(?:\.\w+)+)", text) if not name.endswith(".txt")}
    assert len(names) > 15
    for name in names:
        assert pkgutil.resolve_name(name), name


def test_every_imported_name_exists():
    text = "".join(path.read_text() for path in OTHER_PAGES)
    lines = re.findall(rf"^ *(from (?:ptb|configs|reader|{'|'.join(COMMANDS)})\b.* import .*?)(?:  #.*)?$", text, re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        exec(line, {})


def test_every_file_that_is_named_exists():
    text = "".join(path.read_text() for path in OTHER_PAGES)
    paths = set(re.findall(r"`((?:tests|ptb|pages|results|docs|benchmarks)/[\w./-]*)`", text))
    assert len(paths) > 5
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_the_keys_of_a_runs_records_are_in_the_table(finished_folder):
    text = "".join(path.read_text() for path in OTHER_PAGES)
    (table,) = re.findall(r"^\| key \| in \|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = [row.split(" | ")[:2] for row in table.splitlines()[1:]]
    for kind, path in (("result", "result.json"), ("history", "history.jsonl")):
        listed = {key for keys, place in rows if place in (kind, "both") for key in re.findall(r"`(\w+)`", keys)}
        record = json.loads((finished_folder / "run" / path).read_text())  # its history has one epoch
        assert set(record) <= listed


def test_every_module_is_in_the_list_of_files():
    listed = (ROOT / "docs" / "development.md").read_text()
    modules = [path.relative_to(ROOT) for path in ROOT.glob("ptb/*/*.py") if path.name != "__init__.py"]
    assert [module for module in modules if f"(../{module})" not in listed] == []


@pytest.mark.slow
def test_the_worked_examples_apply_to_the_program_and_pass_their_checks(tmp_path):
    for name in ("ptb", "tests", "cli.py", "configs.py", "gradcheck.py", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for diff in blocks("extending.md", "diff"):
        apply(diff, tmp_path)
    commands = re.findall(r"^\$ python (.*)$", "".join(blocks("extending.md", "console")), re.MULTILINE)
    assert len(commands) == 4
    script = tmp_path / "run_commands.py"
    script.write_text(RUN_COMMANDS.format(commands=[shlex.split(command) for command in commands]))
    process = processes.run(script, cwd=tmp_path, before=functools.partial(forget_the_program, str(tmp_path)))
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count("  coupled_lstm_0/kernel\n") == 1
    assert [int(count) > 4 for count in re.findall(r"(\d+) passed", process.stdout)] == [True, True]


RUN_COMMANDS = """
import runpy, sys
import pytest

for command in {commands}:
    if command[0] == "-m":
        code = pytest.main(["-p", "no:cacheprovider", *command[2:]])  # after "-m pytest"
    else:
        sys.argv = command
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as exit:
            code = exit.code
    if code:
        sys.exit(f"{{command}}: {{code}}")
"""


def forget_the_program(folder):
    """Import modules of the program from `folder` from now on, TensorFlow and Keras from where they are."""
    own = {path.stem for path in ROOT.glob("*.py")} | {"ptb", "pages", "helpers", "tests"}
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]
    sys.path[:] = [folder, f"{folder}/tests", *(path for path in sys.path if path not in (str(ROOT), str(ROOT / "tests"), ""))]


def apply(diff, folder):
    """Apply a diff without line numbers: the context and the removed lines of each hunk must be in the file exactly once."""
    _, *parts = DIFF_FILE.split(diff)
    for name, hunks in zip(parts[::2], parts[1::2]):
        for hunk in hunks.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            old, new = ("\n" + "".join(line[1:] for line in lines if line[0] in signs) for signs in (" -", " +"))
            text = (folder / name).read_text()
            assert text.count(old) == 1, f"{name}: {old}"
            (folder / name).write_text(text.replace(old, new))


# A command, unless the line after it is its error.
COMMAND = re.compile(rf"python ({'|'.join(COMMANDS)})\.py([^`|#>&'\n]*)(?!.*\n *\1\.py:)")
OTHER_PAGES = [path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))) if path.name != "extending.md"]


@pytest.mark.parametrize("page", OTHER_PAGES, ids=lambda page: page.name)
def test_commands_have_flags_and_settings_that_exist(page):
    for name, arguments in COMMAND.findall(page.read_text()):
        if re.search(r"[A-Z]{3,}|…|\$", arguments):  # a place for a name of the reader's
            continue
        values = flags.FlagValues()
        importlib.import_module(name).define_flags(values)
        values([name, *shlex.split(arguments.removesuffix('" '))])  # the end of a command for ssh
        if "set" in values:
            override(find_config(values.model), cli.parse_settings(values.set))
