"""Train configurations on one device and on two, all in one process, which must have been forked for this."""

import os

import tensorflow as tf

from helpers.training_runs import begin
from ptb.data.corpus import load_corpus
from ptb.runtime import replicas


def train_on_one_and_on_two(configs, data_path, folder):
    """Train each configuration, by name, in `folder/<name>-1` and, on two logical CPUs, in `folder/<name>-2`."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        with open(f"{folder}/{name}", "w") as file:
            os.dup2(file.fileno(), number)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    corpus = load_corpus(data_path)
    for strategy in ("none", "mirrored"):  # one strategy for all: the keys of a second one's collectives would clash
        with replicas.make_strategy(strategy, 2).scope():
            for name, config in configs.items():
                begin(config, corpus, f"{folder}/{name}-{replicas.num_replicas()}")
