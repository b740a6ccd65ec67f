"""Stock Keras: stateful `keras.layers.LSTM`, `compile` and `train_on_batch`."""

import keras

from benchmarks.peers.tensorflow_trainer import TensorFlowTrainer


class Trainer(TensorFlowTrainer):
    """By default Keras chooses: cuDNN on a GPU, XLA elsewhere (`jit_compile="auto"`)."""

    def __init__(self, workload, precision, unroll=False, jit_compile="auto"):
        super().__init__(workload, precision)
        keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
        layers = [
            keras.Input(batch_shape=(workload.batch_size, workload.num_steps), dtype="int32"),
            keras.layers.Embedding(workload.vocab_size, workload.hidden_size),
            *self._dropout(),
        ]
        for _ in range(workload.num_layers):
            layers.append(keras.layers.LSTM(workload.hidden_size, return_sequences=True, stateful=True, unroll=unroll))
            layers.extend(self._dropout())
        layers.append(keras.layers.Dense(workload.vocab_size))
        self.model = keras.Sequential(layers)
        self.model.compile(
            keras.optimizers.SGD(workload.learning_rate, global_clipnorm=workload.clip_norm),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            loss_weights=float(workload.num_steps),  # the loss is the mean over batch and time; this makes it the sum over time
            jit_compile=jit_compile,
        )
        self.description["versions"]["keras"] = keras.__version__

    def train(self, steps):
        for _ in range(steps):
            loss = self.model.train_on_batch(*next(self.windows))
        return float(loss)

    def _dropout(self):
        return [keras.layers.Dropout(self.workload.dropout)] if self.workload.dropout else []
