"""report.py: a page that stands alone, with the numbers of evaluate.py and of the records."""

import html.parser
import importlib.util
import json
import os
import re
import shutil

import numpy as np
import pytest

import ptb
from evaluate import score_texts
from helpers import in_process
from helpers.processes import ROOT
from helpers.rejected import assert_rejected
from helpers.run_files import edit_json
from ptb.config import override
from ptb.report import charts, page
from ptb.report.runs import Reported, differing_settings, milestones, open_run, round_up, seconds_to, with_short_names
from ptb.report.words import ScoredText
from ptb.runs.texts import read_texts
from report import texts_for

RECORDED = ROOT / "results" / "small-1"  # without weights


@pytest.fixture(scope="module")
def reported(finished_folder, tmp_path_factory):
    """The folder of a report on a run, a copy of it, and records without weights; and what the command printed."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(finished_folder / "run", folder / "copy")
    arguments = (finished_folder / "run", folder / "copy", RECORDED, f"--data_path={finished_folder / 'data'}")
    done = in_process.succeed("report.py", *arguments, f"--output={folder / 'out'}")
    return folder / "out", done.stdout


class Page(html.parser.HTMLParser):
    """Collects tags, their attributes and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_it_leaves_a_page_and_the_charts(reported):
    folder, printed = reported
    assert printed == f"{folder / 'index.html'}\n"
    charts = ("perplexity", "training", "words", "calibration")
    assert {path.name for path in folder.iterdir()} == {"index.html", *(f"{c}.{k}" for c in charts for k in ("png", "svg"))}


def test_the_page_refers_to_nothing_outside_itself(reported):
    text = (reported[0] / "index.html").read_text()
    parsed = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base"} & {tag for tag, _ in parsed.tags}
    for _, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import", text)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))  # of four charts
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert used and used <= set(ids)


def test_the_page_has_the_numbers_of_the_runs(reported, finished_folder):
    text = " ".join(Page((reported[0] / "index.html").read_text()).text)
    for folder in (finished_folder / "run", RECORDED):
        assert f"{json.loads((folder / 'result.json').read_text())['test_perplexity']:.2f}" in text
    assert "published valid 120.7" in text
    assert "Records without weights, so no words: small-1" in text
    assert text.count("word by word") == 1


def test_the_scores_are_those_of_evaluate(finished_folder):
    """The tables are made of these log probabilities; tests/report/test_words.py holds the tables."""
    lm = ptb.load(finished_folder / "run")
    (record,) = score_texts([lm], str(finished_folder / "data"), ["valid"])
    ids = ptb.data.corpus.load_corpus(str(finished_folder / "data"), lm.vocabulary).valid
    assert np.exp(-np.mean(lm.log_probabilities(ids), dtype=np.float64)) == pytest.approx(record["perplexity"], rel=1e-6)
    assert np.all(lm.confidences(ids) >= lm.log_probabilities(ids) - 1e-5)
    right = lm.ranks(ids) == 1
    np.testing.assert_array_equal(right, lm.log_probabilities(ids) >= lm.confidences(ids) - 1e-5)
    assert 0 < right.mean() < 1


def made(values, seconds=10.0, **fields):
    history = [{"epoch": n, "valid_perplexity": v, "train_perplexity": v, "seconds": seconds} for n, v in enumerate(values, 1)]
    run = open_run(str(RECORDED))
    return run._replace(history=history, **fields)


def test_runs_on_training_texts_of_other_sizes_have_tables_of_frequency_of_their_own():
    """A table of one word in the group 1–9 and one in the group 10–99; the other tables are of both runs."""

    def scored(count):
        return ScoredText(("a", "b", "<eos>"), np.log([0.5, 0.25]), np.log([0.5, 0.5]), np.array([count, 10 * count]))

    runs = [made([9.0], name=name, scored=scored(count)) for name, count in (("one", 5), ("two", 50))]
    by_frequency, others = "".join(page.words(runs, charts.charts(runs), "valid")).split("<h3>Perplexity by place", 1)
    assert re.findall("<tr><td>(.*?)</td>", by_frequency) == ["1–9", "&lt;eos&gt;", "10–99", "&lt;eos&gt;"]
    assert others.count("<th>one: perplexity, share</th><th>two: perplexity, share</th>") == 2


