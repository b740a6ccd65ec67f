"""Changes of a run's configuration while it trains: more epochs, another learning rate."""

from typing import Any, NamedTuple

from ptb.config import Config
from ptb.runs.checkpoint import Checkpoint
from ptb.runs.storage import RunError

# A field, or with a point at its end a part. Shapes, text, windows and the variables of a checkpoint depend on none of these.
AT_THE_END = ("stopping.", "temperature_scaling")  # the result depends on these even if nothing is trained any more
CHANGEABLE = ("num_epochs", "budget_minutes", "schedule", "schedule.", "optimizer.", "dropout.", "loss.", *AT_THE_END)


class Change(NamedTuple):
    """A field, by its path, with two values; None if the kind of an optimiser or a schedule lacks it."""

    field: str
    before: Any
    now: Any

    def __str__(self):
        return f"{self.field} was {self.before!r}, now {self.now!r}"

    def may_happen(self) -> bool:
        """Return whether a run can go on after this change."""
        return _is_among(self.field, CHANGEABLE)

    def to_record(self, step: int) -> dict[str, Any]:
        """Return what config.json and history.jsonl keep of a change after `step` steps."""
        return {"step": step, "field": self.field, "from": self.before, "to": self.now}


def find_changes(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """Return the fields in which two flat records differ."""
    names = sorted({*before, *now})
    return [Change(name, before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)]


def check_place(changes: list[Change], config: Config, newest: Checkpoint) -> None:
    """Raise RunError if the changes come too late: fewer epochs than have begun, or nothing left that they would change."""
    place, folder = newest.record, newest.path.parent
    done = place["epoch"] - 1  # epochs that are finished
    begun = done + (place["window"] > 0)
    if config.num_epochs < begun:
        raise RunError(f"{folder}: num_epochs is {config.num_epochs}, but epoch {begun} has begun; use {begun} or more")
    if begun > done or any(_is_among(change.field, AT_THE_END) for change in changes):
        return
    if 0 < config.stopping.patience <= place["validations_since_best"]:
        raise RunError(f"{folder}: patience has run out, so nothing would be trained; add --set patience with a larger number")
    if config.num_epochs == done and all(change.field != "num_epochs" for change in changes):
        cure = f"--set num_epochs={done + 1}" + (" --set budget_minutes=0" if config.budget_minutes else "")
        raise RunError(f"{folder}: all {done} epochs are done, so nothing would be trained; add {cure}")


def _is_among(field, names):
    return any(field.startswith(name) if name.endswith(".") else field == name for name in names)
