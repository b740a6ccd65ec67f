"""Values of fields: their types, read from strings, and the checks that every part of a configuration makes."""

import dataclasses
import math
import numbers
import types
import typing
from typing import Any


class ConfigError(ValueError):
    """A value or a name that no configuration has. The message is one line: the field, what is wrong, what to write."""


def names(part: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(part)]


def convert_fields(part: Any) -> None:
    """Give each field its type: an int becomes a float, a list a tuple. Raises ConfigError for a value of another type."""
    for name, hint in typing.get_type_hints(type(part)).items():
        object.__setattr__(part, name, read_value(name, getattr(part, name), hint, strings=False))


def read_value(name: str, value: Any, hint: Any, strings: bool = True) -> Any:
    """Return a value as the type `hint`, read from a string if it is one and `strings` allows; ConfigError if it is none."""
    try:
        if isinstance(value, str) and strings and hint is not str:
            return read_string(value, hint)
        kind = {int: numbers.Integral, float: numbers.Real}.get(hint)  # NumPy's numbers too
        if kind and isinstance(value, kind) and not isinstance(value, bool):
            return hint(value)
        if isinstance(hint, types.GenericAlias):
            (item, _) = typing.get_args(hint)
            return tuple(read_value(name, element, item, strings) for element in value)
        if type(value) is hint or (dataclasses.is_dataclass(hint) and isinstance(value, hint)):
            return value
    except (TypeError, ValueError, LookupError, ZeroDivisionError):
        pass
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}.get(hint)
    if not wanted:
        is_part = dataclasses.is_dataclass(hint)
        wanted = f"of the kind {hint.__name__}" if is_part else "whole numbers with commas between, such as 512,512"
    raise ConfigError(f"{name}: is {value!r}, not {wanted}")


def read_string(text: str, hint: Any) -> Any:
    if hint is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
    if hint is float:
        numerator, _, denominator = text.partition("/")  # as in factor=1/1.15
        return float(numerator) / float(denominator or 1)
    if isinstance(hint, types.GenericAlias):
        return tuple(int(item) for item in text.strip("()[] ").split(",") if item.strip())
    return hint(text)


def value_text(value) -> str:
    """Return the value of a field as --set reads it, with all digits of a number."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value).removesuffix(".0")


def check_choice(part: Any, name: str, choices: tuple[str, ...]) -> None:
    if getattr(part, name) not in choices:
        raise ConfigError(f"{name}: is {getattr(part, name)!r}; use one of {', '.join(choices)}")


def check_range(part: Any, least: float, most: float, *names: str, above: bool = False, below: bool = False) -> None:
    """Raise ConfigError unless the fields are finite and from `least` (or above it) to `most` (or below it)."""
    for name in names:
        value = getattr(part, name)
        inside = (least < value if above else least <= value) and (value < most if below else value <= most)
        if not (inside and math.isfinite(value)):
            bounds = f"{'above' if above else 'at least'} {least:g}" + (f" and {'below' if below else 'at most'} {most:g}")
            raise ConfigError(f"{name}: is {value}; use a value {bounds.removesuffix(' and at most inf')}")
