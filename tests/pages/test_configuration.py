"""The tables of docs/configuration.md have every field, and count what the models have."""

import pytest

from configs import CONFIGS
from pages.configuration import fields_table
from pages.sizes import VOCAB_SIZE, count_parameters
from ptb.config import flatten, override
from ptb.model.language_model import build_model
from ptb.training.gradient_check import tiny_architecture


def test_every_field_is_in_the_table():
    rows = "\n".join(fields_table())
    for path in {path for named in CONFIGS.values() for path in flatten(named.config)} - {"optimizer", "schedule"}:
        assert f"| `{path}` |" in rows


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_counted_as_the_model_has_them(name):
    named = CONFIGS[name]
    small = override(named.config, {"model": tiny_architecture(named.config.model)})
    assert count_parameters(small, 7) == build_model(small, 7).count_params()
    if named.parameters:
        assert count_parameters(named.config, VOCAB_SIZE) == named.parameters