def test_the_comparison_says_which_run_is_better_at_which_word():
    """The second run saves ln 4 at "a", and loses ln 2 at "b"."""

    def scored(*probabilities):
        return ScoredText(("<eos>", "a", "b", "<eos>"), np.log(probabilities), np.log([0.5] * 3), None)

    runs = [made([9.0], name="one", scored=scored(0.1, 0.4, 0.5)), made([9.0], name="two", scored=scored(0.4, 0.2, 0.5))]
    text = "".join(page.comparison(*runs))
    better = {which: text.split(f"Where the {which} is better")[1] for which in ("first", "second")}
    rows = [re.search("<tr><td>.*?</tr>", better[which])[0] for which in ("second", "first")]
    assert [re.findall("<td>(.*?)</td>", row)[::4] for row in rows] == [["a", "+1.4"], ["b", "-0.7"]]
    colours = {word: colour for colour, word in re.findall(r'background:rgba\((.*?),[\d.]+\)".*?>(.*?)</span>', text)}
    assert (colours["a"], colours["b"]) == ("31,119,180", "214,39,40")  # blue: the second is better
    assert text.index("Blue: the second") < text.index("31,119,180")


def test_the_text_to_look_at_may_be_test(finished_folder, tmp_path):
    in_process.succeed("report.py", "run", "--split=test", f"--output={tmp_path}", cwd=finished_folder)
    parsed = " ".join(Page((tmp_path / "index.html").read_text()).text)
    assert "Words of test" in parsed
    (record,) = score_texts([ptb.load(finished_folder / "run")], str(finished_folder / "data"), ["test"])
    counts = [int(count) for count in re.findall("<td>(.*?)</td>", first_table((tmp_path / "index.html").read_text()))[1::3]]
    assert sum(counts) == record["tokens"]


def first_table(text):
    """Return the first table of words."""
    return text.split("<h3>Perplexity by")[1].split("</table>")[0]


def test_without_matplotlib_one_line_says_what_to_install(finished_folder, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: name != "matplotlib" and find(name, *more) or None)
    done = in_process.call("report.py", finished_folder / "run", f"--output={tmp_path / 'out'}")
    assert_rejected(done, 1, ["matplotlib", "pip install"], tmp_path, {})


def test_the_time_to_a_perplexity_is_that_of_the_first_epoch_below_it():
    run = made([200.0, 150.0, 120.0, 121.0, 110.0])
    assert [seconds_to(run, p) for p in (250, 150, 149, 120.5, 100)] == [10, 20, 30, 30, None]


def test_milestones_are_round_numbers_down_to_the_best_and_the_published():
    runs = [made([200.0, 121.23], published=(120.7, 114.5)), made([180.0, 100.0])]
    marks = milestones(runs)
    assert marks[0] == 190 and marks[-1] == 100 and 120.7 in marks
    assert marks == sorted(marks, reverse=True)
    assert [round_up(value) for value in (121.23, 100.0, 0.98761, 16.26)] == [122, 100, 0.988, 16.3]


def test_the_settings_that_differ():
    run = made([1.0])
    other = run._replace(config=override(run.config, {"learning_rate": 0.5}), record=run.record | {"seed": 2})
    assert differing_settings([run, other]) == {"seed": [1, 2], "optimizer.learning_rate": [1.0, 0.5]}
    adam = run._replace(config=override(run.config, {"optimizer": "Adam"}))
    assert differing_settings([run, adam])["optimizer.beta1"][0] is None
    assert differing_settings([run]) == {}


