"""Random and mutated bytes for everything that reads files: see tests/fuzz/targets.py."""

import contextlib
import json
import tempfile

import hypothesis
import pytest
from hypothesis import strategies

from fuzz import targets
from ptb.config import ConfigError, from_json, upgrade
from ptb.runs.folder import RunFolder
from ptb.runs.storage import RunError

SETTINGS = hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda values: strategies.lists(values) | strategies.dictionaries(strategies.text(), values),
    max_leaves=5,
)


def mutated(data):
    """Copies of some bytes with a few of them changed, and some removed or inserted at one place."""
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
def test_any_bytes_give_a_result_or_a_typed_error(name):
    target, sample = targets.TARGETS[name]

    @SETTINGS
    @hypothesis.given(strategies.binary(max_size=200) | mutated(sample))
    def feed(data):
        target(data)

    feed()


@hypothesis.settings(SETTINGS, max_examples=15)  # each waits for the disk four times
@hypothesis.given(strategies.dictionaries(strategies.text() | strategies.sampled_from(["step", "epoch", "history"]), JSON))
def test_the_record_of_a_checkpoint_is_restored_or_rejected(record):
    with tempfile.TemporaryDirectory() as folder:
        run, state = RunFolder(folder), targets.new_state()
        run.checkpoints.save(0, state.to_arrays(), record)
        known = {"step": int, "epoch": int, "history": list}
        if all(type(value) is known.get(name) for name, value in record.items() if name != "digests"):
            assert run.restore(state)
            assert all(getattr(state, name) == value for name, value in json.loads(json.dumps(record)).items())
        else:
            with pytest.raises(RunError):
                run.restore(state)


@SETTINGS
@hypothesis.given(JSON)
def test_config_json_is_what_was_written_or_rejected(record):
    with targets.file_of(json.dumps(record).encode(), "config.json") as path:
        if isinstance(record, dict):
            assert json.dumps(RunFolder(path.parent).record) == json.dumps(record)  # as text, in which nan equals nan
        else:
            with pytest.raises(RunError):
                RunFolder(path.parent).record  # noqa: B018


def with_a_change(record):
    """Copies of nested dictionaries in which one value is another, or one name is new."""
    names = strategies.sampled_from([*record, "new"])
    here = strategies.tuples(names, JSON).map(lambda change: record | dict([change]))
    parts = [name for name, value in record.items() if isinstance(value, dict)]
    below = [with_a_change(record[name]).map(lambda part, name=name: record | {name: part}) for name in parts]
    return strategies.one_of(here, *below)


@SETTINGS
@hypothesis.given(with_a_change(targets.RECORD["config"]) | with_a_change(targets.FORMER))
def test_any_value_of_a_field_is_read_or_rejected(record):
    with contextlib.suppress(ConfigError):
        upgraded = upgrade(record)
        from_json(upgraded.get("config", upgraded))
