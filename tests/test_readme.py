"""The pages: the Python lines of the README run, links lead somewhere.

tests/pages/test_tables.py holds that the tables of all pages are current.
"""

import ast
import re
import subprocess
import sys

import pytest

from helpers.processes import ON_THE_CPU, ROOT

PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md")))]
# What the lines give, in their order: log_probability, perplexity, next_words, generate, (embedding, states), model.
TYPES = ["float", "float", "list", "str", "tuple", "LanguageModel"]


def library_lines(run):
    """Return the README's lines that use the library, with another run, and with words of the tests' tiny corpus."""
    (block,) = re.findall(r"^```python\n(import ptb\n.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)

    def replacement(match):
        text = match[1]
        return repr(str(run) if text.startswith("runs/") else "the cat sees" if " " in text else "cat")

    return re.sub(r'"([^"]*)"', replacement, re.sub(r"  #.*", "", block))


def test_the_lines_of_the_readme_run_where_only_the_package_is(finished_folder, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "ptb").symlink_to(ROOT / "ptb")
    nodes = ast.parse(library_lines(finished_folder / "run")).body
    lines = [ast.unparse(node) for node in nodes]
    code = [f"print(type({line}).__name__)" if isinstance(node, ast.Expr) else line for node, line in zip(nodes, lines)]
    process = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        cwd=tmp_path,
        env=ON_THE_CPU | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.split() == TYPES


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_to_files_and_headings(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"https?:", target):
            continue
        name, _, heading = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        assert not heading or heading in headings(linked), target


def headings(path):
    """Return the anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
