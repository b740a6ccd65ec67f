"""Tables: made from the records, from all of them, and from nothing else."""

import json
import re
import shutil

import numpy as np
import pytest
from absl import flags

from configs import CONFIGS, TEST
from helpers.texts import raises_one_line
from pages import __main__ as writing
from pages import records, tables
from pages.pictures import PICTURES, draw_budgets, save_picture
from pages.sizes import products_per_token
from ptb.config import override, to_json
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError

EPOCH = {"epoch": 1, "learning_rate": 1.0, "train_perplexity": 1.0, "valid_perplexity": 1.0}  # of history.jsonl


@pytest.mark.parametrize("page", writing.PAGES)
def test_pages_show_what_the_records_say(page):
    current = (records.ROOT / page).read_text(encoding="utf-8")
    assert current == writing.with_tables(page, writing.PAGES[page]), "run: make pages"


def test_the_readme_begins_with_numbers_of_the_records():
    """A perplexity in the text before the installation is one of a record, of a paper, or a mean, a least or largest one."""
    known = {f"{CONFIGS[name].parameters / 1e6:.1f}" for name in CONFIGS if CONFIGS[name].parameters}
    known |= {f"{test:.1f}" for named in CONFIGS.values() for _, test in named.published.values()}
    for name, count in records.HEADLINES:
        adapted = records.RESULTS.glob(f"{name}-[0-9]*/adapt-dynamic_cache.json")
        found = [json.loads(path.read_text())["perplexity"]["test"] for path in adapted]
        for tests in filter(None, (records.recorded_tests(records.RESULTS, name, count), found)):
            known |= {f"{value:.1f}" for value in (np.mean(tests), min(tests), max(tests))}
    text = (records.ROOT / "README.md").read_text(encoding="utf-8").partition("## Install")[0]
    perplexities = re.sub(r"[\d.]+ to [\d.]+ times", "", text)  # without how many times as fast
    assert set(re.findall(r"\b\d+\.\d\b", perplexities)) <= known


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_show_what_the_records_say(picture, tmp_path):
    save_picture(PICTURES[picture](records.RESULTS), tmp_path / "fresh.svg")
    texts = [re.findall("<!-- (.*?) -->", path.read_text()) for path in (records.ROOT / picture, tmp_path / "fresh.svg")]
    assert texts[0] == texts[1] != [], "run: make pages"


def record(results, name, valid, test, hours, train=1.0, precision="float32", machine=None):
    (results / name).mkdir()
    content = {"train_perplexity": train, "valid_perplexity": valid, "test_perplexity": test, "training_seconds": 3600 * hours}
    content |= {"precision": precision, "seed": int(name.split("-")[1])} | ({"machine": machine} if machine else {})
    (results / name / "result.json").write_text(json.dumps(content))


