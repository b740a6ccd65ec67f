"""The tables of docs/configuration.md: named configurations, fields and flags."""

import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Iterator

from absl import flags

import ptb.config
from configs import CONFIGS
from pages.sizes import VOCAB_SIZE, count_parameters
from ptb.config import KINDS, Config, Dropout, differences

COMMANDS = ("train", "evaluate", "generate", "export", "report", "gradcheck", "reproduce")
TYPES = {int: "integer", float: "number", bool: "`true` or `false`", str: "word", tuple[int, ...]: "integers"}


def fields_table() -> Iterator[str]:
    """Yield the lines of a table for each group of fields of a configuration, with the comments of the source as meaning."""
    for group in dataclasses.fields(Config):
        if dataclasses.is_dataclass(group.default):
            family = type(group.default).__mro__[-2]  # Optimizer, Schedule, or the class itself
            kinds = [kind for kind in KINDS.values() if issubclass(kind, family)] or [family]
            yield from _group(f"{group.name}.", *kinds)
    yield from _group("", Config)


def _group(prefix: str, *kinds: type) -> Iterator[str]:
    docs = [_first_line(kind) if len(kinds) == 1 else f"`{kind.__name__}`: {_first_line(kind)}" for kind in kinds]
    yield f"**{f'`{prefix[:-1]}`' if prefix else 'No group'}** – {' '.join(docs)}"
    yield from ("", "| field | type | default | meaning |", "|---|---|---|---|")
    shared = {field.name for field in dataclasses.fields(kinds[0].__mro__[-2])} if len(kinds) > 1 else set()
    for kind in kinds:
        comments, hints = _comments(kind), typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if dataclasses.is_dataclass(field.default) or (field.name in shared and kind is not kinds[0]):
                continue
            of_kind = len(kinds) > 1 and field.name not in shared
            meaning = (f"{kind.__name__}: " if of_kind else "") + comments[field.name]
            yield f"| `{prefix}{field.name}` | {TYPES[hints[field.name]]} | `{_value(field.default)}` | {_cell(meaning)} |"
    yield ""


def _comments(kind: type) -> dict[str, str]:
    """Return the comment after each field of a dataclass and its bases; the name of a list of choices becomes the list."""
    found = {}
    for base in reversed(kind.__mro__[:-1]):
        found |= dict(re.findall(r"^    (\w+): .*?  # (.+)$", inspect.getsource(base), re.MULTILINE))
    return {name: re.sub(r"\b[A-Z_]{4,}\b", _choices, comment) for name, comment in found.items()}


def _choices(match: re.Match) -> str:
    values = getattr(ptb.config, match[0], None)
    return ", ".join(f"`{value}`" for value in values) if isinstance(values, tuple) else match[0]


def configurations_table() -> Iterator[str]:
    """Yield the lines of the table of named configurations."""
    yield "| configuration | layers × units | dropout | batch × steps | epochs | parameters¹ | source, or what differs |"
    yield "|---|---|---|---|---|---|---|"
    for name, named in CONFIGS.items():
        config, layers = named.config, named.config.model.layers
        units = f"{len(layers)} × {layers[0]}" if len(set(layers)) == 1 else ", ".join(map(str, layers))
        rates = {getattr(config.dropout, field.name) for field in dataclasses.fields(Dropout) if field.type is float}
        dropout = ", ".join(f"{rate:g}" for rate in sorted(rates - {0.0})) or "–"
        steps = f"{config.batch_size} × {config.num_steps}"
        of_words = config.data.level == "word" and name != "demo"
        parameters = f"{count_parameters(config, VOCAB_SIZE):,}" if of_words else ""
        epochs = f"in {config.budget_minutes:g} minutes" if config.budget_minutes else config.num_epochs
        about = named.source
        if named.base:
            changes = differences(config, CONFIGS[named.base].config)
            about = f"`{named.base}` with {', '.join(f'`{path}={_value(value)}`' for path, value in changes.items())} ({about})"
        yield f"| `{name}` | {units} | {dropout} | {steps} | {epochs} | {parameters} | {_cell(about)} |"


def flags_table() -> Iterator[str]:
    """Yield the lines of a table for each command with all its flags."""
    for command in COMMANDS:
        module, values = importlib.import_module(command), flags.FlagValues()
        module.define_flags(values)
        yield from (f"**`{command}.py`** – {_first_line(module)}", "", "| flag | default | meaning |", "|---|---|---|")
        for name in sorted(values):
            default = "" if values[name].default in (None, "", []) else f"`{_value(values[name].default)}`"
            yield f"| `--{name}` | {default} | {_flag_help(values[name])} |"
        yield ""


def _flag_help(flag: flags.Flag) -> str:
    """Return the help of a flag; absl writes the choices before it, as in "<a|b>: Which one.", and a note after it."""
    choices, help = re.fullmatch(r"(?:<(.*?)>: )?(.*)", flag.help, re.DOTALL).groups()
    help = help.removesuffix(";\n    repeat this option to specify a list of values")
    choices = choices.split("|") if choices else []
    listed = ", ".join(f"`{choice}`" for choice in choices)
    if set(choices) == CONFIGS.keys():
        listed = "[these](#named-configurations)"
    names = f" One of {listed}." if choices else ""
    return _cell(help + names + (" Can be repeated." if isinstance(flag, flags.MultiFlag) else ""))


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").splitlines()[0]


def _value(value: object) -> str:
    """Return a value as --set and the flags read it."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    """Return a text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


TABLES = {"configurations": configurations_table, "fields": fields_table, "flags": flags_table}