def test_names_are_as_short_as_they_can_be(tmp_path):
    run = open_run(str(RECORDED))
    named = [run._replace(name=str(tmp_path / name)) for name in ("a/1", "b/1", "b/2")]
    assert [short.name for short in with_short_names(named)] == ["a/1", "b/1", "b/2"]
    assert [short.name for short in with_short_names([named[0], named[2], named[2]])] == ["1", "2", "2"]
    assert isinstance(run, Reported) and run.model is None
    (undecodable,) = with_short_names([run._replace(name=os.fsdecode(b"runs/\xff"))])
    assert undecodable.name == r"\udcff"
    charts.to_svg(charts.perplexity_chart([undecodable]), "")


def test_a_text_of_ones_own_is_read_whole_and_grouped_by_the_counts_of_the_training_text(
    folder_to_damage, tmp_path, monkeypatch
):
    monkeypatch.chdir(folder_to_damage)
    path = tmp_path / "own.txt"
    path.write_bytes(("the cat sat\n" * 4 + "café\n").encode("latin-1"))
    lm = ptb.load("run")
    name, ids, train_ids = texts_for(lm, None, str(path), "latin-1")
    assert (name, len(ids)) == ("own.txt", 18)
    np.testing.assert_array_equal(train_ids, read_texts(lm, None, ["train"])["train"])
    shutil.rmtree("data")
    done = in_process.succeed("report.py", "run", f"--data_path={path}", "--encoding=latin-1", cwd=folder_to_damage)
    assert "run: its training text cannot be read" in done.stderr
    text = " ".join(Page((folder_to_damage / "report" / "index.html").read_text()).text)
    assert "Words of own.txt" in text and "by place in the sentence" in text
    assert "by occurrences in the training text" not in text


def test_files_and_runs_without_a_finished_epoch_beside_other_runs_cost_a_warning_each(folder_to_damage):
    """As `runs/*` has them after `reproduce.py --seeds=2`, and while runs train."""
    begun = folder_to_damage / "begun"
    begun.mkdir()
    shutil.copy(folder_to_damage / "run" / "config.json", begun)
    (begun / "history.jsonl").touch()
    (folder_to_damage / "run-average.jsonl").write_text("{}\n")
    done = in_process.succeed("report.py", "begun", "run", "run-average.jsonl", cwd=folder_to_damage)
    warnings = done.stderr.splitlines()
    assert len(warnings) == 2
    assert " begun: " in warnings[0] and " run-average.jsonl: " in warnings[1]
    assert "Report on 1 runs" in (folder_to_damage / "report" / "index.html").read_text()
    done = in_process.call("report.py", "run-average.jsonl", "--output=other", cwd=folder_to_damage)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "run-average.jsonl" in done.stderr
    assert not (folder_to_damage / "other").exists()


@pytest.mark.parametrize("flag", ["--split=test", "--data_path=demo", "--encoding=latin-1", "--lowercase"])
def test_flags_of_a_text_need_a_run_with_weights(flag, tmp_path):
    done = in_process.call("report.py", RECORDED, flag, f"--output={tmp_path / 'out'}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert flag.partition("=")[0] in done.stderr


def test_what_cannot_be_reported(tmp_path):
    done = in_process.call("report.py", f"--output={tmp_path / 'out'}")
    assert done.returncode == 2
    for damage, name in ((b"", "bare"), (b"{", "damaged"), (b"3\n", "number"), (b'{"epoch": 1}\n', "lacking")):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(RECORDED / "config.json", folder)
        (folder / "history.jsonl").write_bytes(damage)
        done = in_process.call("report.py", folder, f"--output={tmp_path / 'out'}")
        assert (done.returncode, done.stdout) == (1, "")
        assert str(folder) in done.stderr and done.stderr.count("\n") == 1
    shutil.copy(RECORDED / "history.jsonl", tmp_path / "bare")
    edit_json(tmp_path / "bare" / "config.json", lambda record: {k: v for k, v in record.items() if k != "data_path"})
    done = in_process.call("report.py", tmp_path / "bare", f"--output={tmp_path / 'out'}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "config.json" in done.stderr and "data_path" in done.stderr
    done = in_process.call("report.py", tmp_path / "nothing", f"--output={tmp_path / 'out'}")
    assert done.returncode == 1 and "nothing" in done.stderr
    assert not (tmp_path / "out").exists()
