"""Shared by all contestants that use TensorFlow."""

import itertools

import tensorflow as tf

from ptb.runtime import devices


class TensorFlowTrainer:
    """Sets up device, precision and data. A subclass adds the model and `train`."""

    def __init__(self, workload, precision):
        self.gpus = devices.visible_gpus()
        self.product_dtype = devices.use_precision(precision)
        self.workload = workload
        self.windows = itertools.cycle(workload.windows())
        names = [tf.config.experimental.get_device_details(gpu)["device_name"] for gpu in self.gpus[:1]]
        self.description = {"device": names[0] if names else "CPU", "versions": {"tensorflow": tf.__version__}}

    def gpu_peak_bytes(self):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if self.gpus else None
