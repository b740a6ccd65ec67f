"""The library behind the commands: open trained recurrent language models, to score, continue and inspect texts.

`import ptb` does not import TensorFlow; the names below do when they are first used. Nothing here reads a command-line flag.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptb.config import Config, override
    from ptb.model.language_model import LanguageModel
    from ptb.runs.load import TrainedModel, load

os.environ["KERAS_BACKEND"] = "tensorflow"
# TensorFlow leaves oneDNN's matrix products off on processors without AVX-512. With them, a step of small is 1.4 times faster
# and a step of medium 1.2 times (AMD EPYC 7003, two cores).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # see ptb/runtime/environment.py

_MODULES = {
    "Config": "ptb.config",
    "LanguageModel": "ptb.model.language_model",
    "TrainedModel": "ptb.runs.load",
    "load": "ptb.runs.load",
    "override": "ptb.config",
}
__all__ = ["Config", "LanguageModel", "TrainedModel", "load", "override"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'ptb' has no attribute {name!r}")
    if _MODULES[name] != "ptb.config":
        importlib.import_module("ptb.runtime.environment")  # imports TensorFlow without its startup messages
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
