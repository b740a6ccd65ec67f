"""What may import what, beyond the layers within ptb/ that `make lint` checks."""

import ast

import pytest

from helpers.processes import ROOT
from pages.configuration import COMMANDS

TOP_LEVEL = {path.stem for path in ROOT.glob("*.py")} | {"absl", "benchmarks", "fuzz", "helpers", "pages", "tests"}


def imported(path):
    """Return the first parts of the names of all modules that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", sorted((ROOT / "ptb").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_imports_no_file_of_the_top_level_and_no_flags(path):
    assert not imported(path) & TOP_LEVEL


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_no_other(command):
    assert not imported(ROOT / f"{command}.py") & set(COMMANDS)
