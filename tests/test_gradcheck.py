"""Gradients against central differences for every configuration and option; and that a wrong gradient is found out."""

import dataclasses

import pytest
import tensorflow as tf

import gradcheck
import processes
from configs import CONFIGS, SMALL
from ptb import differences
from ptb.cells import CELLS

OPTIONS = {
    "mean": {"reduction": "mean"},
    "decay of the softmax weights": {"softmax_l2": 0.1},
    "dropout between the layers": {"keep_prob": 0.5, "drop_input": False, "drop_output": False},
    "reaching further back": {"num_steps": 3, "bptt_steps": 7},
    "reaching further back, with dropout": {"num_steps": 3, "bptt_steps": 7, "keep_prob": 0.5},
}


def test_configurations_have_every_cell():
    assert {config.cell for config in CONFIGS.values()} == set(CELLS)


@pytest.mark.parametrize("option", OPTIONS)
def test_gradients_are_those_of_central_differences(option):
    errors = gradcheck.check(dataclasses.replace(SMALL, **OPTIONS[option]))
    assert max(errors.values()) < 5e-6, errors


@pytest.mark.parametrize("model", CONFIGS)
def test_gradients_of_all_configurations_too(model):
    assert max(gradcheck.check(CONFIGS[model]).values()) < 5e-6


def test_a_wrong_gradient_is_found_out(monkeypatch):
    def without_the_recurrent_path(step):
        def cut(z, state, recur):
            return step(z, state, lambda hidden: recur(tf.stop_gradient(hidden)))

        return cut

    monkeypatch.setitem(CELLS, "lstm", CELLS["lstm"]._replace(step=without_the_recurrent_path(CELLS["lstm"].step)))
    errors = gradcheck.check(SMALL, rnn_mode="basic")
    assert errors["lstm_0/kernel"] > 1e-2
    assert errors["softmax_weights"] < 5e-6  # which the recurrent path does not reach


@pytest.mark.parametrize("arguments", [["--model=rnn150"], ["--model=small", "--rnn_mode=basic"]])
def test_the_command_prints_an_error_for_each_variable(arguments):
    process = processes.succeed("gradcheck.py", *arguments)
    assert {line.split()[1].split("/")[-1] for line in process.stdout.splitlines()} >= {"embedding", "kernel", "softmax_bias"}


def test_the_command_fails_where_an_error_is_too_large():
    process = processes.run("gradcheck.py", "--model=rnn150", before=take_differences_too_far_apart)
    assert process.returncode == 1
    assert process.stdout.splitlines()[-1].startswith("FAILED: over 1e-05 off: embedding, ")


def take_differences_too_far_apart():
    differences.EPSILON = 1.0
