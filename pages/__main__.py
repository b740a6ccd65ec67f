"""Write the tables and pictures of README.md and docs/ again, from results/, configurations and flags: python -m pages"""

import pathlib
import re
from collections.abc import Iterable

from absl import flags

import cli
from pages import configuration, tables
from pages.pictures import PICTURES, save_picture
from pages.records import RESULTS, ROOT
from ptb.runs.storage import write_atomically
from ptb.runtime.signals import print_line

TABLE = re.compile(r"(<!-- (\w+): made by python -m pages -->\n).*?(<!-- end of \2 -->)", re.DOTALL)
TABLES = tables.TABLES | {name: lambda _, make=make: make() for name, make in configuration.TABLES.items()}  # without records
PAGES = {
    "README.md": {"published"},
    "docs/results.md": {"table1", "others", "choices"},
    "docs/one_hour.md": {"trials"},
    "docs/configuration.md": set(configuration.TABLES),
}


def main(_: flags.FlagValues) -> None:
    cli.require_matplotlib()
    for page, names in PAGES.items():
        write_atomically(ROOT / page, with_tables(page, names).encode())
        print_line(f"{page}: rewritten")
    for picture, draw in PICTURES.items():
        save_picture(draw(RESULTS), ROOT / picture)
        print_line(f"{picture}: drawn")


def with_tables(page: str, names: Iterable[str], results: pathlib.Path = RESULTS, root: pathlib.Path = ROOT) -> str:
    """Return the text of a page with its tables made from the records. Raise OSError if the page has no place for one."""
    text = (root / page).read_text(encoding="utf-8")
    if {match[2] for match in TABLE.finditer(text)} != set(names):
        raise OSError(f"{page}: should have places for the tables {', '.join(names)}, each between two comments")
    return TABLE.sub(lambda match: match[1] + "\n".join(TABLES[match[2]](results)) + "\n" + match[3], text)


if __name__ == "__main__":
    cli.run(main, lambda values: None)
