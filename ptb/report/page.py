"""The page of a report: one HTML file with its charts in it, which needs no network and no JavaScript."""

import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape

import numpy as np
from matplotlib.figure import Figure

from ptb.report import charts
from ptb.report.runs import Reported, differing_settings, milestones, seconds_to
from ptb.report.words import (
    GROUPINGS,
    ScoredText,
    calibration,
    calibration_error,
    compare_words,
    costliest_words,
    differing_sentences,
)
from ptb.runs.liveline import duration

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
h3 { font-size: 1rem; margin-bottom: .3rem; } svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .6rem 0; font-size: .9rem; }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; vertical-align: top; } th { border-bottom: 1px solid #999; }
th:first-child, td:first-child, td.text { text-align: left; } td:first-child, td.text b { white-space: nowrap; }
tr:nth-child(even) td { background: #f7f7f7; }
.note { color: #666; font-size: .9rem; } .sample, .sentence { margin: .3rem 0 .8rem; } .sentence span { padding: 0 .15em; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em; } b { font-weight: 650; }
"""


def page(runs: Sequence[Reported], figures: dict[str, Figure], split: str) -> str:
    """Return the HTML page of a report on `runs`, some of them scored on the text `split`."""
    scored = [run for run in runs if run.scored]
    parts: list[Iterable[str]] = [table_of_runs(runs), training(runs, figures)]
    if scored:
        parts += [words(scored, figures, split), samples(scored)]
    for first, second, *_ in (alike for alike in grouped(scored, lambda run: run.scored.tokens) if len(alike) > 1):
        parts.append(comparison(first, second))
    bare = [run.name for run in runs if not run.scored]
    if bare:
        parts.append([f"<p class=note>Records without weights, so no words: {escape(', '.join(bare))}.</p>"])
    body = "\n".join(line for part in parts for line in part)
    now = f"{datetime.datetime.now():%d %B %Y, %H:%M}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Report on {len(runs)} runs</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>\n'
        f"<h1>Report on {escape(', '.join(run.name for run in runs))}</h1><p class=note>Made by report.py, {now}.</p>\n"
        f"{body}\n</body></html>\n"
    )


def table_of_runs(runs: Sequence[Reported]) -> Iterator[str]:
    settings = differing_settings(runs)
    yield "<h2>Runs</h2>"
    yield "<p class=note>Perplexities of the end, and the settings in which the runs differ.</p>"
    published = {number: f"{run.published[1]:g}" for number, run in enumerate(runs) if run.published}
    head = ["run", "test", "valid", "train", *(["published test"] if published else []), "epochs", "time", *settings]
    rows = []
    for number, run in enumerate(runs):
        last = run.result or run.history[-1]
        test = f"<b>{run.result['test_perplexity']:.2f}</b>" if run.result else "not finished"
        numbers = [test, _number(last.get("valid_perplexity")), _number(last.get("train_perplexity"))]
        numbers += [published.get(number, "")] if published else []
        varying = [_setting(values[number]) for values in settings.values()]
        rows.append([_name(number, run), *numbers, len(run.history), duration(run.seconds[-1]), *varying])
    yield from table(head, rows)


def training(runs: Sequence[Reported], figures: dict[str, Figure]) -> Iterator[str]:
    yield "<h2>Training</h2>"
    yield charts.to_svg(figures["perplexity"], "perplexity")
    yield "<h3>Time of training until valid perplexity was at most …</h3>"
    marks = milestones(runs)
    rows = [
        [_name(number, run), *("–" if (seconds := seconds_to(run, mark)) is None else duration(seconds) for mark in marks)]
        for number, run in enumerate(runs)
    ]
    yield from table(["run", *(f"{mark:g}" for mark in marks)], rows)
    yield "<p class=note>At the end of the epoch that reached it; validations are not counted. Machines may differ.</p>"
    yield charts.to_svg(figures["training"], "training")


def words(scored: Sequence[Reported], figures: dict[str, Figure], split: str) -> Iterator[str]:
    yield f"<h2>Words of {escape(split)}</h2>"
    yield "<p class=note>Perplexity of a group is exp of the mean loss of its tokens; share is its part of the whole loss.</p>"
    yield charts.to_svg(figures["words"], "words")
    for title, (grouping, _) in GROUPINGS.items():
        pairs = [(run, groups) for run in scored if (groups := grouping(run.scored))]
        yield f"<h3>Perplexity {title}</h3>" if pairs else ""
        # A table is of runs whose groups have the same tokens: a word's frequency depends on the training text too.
        for alike in grouped(pairs, lambda pair: tuple((group.label, group.tokens) for group in pair[1])):
            head = ["", "tokens", *(f"{run.name}: perplexity, share" for run, _ in alike)]
            rows = (
                [escape(row[0].label), f"{row[0].tokens:,}", *(f"{g.perplexity:,.1f} &nbsp; {g.share:.1%}" for g in row)]
                for row in zip(*(groups for _, groups in alike))
            )
            yield from table(head, rows)
    yield "<h3>Calibration</h3>"
    yield charts.to_svg(figures["calibration"], "calibration")
    errors = ((run.name, calibration_error(calibration(run.scored))) for run in scored)
    described = ", ".join(f"{escape(name)} {error:.4f}" for name, error in errors)
    yield f"<p class=note>On the diagonal a model is as often right as it says. Expected calibration error: {described}.</p>"
    for run in scored:
        yield f"<h3>The words that cost {escape(run.name)} most, each in its costliest place</h3>"
        rows = [
            [
                escape(row.word),
                f"{row.count:,}",
                f"{row.perplexity:,.1f}",
                f"{row.share:.1%}",
                f"{escape(row.before)} <b>{escape(row.word)}</b> {escape(row.after)}",
            ]
            for row in costliest_words(run.scored)
        ]
        yield from table(["word", "times", "perplexity", "share", "place"], rows, text_columns={4})


def grouped(items: Iterable, key: Callable) -> list[list]:
    """Return the items in lists of those with the same key, in the order of the first of each."""
    lists: dict = {}
    for item in items:
        lists.setdefault(key(item), []).append(item)
    return list(lists.values())


def samples(scored: Sequence[Reported]) -> Iterator[str]:
    yield "<h2>Samples</h2><p class=note>Drawn from the whole distribution, seed 1.</p>"
    for run in scored:
        yield f"<h3>{escape(run.name)}</h3><p class=sample>{escape(run.sample).replace(chr(10), '<br>')}</p>"


def comparison(first: Reported, second: Reported) -> Iterator[str]:
    yield f"<h2>{escape(first.name)} and {escape(second.name)}, word by word</h2>"
    rows = compare_words(first.scored, second.scored)
    costs = f"{sum(row.first for row in rows):,.0f} nats in all, the second {sum(row.second for row in rows):,.0f}"
    yield f"<p>The first, {escape(first.name)}, costs {costs}.</p>"
    head = ["word", "times", "nats, first", "nats, second", "second saves"]
    for title, chosen in (("Where the second is better", rows[:12]), ("Where the first is better", rows[:-13:-1])):
        yield f"<h3>{title}</h3>"
        yield from table(
            head, [[escape(r.word), r.count, f"{r.first:,.1f}", f"{r.second:,.1f}", f"{r.gain:+,.1f}"] for r in chosen]
        )
    yield "<h3>The sentences on which they differ most</h3>"
    yield "<p class=note>Blue: the second gives the word more probability; red: the first. Point at a word for both.</p>"
    for place in differing_sentences(first.scored, second.scored):
        yield _coloured(first.scored, second.scored, place)


def _coloured(first: ScoredText, second: ScoredText, place: slice) -> str:
    """Return a sentence whose words are coloured by the difference of their log probabilities."""
    columns = first.predicted[place], first.log_probabilities[place], second.log_probabilities[place]
    spans = [
        f'<span style="background:{charts.heat(q - p)}" title="{np.exp(p):.2g} and {np.exp(q):.2g}">{escape(word)}</span>'
        for word, p, q in zip(*columns)
    ]
    gain = float((columns[2] - columns[1]).sum(dtype=np.float64))
    return f"<p class=sentence>{gain:+.1f} nats &nbsp; {' '.join(spans)}</p>"


def table(head: Iterable[object], rows: Iterable[Iterable[object]], text_columns=frozenset()) -> Iterator[str]:
    """Yield a table; cells are HTML, the heads are not."""
    yield f"<div class=wide><table><tr>{''.join(f'<th>{escape(str(cell))}</th>' for cell in head)}</tr>"
    for row in rows:
        cells = (f"<td{' class=text' if i in text_columns else ''}>{cell}</td>" for i, cell in enumerate(row))
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</table></div>"


def _name(number: int, run: Reported) -> str:
    return f'<span class=dot style="background:{charts.color(number)}"></span>{escape(run.name)}'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _setting(value: object) -> str:
    """Return a setting as --set writes it."""
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else escape(",".join(map(str, value)) if isinstance(value, tuple | list) else str(value))