def average(results, row, count, valid, test):
    lines = [{"run": f"average of {count}", "split": "valid", "perplexity": valid}]
    lines.append({"run": f"average of {count}", "split": "test", "perplexity": test})
    with open(results / f"{row}-average.jsonl", "a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def rows_of(lines):
    """Return the cells of a table's lines by the first cell."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in list(lines)[2:] if line.startswith("|")]
    return {first.strip("`"): rest for first, *rest in cells}


def test_a_row_has_mean_and_deviation_of_its_own_runs(tmp_path):
    record(tmp_path, "small-1", 120.0, 115.0, 0.4)
    record(tmp_path, "small-2", 122.0, 116.0, 0.6, precision="float32, bfloat16")
    record(tmp_path, "small_lua_decay-1", 1.0, 1.0, 1)  # another configuration, whose name begins alike
    average(tmp_path, "small", 1, 120.0, 115.0)
    average(tmp_path, "small", 2, 101.25, 97.5)
    rows = rows_of(tables.table_1(tmp_path))
    scores = ["120.7 / 114.5", "121.00 ± 1.41 / 115.50 ± 0.71", "2", "bfloat16, float32", "115.00", "0.5"]
    assert rows["small"][:6] == scores
    assert rows["small, 2 averaged"][:4] == ["100.4 / 96.1", "101.25 / 97.50", "2", "bfloat16, float32"]
    assert {len(row) for row in rows.values()} == {8}


def test_rows_without_a_run_are_named_below_the_table(tmp_path):
    record(tmp_path, "small-1", 120.0, 115.0, 0.4)
    *lines, last = tables.table_1(tmp_path)
    assert rows_of(lines).keys() == {"small"}
    assert "small, 5 averaged (87.9 / 84.1)" in last
    assert "small (" not in last


def test_a_row_of_the_readme_has_a_cell_for_each_column(tmp_path):
    record(tmp_path, "small-1", 120.0, 115.0, 0.4)
    average(tmp_path, "small", 10, 84.0, 80.5)
    lines = list(tables.headline_table(tmp_path))
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


def test_a_trial_shows_how_it_differs_from_one_hour(tmp_path):
    folder = tmp_path / "trials" / "wider"
    folder.mkdir(parents=True)
    config = override(CONFIGS["one_hour"].config, {"layers": (900,), "optimizer": "SGD"})
    (folder / "config.json").write_text(json.dumps({"seed": 3, "config": to_json(config)}, indent=2))
    epoch = EPOCH | {"train_perplexity": 100.0, "seconds": 90.0, "machine": {"cpu": "any avx2", "cores": 1, "gpu": None}}
    RunFolder(folder).write_history([epoch | {"valid_perplexity": valid} for valid in (150.04, 120.0)])
    seed, settings, valid, train, made = rows_of(tables.trials_table(tmp_path))["wider"]
    assert (seed, valid, train, made) == ("3", "150.0, 120.0", "100.0", "3, 1 core, AVX2")
    changes = dict(setting.split("=") for setting in settings.split(" "))
    assert override(CONFIGS["one_hour"].config, changes) == config


def test_an_average_names_the_precisions_of_its_own_runs(tmp_path):
    for seed, precision in ((1, "float32"), (2, "float32"), (3, "bfloat16")):
        record(tmp_path, f"small-{seed}", 120.0, 115.0, 0.5, precision=precision)
    average(tmp_path, "small", 2, 97.5, 97.5)
    assert rows_of(tables.table_1(tmp_path))["small, 2 averaged"][3] == "float32"


def test_precisions_and_the_choices_of_the_papers_code_have_rows_of_their_own(tmp_path):
    record(tmp_path, "medium_tf32-1", 86.0, 82.0, 0.5, precision="tf32")
    record(tmp_path, "medium_lua_decay_two_biases-1", 87.0, 83.0, 3.0, precision="bfloat16")
    rows = rows_of(tables.table_1(tmp_path))
    assert "medium" not in rows
    assert rows["medium_tf32"][1] == "86.00 / 82.00"
    assert rows["medium_lua_decay_two_biases"][:2] == ["86.2 / 82.7", "87.00 / 83.00"]


def test_the_rate_counts_the_products_of_a_token(tmp_path):
    """small: 2 layers of 4 x 200 x 400, and a softmax of 200 x 10,000; six operations each per token."""
    record(tmp_path, "small-1", 120.0, 115.0, 1.0, machine={"cpu": "A amx_bf16 avx512f", "cores": 2, "gpu": None})
    epochs = [{"words_per_second": 1000.0, "seconds": 10.0}, {"words_per_second": 4000.0, "seconds": 20.0}]
    RunFolder(tmp_path / "small-1").write_history([EPOCH | epoch for epoch in epochs])
    machine, rate = rows_of(tables.table_1(tmp_path))["small"][-2:]
    assert machine == "2 cores, AMX"
    assert rate == f"{6 * (2 * 4 * 200 * 400 + 200 * 10_000) * 3000 / 1e9:.0f}"


def test_the_products_of_a_mogrifier_are_those_of_its_gates_its_rounds_and_the_softmax():
    """One layer of 3 units on inputs of 2, softmax of 2 x 10; rounds of rank 1 from h to x, from x to h, from h to x."""
    config = override(TEST, {"cell": "mogrifier_lstm", "layers": (3,), "embedding_size": 2, "mogrifier_rounds": 3})
    config = override(config, {"projection": "linear", "mogrifier_rank": 1})
    softmax, gates = 3 * 2 + 2 * 10, 4 * 3 * (2 + 3)
    assert products_per_token(config, 10) == gates + (3 + 2) + (2 + 3) + (3 + 2) + softmax
    full = override(config, {"mogrifier_rank": 0})
    assert products_per_token(full, 10) == gates + 3 * 2 + 2 * 3 + 3 * 2 + softmax


def test_a_folder_beside_a_run_is_no_run_of_its_row(tmp_path):
    record(tmp_path, "small-1", 120.0, 115.0, 0.5)
    shutil.copytree(tmp_path / "small-1", tmp_path / "small-1-backup")
    shutil.copytree(tmp_path / "small-1", tmp_path / "small-12")
    assert records.run_folders(tmp_path, "small") == [tmp_path / "small-1", tmp_path / "small-12"]
    assert len(records.results_of(tmp_path, "small")) == 2


def test_other_configurations_have_a_table_of_their_own_and_characters_bits(tmp_path):
    record(tmp_path, "small-1", 120.0, 115.0, 0.4)
    record(tmp_path, "gru-1", 130.0, 125.0, 0.5, train=60.0)
    record(tmp_path, "gru-2", 132.0, 125.0, 0.5, train=60.0)
    record(tmp_path, "char_rnn-1", 2.0, 4.0, 2.0, train=1.0)
    rows = rows_of(tables.others_table(tmp_path))
    assert rows == {
        "small": ["1.00", "120.00", "115.00", "perplexity", "1", "float32", "0.4"],
        "gru": ["60.00 ± 0.00", "131.00 ± 1.41", "125.00 ± 0.00", "perplexity", "2", "float32", "0.5"],
        "char_rnn": ["0.00", "1.00", "2.00", "bits a character", "1", "float32", "2.0"],
    }


def test_a_choice_is_compared_with_its_base_at_the_same_seeds(tmp_path):
    for seed, test in ((1, 114.0), (2, 115.0), (3, 200.0)):
        record(tmp_path, f"small-{seed}", 120.0, test, 0.5, train=40.0)
    record(tmp_path, "small_lua_decay-1", 123.0, 117.0, 0.5, train=36.5)
    record(tmp_path, "small_lua_decay-2", 122.0, 117.0, 0.5, train=36.5)
    record(tmp_path, "small_bfloat16-2", 119.5, 115.25, 0.5, train=40.5, precision="bfloat16")
    record(tmp_path, "small_bfloat16-4", 0.0, 0.0, 0.5, train=0.0, precision="bfloat16")
    record(tmp_path, "gru-1", 130.0, 125.0, 0.5)
    assert rows_of(tables.choices_table(tmp_path)) == {
        "small_bfloat16": ["`small`", "+0.50", "-0.50", "+0.25", "1"],
        "small_lua_decay": ["`small`", "-3.50", "+2.50", "+2.50", "2"],
    }


def test_a_choice_is_compared_with_runs_in_its_own_precision(tmp_path):
    record(tmp_path, "small-1", 120.0, 115.0, 0.5)
    record(tmp_path, "small-2", 122.0, 116.0, 0.5)
    record(tmp_path, "small_sampled-1", 150.0, 149.0, 0.5, precision="bfloat16")
    record(tmp_path, "small_sampled-2", 125.0, 120.0, 0.5, train=2.0)
    record(tmp_path, "small_bfloat16-1", 140.0, 139.5, 0.5, precision="bfloat16")
    lines = list(tables.choices_table(tmp_path))[2:]
    assert "| `small_sampled` | `small` | +1.00 | +3.00 | +4.00 | 1 |" in lines
    assert "| `small_sampled` | `small_bfloat16` | +0.00 | +10.00 | +9.50 | 1 |" in lines


@pytest.mark.parametrize("draw", PICTURES.values())
def test_a_picture_is_the_same_for_the_same_records(draw, tmp_path):
    record(tmp_path, "small-1", 120.0, 115.0, 0.5)
    average(tmp_path, "small", 10, 84.0, 80.5)

    def picture():
        save_picture(draw(tmp_path), tmp_path / "picture.svg")
        return (tmp_path / "picture.svg").read_bytes()

    before = picture()
    assert picture() == before
    record(tmp_path, "one_hour-1", 87.0, 83.0, 0.5)
    assert picture() != before


def test_the_picture_of_budgets_has_a_line_of_one_recipe_and_dots_of_other_rows(tmp_path):
    record(tmp_path, "one_hour-1", 80.0, 75.0, 0.9)
    record(tmp_path, "one_hour-2", 80.0, 77.0, 0.9)
    record(tmp_path, "ten_minutes-1", 104.0, 100.0, 0.1)
    record(tmp_path, "small-1", 120.0, 115.0, 0.5)
    average(tmp_path, "small", 10, 84.0, 80.5)
    (axes,) = draw_budgets(tmp_path).axes
    (line,) = [drawn for drawn in axes.lines if drawn.get_linestyle() == "-"]
    np.testing.assert_allclose(line.get_xydata(), [[6, 100], [54, 76]])
    assert {text.get_text() for text in axes.texts} == {"one_hour 76.0", "ten_minutes 100.0", "small 115.0"}
    (small,) = [text.xy for text in axes.texts if text.get_text() == "small 115.0"]
    assert small == (pytest.approx(30), 115)


def test_a_damaged_record_is_an_error_that_names_it(tmp_path):
    record(tmp_path, "gru-1", 120.0, 115.0, 0.5)
    (tmp_path / "gru-1" / "result.json").write_text('{"run": ')
    with pytest.raises(RunError, match="gru-1/result.json"):
        list(tables.others_table(tmp_path))


def test_a_page_without_a_place_for_its_tables_is_an_error(tmp_path):
    (tmp_path / "README.md").write_text("# Nothing here")
    with pytest.raises(OSError, match="README.md"):
        writing.with_tables("README.md", {"published"}, tmp_path, root=tmp_path)


def test_nothing_is_rewritten_without_the_package_that_draws(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(writing, "write_atomically", lambda *_: pytest.fail("a page was rewritten"))
    with raises_one_line(RunError, "matplotlib"):
        writing.main(flags.FlagValues())
