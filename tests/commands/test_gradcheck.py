"""The command gradcheck.py: what it prints, and its exit code."""

from helpers import processes
from ptb.training import gradient_check


def test_it_prints_an_error_for_each_variable():
    arguments = ("--model=medium", "--rnn_mode=stepwise", "--set", "layers=1", "--set", "dropout=0")
    lines = [line.split() for line in processes.succeed("gradcheck.py", *arguments).stdout.splitlines()]
    layer = {f"lstm_0/{name}" for name in ("kernel", "recurrent_kernel", "bias")}
    assert {name for _, name in lines} == {"embedding", "softmax_weights", "softmax_bias"} | layer
    assert all(0 <= float(error) <= 1e-5 for error, _ in lines)


def test_it_fails_if_an_error_is_too_large():
    process = processes.run("gradcheck.py", "--model=rnn150", before=take_large_differences)
    assert process.returncode == 1
    assert process.stdout.splitlines()[-1].startswith("FAILED")
    assert "embedding" in process.stdout.splitlines()[-1]


def take_large_differences():
    gradient_check.EPSILON = 1.0
