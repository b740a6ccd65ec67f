"""The library imported into fresh processes."""

import os
import subprocess
import sys

import pytest

from helpers.processes import ROOT
from pages.configuration import COMMANDS


def python(code, *arguments, redirection="", **environment):
    command = ["sh", "-c", f'exec "$0" -c "$@" {redirection}', sys.executable, code, *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120)


def test_keras_with_another_backend_is_rejected():
    """Keras is replaced by its name and its backend, because the other backends need not be installed."""
    loaded = "from types import SimpleNamespace as new; sys.modules['keras'] = new(config=new(backend=lambda: 'jax'))"
    process = python(f"import sys; {loaded}; import ptb; ptb.load")
    assert process.returncode == 1
    assert "ImportError: ptb: Keras" in process.stderr


def test_every_module_silences_tensorflow_before_it_imports_it():
    """TensorFlow and Keras are replaced by an exception that tells whether the silenced import comes first."""
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "ptb").rglob("*.py")]
    code = """
import importlib, sys

class Reached(BaseException):
    pass

class Finder:
    def find_spec(name, *_):
        if name in ("tensorflow", "keras"):
            raise Reached("ptb.runtime.environment" in sys.modules)

sys.meta_path.insert(0, Finder)
for module in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] in ("ptb", "cli", "configs", "reader")]:
        del sys.modules[name]
    try:
        importlib.import_module(module)
        print(module, "without")
    except Reached as reached:
        print(module, "silenced" if reached.args[0] else "loud")
"""
    process = python(code, *modules, *COMMANDS)
    assert process.returncode == 0, process.stderr
    found = dict(line.split() for line in process.stdout.splitlines())
    assert found.keys() == {*modules, *COMMANDS}
    assert [module for module, how in found.items() if how == "loud"] == []
    without = {module for module, how in found.items() if how == "without"}
    assert {"ptb.__init__", "ptb.config.__init__", "ptb.runtime.signals"} <= without
    assert {module for module in modules if module.startswith("ptb.data")} <= without


@pytest.mark.slow
def test_keras_backend_is_overridden_and_standard_error_may_be_closed():
    code = "from ptb.runtime import environment; import keras; print(keras.config.backend())"
    process = python(code, KERAS_BACKEND="numpy", redirection="2>&-")
    assert (process.returncode, process.stdout) == (0, "tensorflow\n")


@pytest.mark.slow
def test_tensorflow_is_silent_unless_a_lower_log_level_is_set():
    assert python("from ptb.runtime import environment").stderr == ""
    assert python("from ptb.runtime import environment", TF_CPP_MIN_LOG_LEVEL="0").stderr != ""
