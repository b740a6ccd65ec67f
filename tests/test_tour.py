"""The course docs/tour.ipynb: its outputs are complete, its text quotes no other numbers, and its claims hold when it runs."""

import copy
import math
import re

import nbformat
import pytest

from helpers import notebook
from helpers.processes import ROOT
from ptb.data import grammar

TOUR = ROOT / "docs" / "tour.ipynb"
# What the text says of the results, section by section, in the names of the notebook.
CLAIMS = [
    "by_order[2] < by_order[1] / 3 and by_order[2] < 1.1 * min(by_order.values()) and min(by_order.values()) > 2 * floor",
    "abs(score(untrained, corpus.valid).mean() - math.log(len(corpus.vocabulary))) < 0.01",
    "max(errors.values()) < 1e-6 and max(library_errors.values()) < 1e-4",
    "by_cut[1] > by_cut[2] > by_cut[4] and by_cut[1] > 1.1 * by_cut[20]",
    "clipping['not clipped'] > math.log(len(corpus.vocabulary)) > clipping['clipped to 1'] + 1",
    "valid['best n-gram'] > valid['network by hand'] > valid['LSTM'] > floor",
    "sings.log_probability > sing.log_probability + 1",
    "measured['on the memory'][1] > 0.3 + max(measured['no dropout'][1], measured['between layers'][1])",
    "measured['between layers'][1] < 0.4 + measured['no dropout'][1]",
    "measured['on the memory'][0] > 0.5 + max(measured['no dropout'][0], measured['between layers'][0])",
    "tying['one matrix'][0] < 0.8 * tying['two matrices'][0] and tying['one matrix'][1] < 1.1 * tying['two matrices'][1]",
    "adapted['sorted'][1] < 0.97 * adapted['sorted'][0] and adapted['as written'][1] > adapted['as written'][0]",
    "best_strength[2] < best_strength[3] <= best_strength[4]",
    "faulty_errors['W'] > 0.1 and max(faulty_errors['R'], faulty_errors['S']) < 1e-6 and faulty_perplexity < 1.2 * by_hand",
    "abs(reset_perplexity / by_hand - 1) < 0.1",
    "masked_hidden[1] < measured['on the memory'][1] - 0.3",
    "min(per_token.values()) > 0 and largest > 50 * max(per_token.values())",
    "adapted['sorted'][1] < cached['sorted'] < adapted['sorted'][0] and cached['as written'] > adapted['as written'][0]",
]


@pytest.fixture(scope="module")
def tour():
    return nbformat.read(TOUR, as_version=4)


def sources(tour, section):
    """Return the code cells of a section, by the number in its heading; section 0 comes before the first."""
    number, found = 0, []
    for cell in tour.cells:
        if cell.cell_type == "code":
            found += [cell.source] * (number == section)
        elif heading := re.match(r"## (\d+)\.", cell.source):
            number = int(heading[1])
    return found


def printed(tour):
    """Return all text that the cells have printed."""
    return "".join(output.text for cell in tour.cells for output in cell.get("outputs", ()) if output.output_type == "stream")


def text_of(tour):
    return "\n\n".join(cell.source for cell in tour.cells if cell.cell_type == "markdown")


def numbers(text):
    return set(re.findall(r"\d[\d,]*(?:\.\d+)?", text))


def prose(text):
    """Return the text without formulas, code, headings, numbers of lists, sections and exercises, and years of papers."""
    for syntax in (r"\$\$.*?\$\$", r"\$.*?\$", r"`.*?`"):
        text = re.sub(syntax, "", text, flags=re.DOTALL)
    text = re.sub(r"^#.*|^\d+\. |^\| \d+ \|", "", text, flags=re.MULTILINE)
    return re.sub(r"\b(19|20)\d\d\b|(section|exercise) \d+", "", text)


def test_the_cells_were_executed_in_order_and_printed_no_error(tour):
    code = [cell for cell in tour.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {(output.output_type, output.get("name")) for output in outputs} == {("stream", "stdout"), ("display_data", None)}


def test_the_file_is_small_and_normalised(tour):
    assert TOUR.stat().st_size < 400_000
    again = copy.deepcopy(tour)
    notebook.normalise(again)
    assert again == tour
    nbformat.validate(tour)


def test_every_number_of_the_text_is_one_that_the_cells_printed(tour):
    assert numbers(prose("# 1\n\nexercise 2, $x_3$ and `k=4`, but 5.6 (Elman 1990)")) == {"5.6"}
    assert numbers(prose(text_of(tour))) <= numbers(printed(tour))


def test_the_links_lead_to_files(tour):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(tour)):
        assert (TOUR.parent / target).exists(), target


def test_every_imported_name_exists(tour):
    lines = [line for cell in tour.cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    exec("\n".join(line for line in lines if re.match(r"(from \S+ )?import ", line)), {})


def test_the_network_by_hand_runs_and_its_gradient_is_right(tour, monkeypatch):
    monkeypatch.setattr(grammar, "TRAIN_TOKENS", 110_000)  # the sentences that the notebook takes come first
    monkeypatch.syspath_prepend(str(ROOT))  # at the end sys.path is restored; the notebook changes it too
    names = {}
    for source in [*sources(tour, 0), *sources(tour, 2), sources(tour, 3)[0]]:
        exec(source, names)
    assert max(names["errors"].values()) < 1e-6
    losses = names["score"](names["untrained"], names["corpus"].valid)
    assert losses.mean() == pytest.approx(math.log(len(names["corpus"].vocabulary)), abs=0.01)


@pytest.mark.slow
def test_the_notebook_runs_and_its_claims_hold(tour):
    """In Jupyter's kernel; some two minutes on two idle cores."""
    fresh = copy.deepcopy(tour)
    fresh.cells.append(nbformat.v4.new_code_cell("\n".join(f"assert {claim}" for claim in CLAIMS)))
    notebook.execute(fresh, TOUR.parent)
