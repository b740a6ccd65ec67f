"""The limits of the machine, measured like contestants: a step is one large matrix product, or one pass over memory.

The rate of the product limits arithmetic. The recurrence of a large model on a GPU computes little on much data. Its limit is
the rate at which memory is read and written, measured by `target -= source`.
"""

import tensorflow as tf

from benchmarks.peers.tensorflow_trainer import TensorFlowTrainer

PRODUCT_SIZE = {"CPU": 2048, "GPU": 8192}
STREAM_BYTES = {"CPU": 2**27, "GPU": 2**30}  # far more than the caches hold


class Trainer(TensorFlowTrainer):
    """Measures one limit: `what` is "product", in the given precision, or "stream".

    `description["work_per_step"]` is the number of floating-point operations or of bytes in one step.
    """

    def __init__(self, workload, precision, what):
        super().__init__(workload, precision)
        device = "GPU" if self.gpus else "CPU"
        if what == "product":
            size = PRODUCT_SIZE[device]
            a, b = tf.unstack(tf.cast(tf.random.normal([2, size, size]), self.product_dtype))
            self.step = lambda: tf.matmul(a, b)
            self.description["work_per_step"] = 2 * size**3
        else:
            target, source = [tf.Variable(numbers) for numbers in tf.random.normal([2, STREAM_BYTES[device] // 4])]
            self.step = lambda: target.assign_sub(source, read_value=False) or target
            self.description["work_per_step"] = 3 * STREAM_BYTES[device]  # two arrays are read, one is written

    def train(self, steps):
        for _ in range(steps):
            result = self.step()
        return finish(result)


def finish(result) -> float:
    """Wait until the device has finished all its work, by reading one number of the last result. Return that number."""
    last = tf.nest.flatten(result)[-1]
    return float(tf.reshape(last, [-1])[0])
