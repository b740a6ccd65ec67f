"""Which fields of a run may change: those of the table in docs/train_on.md, and no others."""

import re

from configs import CONFIGS
from helpers.processes import ROOT
from ptb.config import flatten
from ptb.runs.changes import Change

FIXED = ("model", "data", "optimizer", "averaging", "batch_size", "num_steps", "bptt_steps")
FREE = ("num_epochs", "budget_minutes", "schedule", "dropout", "loss", "stopping", "temperature_scaling")  # with their fields
FIELDS = sorted({path for named in CONFIGS.values() for path in flatten(named.config)})


def test_what_changes_no_shape_no_text_and_no_window_may_change():
    free = [path for path in FIELDS if path.partition(".")[0] in FREE or path.startswith("optimizer.")]
    assert [path for path in FIELDS if Change(path, 0, 1).may_happen()] == free
    assert {path.partition(".")[0] for path in FIELDS if path not in free} == {*FIXED}


def test_the_page_names_the_fields_that_may_change():
    (table,) = re.findall(
        r"^\| may change in a run .*\n\|[-|]+\n((?:\|.*\n)+)", (ROOT / "docs/train_on.md").read_text(), re.MULTILINE
    )
    names = {name for row in table.splitlines() for name in re.findall(r"`([a-z_]+)(?:\.\*)?`", row)}
    assert names >= {*FREE, "learning_rate", "clip_norm"}
    assert not names & {*FIXED}
