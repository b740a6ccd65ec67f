"""Random and mutated bytes for whatever reads files: see fuzz/targets.py."""

import json
import tempfile

import hypothesis
import pytest
from hypothesis import strategies
from ptb.run import Run, RunError

from fuzz import targets

SETTINGS = hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda values: strategies.lists(values) | strategies.dictionaries(strategies.text(), values),
    max_leaves=5,
)


def mutated(data):
    """Copies of some bytes with a few of them changed, and some taken out or put in at one place."""
    places = strategies.integers(0, len(data) - 1)
    changes = strategies.dictionaries(places, strategies.integers(0, 255), max_size=4)

    def mutate(changes, start, length, inserted):
        changed = bytes(changes.get(index, byte) for index, byte in enumerate(data))
        return changed[:start] + inserted + changed[start + length :]

    return strategies.builds(mutate, changes, places, strategies.integers(0, 8), strategies.binary(max_size=8))


@pytest.mark.parametrize("name", targets.TARGETS)
def test_the_untouched_sample_is_read(name):
    target, sample = targets.TARGETS[name]
    assert target(sample) is not None


@pytest.mark.parametrize("name", targets.TARGETS)
def test_whatever_the_bytes_it_is_a_result_or_a_typed_error(name):
    target, sample = targets.TARGETS[name]

    @SETTINGS
    @hypothesis.given(strategies.binary(max_size=200) | mutated(sample))
    def feed(data):
        target(data)

    feed()


@hypothesis.settings(SETTINGS, max_examples=25)  # each waits for the disk four times
@hypothesis.given(strategies.dictionaries(strategies.text() | strategies.sampled_from(["step", "epoch", "history"]), JSON))
def test_whatever_a_checkpoint_records_it_is_restored_or_refused(record):
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        targets.new_progress().save(run)
        arrays = run.load_checkpoint().arrays
        run.save_checkpoint(0, arrays, record)
        progress = targets.new_progress()
        known = {"step": int, "epoch": int, "history": list}
        if all(type(value) is known.get(name) for name, value in record.items()):
            assert progress.restore(run)
            assert all(getattr(progress, name) == value for name, value in json.loads(json.dumps(record)).items())
        else:
            with pytest.raises(RunError, match="another version"):
                progress.restore(run)


@SETTINGS
@hypothesis.given(JSON)
def test_a_config_is_what_was_written_or_refused(record):
    with targets.file_of(json.dumps(record).encode(), "config.json") as path:
        if isinstance(record, dict):
            assert json.dumps(Run(path.parent).config) == json.dumps(record)  # as text, in which nan equals nan
        else:
            with pytest.raises(RunError, match="config.json: damaged"):
                Run(path.parent).config  # noqa: B018
