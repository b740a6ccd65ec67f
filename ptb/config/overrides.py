"""Other values for some fields, by name: `override(MEDIUM, {"learning_rate": 0.5})` and `--set learning_rate=0.5`."""

import copy
import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ptb.config.fields import KINDS, Config, Dropout, Optimizer, Schedule
from ptb.config.values import ConfigError, names, read_value

FORMER_NAMES = {  # what other programs and earlier versions call a field: what to write here. docs/family.md has them too
    "hidden_size": "model.layers=512,512",
    "num_layers": "model.layers=512,512",
    "nhid": "model.layers=512,512",
    "nlayers": "model.layers=512,512",
    "rnn_size": "model.layers=512,512",
    "emsize": "embedding_size=200",
    "keep_prob": "dropout=0.5 (a rate: 1 - keep_prob)",
    "max_grad_norm": "clip_norm=5",
    "grad_clip": "clip_norm=5 (with clip=element)",
    "lr": "learning_rate=0.5",
    "lr_decay": "schedule.factor=0.8",
    "learning_rate_decay": "schedule.factor=0.97",
    "learning_rate_decay_after": "full_rate_epochs=10",
    "decay_rate": "optimizer.rho=0.95 (with optimizer=RMSprop)",
    "max_epoch": "full_rate_epochs=6",
    "max_max_epoch": "num_epochs=39",
    "max_epochs": "num_epochs=39",
    "epochs": "num_epochs=39",
    "seq_length": "num_steps=35",
    "bptt": "num_steps=35",
    "train_frac": "train_fraction=0.9",
    "val_frac": "valid_fraction=0.05",
    "eval_val_every": "validate_every=1000",
    "decay_convention": "full_rate_epochs=5 (one more than the paper's number)",
    "explosion": "max_loss_ratio=3",
}


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return the configuration with other values of some fields.

    A name is a field's path (`model.layers`), or its last part if only one field has it (`layers`). A value has the type of
    the field, or is a string to be read as that type, as in `--set layers=512,512`. `{"dropout": 0.5}` sets the rates before,
    between and after the layers. `{"optimizer": "RMSprop"}` changes the kind: it keeps the fields that every optimiser has, and
    the others have the defaults of the new kind. A schedule of another kind has its own defaults only.
    Raises ConfigError for a name or a value that does not fit.
    """
    whole = {name: value for name, value in changes.items() if dataclasses.is_dataclass(getattr(config, name, None))}
    config = copy.copy(config)  # to be filled without the checks of Config: only all changes together must fit
    for name, value in whole.items():
        object.__setattr__(config, name, _read_part(name, getattr(config, name), value))
    parts: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        if name not in whole:
            part, _, field = resolve(config, name).rpartition(".")
            owner = getattr(config, part) if part else config
            parts.setdefault(part, {})[field] = read_value(name, value, typing.get_type_hints(type(owner))[field])
    own = parts.pop("", {})
    replaced = {part: dataclasses.replace(getattr(config, part), **fields) for part, fields in parts.items()}
    return dataclasses.replace(config, **replaced, **own)


def resolve(config: Config, name: str) -> str:
    """Return the path of the field that a name means; ConfigError with the nearest right name if there is none."""
    paths = list(flatten(config))
    last = name.rpartition(".")[2]
    found = [name] if name in paths else [path for path in paths if name == path.rpartition(".")[2]]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"{name}: is one of {', '.join(found)}; write the whole name")
    if name in FORMER_NAMES:
        raise ConfigError(f"{name}: is no field here; write {FORMER_NAMES[name]}")
    known = {path.rpartition(".")[2]: path for path in paths} | {path: path for path in paths}
    near = [last] if last in known else difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    raise ConfigError(
        f"{name}: is no field of a configuration; " + (f"did you mean {known[near[0]]}?" if near else _listed(paths))
    )


def flatten(config: Config) -> dict[str, Any]:
    """Return the values of all fields by their path, for example `model.layers`, and the kind of optimiser and schedule."""
    return dict(_flatten(config, ""))


def differences(config: Config, base: Config) -> dict[str, Any]:
    """Return the fields, by path, in which a configuration differs from another, with the values that it has itself."""
    others = flatten(base)
    return {path: value for path, value in flatten(config).items() if path not in others or others[path] != value}


def _flatten(part: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in names(part):
        value = getattr(part, name)
        if dataclasses.is_dataclass(value):
            if type(value).__name__ in KINDS:
                yield name, type(value).__name__
            yield from _flatten(value, f"{name}.")
        else:
            yield prefix + name, value


def _read_part(name: str, part: Any, value: Any) -> Any:
    """Return a whole part of a configuration: as given, of another kind by its name, or dropout at one rate."""
    if dataclasses.is_dataclass(value):
        return value
    if isinstance(part, Dropout):
        rate = read_value(name, value, float)
        if not 0 <= rate < 1:
            raise ConfigError(f"{name}: is {rate:g}; use a rate at least 0 and below 1")
        return Dropout.everywhere(rate)
    family = Optimizer if isinstance(part, Optimizer) else Schedule
    kinds = {kind.lower(): cls for kind, cls in KINDS.items() if issubclass(cls, family)}
    if type(part).__name__ not in KINDS:
        raise ConfigError(f"{name}: is a group of fields; write {name}.{names(part)[0]}=… or one of {', '.join(names(part))}")
    kind = kinds.get(str(value).lower().replace("_", ""))
    if kind is None:
        choices = ", ".join(cls.__name__ for cls in kinds.values())
        raise ConfigError(f"{name}: is {value}; use one of {choices}, or write {name}.{names(part)[0]}=…")
    if type(part) is kind:
        return part
    return kind(**{field: getattr(part, field) for field in names(family)})


def _listed(paths: list[str]) -> str:
    return f"the fields are {', '.join(paths)}"
