"""PyTorch: `nn.LSTM` (cuDNN on a GPU), SGD and `clip_grad_norm_`. Imports no TensorFlow.

The precision is float32, TF32, or for bfloat16 that of `torch.autocast`.
"""

import itertools

import torch
from torch import nn

from benchmarks.workload import Workload


class LanguageModel(nn.Module):
    """Has dropout after the embedding, between the layers and before the softmax, as in the paper."""

    def __init__(self, workload: Workload):
        super().__init__()
        rate, units = workload.dropout, workload.hidden_size
        self.embedding = nn.Embedding(workload.vocab_size, units)
        self.dropout = nn.Dropout(rate) if rate else nn.Identity()
        self.lstm = nn.LSTM(units, units, workload.num_layers, dropout=rate if workload.num_layers > 1 else 0.0)
        self.decoder = nn.Linear(units, workload.vocab_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -workload.init_scale, workload.init_scale)

    def forward(self, inputs, state):
        """`inputs [num_steps, batch]` → logits `[num_steps, batch, vocab]` and the state after the last step."""
        outputs, state = self.lstm(self.dropout(self.embedding(inputs)), state)
        return self.decoder(self.dropout(outputs)), state


class Trainer:
    def __init__(self, workload, precision):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self.workload, self.autocast = workload, precision == "bfloat16"
        self.model = LanguageModel(workload).to(self.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), workload.learning_rate)
        pairs = [(torch.tensor(i.T, dtype=torch.long), torch.tensor(t.T, dtype=torch.long)) for i, t in workload.windows()]
        self.windows = itertools.cycle([(inputs.to(self.device), targets.to(self.device)) for inputs, targets in pairs])
        self.state = None
        name = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        self.description = {"device": name, "versions": {"torch": torch.__version__}}

    def train(self, steps):
        for _ in range(steps):
            cost = self._train_step(*next(self.windows))
        return cost.item()

    def gpu_peak_bytes(self):
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None

    def _train_step(self, inputs, targets):
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            logits, state = self.model(inputs, self.state)
            losses = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        cost = losses / self.workload.batch_size
        cost.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.workload.clip_norm)
        self.optimizer.step()
        self.state = tuple(tensor.detach() for tensor in state)
        return cost.detach()
