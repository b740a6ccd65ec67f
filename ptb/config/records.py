"""Configurations as JSON, also those that older versions of this program wrote."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from ptb.config.fields import KINDS, Config
from ptb.config.overrides import resolve
from ptb.config.values import ConfigError, names


def to_json(part: Any) -> dict[str, Any]:
    """Return what `from_json` reads: nested dictionaries, with the `kind` of each optimiser and schedule."""
    record: dict[str, Any] = {"kind": type(part).__name__} if type(part).__name__ in KINDS else {}
    for name in names(part):
        value = getattr(part, name)
        record[name] = to_json(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
    return record


def non_defaults(part: Any) -> dict[str, Any]:
    """Return what `to_json` returns, without the fields that have their default: new fields leave it as it was."""
    defaults, found = type(part)(), {"kind": type(part).__name__} if type(part).__name__ in KINDS else {}
    for name in names(part):
        value = getattr(part, name)
        if dataclasses.is_dataclass(value):
            found[name] = non_defaults(value)
        elif value != getattr(defaults, name):
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def from_json(record: Mapping[str, Any], kind: type = Config) -> Any:
    """Return the `Config` that `to_json` gave. A field that is absent has its default; ConfigError for anything else."""
    if not isinstance(record, Mapping):
        raise ConfigError(f"{kind.__name__.lower()}: is {record!r}, not an object with fields")
    hints = typing.get_type_hints(kind)
    unknown = sorted(record.keys() - hints.keys() - {"kind"})
    if unknown:
        raise ConfigError(f"{unknown[0]}: is no field of {kind.__name__}; another version of this program wrote it")
    values = {}
    for name, value in record.items():
        if name == "kind":
            continue
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            values[name] = from_json(value, _kind_in(name, value, hint))
        else:
            values[name] = value
    return kind(**values)


def upgrade(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a run's config.json in today's form: `model`, `seed`, …, and the `config` of `to_json`.

    Before format 2 a record was one flat object, with keep_prob, hidden_size and num_layers. Returns a record of today's form
    as it is. What is retired (gradient norms with repeated words apart) stays in the record under `retired`, so that such a run
    can be scored but not mixed with new ones.
    """
    if "config" in record or "init_scale" not in record:
        return dict(record)
    old = dict(record)
    beside = {name: old.pop(name) for name in ("model", "seed", "precision", "corpus", "data_path") if name in old}
    retired = {name: value for name in ("norm_of_repeats",) if (value := old.pop(name, "summed")) != "summed"}
    try:
        config = _upgrade_fields(old)
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{error.args[0]}: is missing or of the wrong type; another version of this program wrote it"
        ) from None
    return beside | {"config": config, "overrides": {}} | ({"retired": retired} if retired else {})


def _kind_in(name: str, record: Any, hint: type) -> type:
    """Return the dataclass of a part of a record: `hint`, or the subclass that its `kind` names; ConfigError if none."""
    kinds = {kind: cls for kind, cls in KINDS.items() if issubclass(cls, hint)}
    if not kinds or not isinstance(record, Mapping):
        return hint
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{name}: has the kind {kind!r}, not {' or '.join(kinds)}; another version of this program wrote it")
    return kinds[kind]


def _upgrade_fields(old: dict[str, Any]) -> dict[str, Any]:
    rate = round(1 - old.pop("keep_prob"), 12)
    optimizer = {"kind": {"sgd": "SGD", "rmsprop": "RMSprop"}[old.pop("optimizer", "sgd")]}
    optimizer |= {
        "learning_rate": old.pop("learning_rate"),
        "clip_norm": old.pop("max_grad_norm"),
        "clip": old.pop("clip", "norm"),
    }
    late = old.pop("decay_convention", "tutorial") == "lua"
    schedule = {"full_rate_epochs": old.pop("full_rate_epochs") + late, "factor": old.pop("lr_decay")}
    num_layers = old.pop("num_layers")
    if num_layers > 1000:  # before a list of a damaged number fills the memory
        raise ConfigError(f"num_layers: is {num_layers}; no version of this program has trained so many")
    model = {"layers": [old.pop("hidden_size")] * num_layers}
    dropout = {"input": rate if old.pop("drop_input", True) else 0.0, "hidden": rate}
    dropout["output"] = rate if old.pop("drop_output", True) else 0.0
    stopping = {"max_loss_ratio": old.pop("explosion")} if "explosion" in old else {}
    parts = {"model": model, "dropout": dropout, "optimizer": optimizer, "schedule": {"kind": "StepDecay"} | schedule}
    parts |= {"loss": {}, "stopping": stopping, "data": {}}
    for name, value in old.items():
        path = resolve(Config(), name)
        part, _, field = path.rpartition(".")
        (parts[part] if part else parts)[field] = value
    return to_json(from_json(parts))
