"""The library imported into processes that are not as its commands find them."""

import os
import subprocess
import sys

import pytest

from processes import ROOT


def python(code, redirection="", **environment):
    command = ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, code]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120)


def test_keras_with_another_backend_is_refused():
    """Of which only the name is there: the other backends are no requirement."""
    loaded = "from types import SimpleNamespace as new; sys.modules['keras'] = new(config=new(backend=lambda: 'jax'))"
    process = python(f"import sys; {loaded}; import ptb")
    assert process.returncode == 1
    assert process.stderr.endswith("another backend than TensorFlow; import ptb before it\n")


@pytest.mark.parametrize("command", ["train", "evaluate", "generate", "gradcheck", "reproduce"])
def test_no_command_imports_tensorflow_before_the_library(command):
    """Which keeps what TensorFlow says of the machine off standard error."""
    code = f"""
import sys

class Finder:
    def find_spec(name, *_):
        if name in ("tensorflow", "keras"):
            sys.exit("ptb" not in sys.modules)

sys.meta_path.insert(0, Finder)
import {command}
sys.exit("has imported neither")
"""
    process = python(code)
    assert (process.returncode, process.stderr) == (0, "")


def test_the_environments_backend_gives_way_and_standard_error_may_be_closed():
    process = python("import configs, keras; print(keras.config.backend())", KERAS_BACKEND="numpy", redirection="2>&-")
    assert (process.returncode, process.stdout) == (0, "tensorflow\n")
