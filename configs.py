"""The named configurations, each beside the published numbers that it is to reach.

The first three are the rows of Zaremba, Sutskever & Vinyals (2014), "Recurrent Neural Network Regularization", section 4.1 and
Table 1, with the values of TensorFlow's tutorial `ptb_word_lm.py` where the two differ. An experiment is a
`dataclasses.replace` of another configuration, with a name.
"""

import dataclasses

from ptb.model import LanguageModel
from ptb.schedule import learning_rate


@dataclasses.dataclass(frozen=True)
class Config:
    """All that decides what a run learns, but for the text and the seed."""

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
    forget_bias: float = 0.0
    decay_convention: str = "tutorial"  # or "lua": see ptb.schedule
    norm_of_repeats: str = "summed"  # or "apart": see ptb.training

    def learning_rate_of(self, epoch):
        """Returns the learning rate of an epoch, counted from 1."""
        return learning_rate(
            epoch,
            base=self.learning_rate,
            decay=self.lr_decay,
            full_rate_epochs=self.full_rate_epochs,
            convention=self.decay_convention,
        )

    def make_model(self, vocab_size, **choices):
        """Returns a new model of this configuration; `choices` are the kernel, the precision and the seed."""
        return LanguageModel(
            vocab_size,
            self.hidden_size,
            self.num_layers,
            keep_prob=self.keep_prob,
            init_scale=self.init_scale,
            forget_bias=self.forget_bias,
            **choices,
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
# The decay is the tutorial's; the paper divides by 1.2 (× 0.833).
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
    lr_decay=0.8,
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

# What two choices are worth on which reproductions differ (README, "Where the originals differ").
SMALL_LUA_DECAY = dataclasses.replace(SMALL, decay_convention="lua")
SMALL_REPEATS_APART = dataclasses.replace(SMALL, norm_of_repeats="apart")
SMALL_LUA_DECAY_REPEATS_APART = dataclasses.replace(SMALL_LUA_DECAY, norm_of_repeats="apart")

CONFIGS = {
    "small": SMALL,
    "medium": MEDIUM,
    "large": LARGE,
    "test": TEST,
    "demo": DEMO,
    "small_lua_decay": SMALL_LUA_DECAY,
    "small_repeats_apart": SMALL_REPEATS_APART,
    "small_lua_decay_repeats_apart": SMALL_LUA_DECAY_REPEATS_APART,
}
