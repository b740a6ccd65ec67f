"""Text to arrays, the interface of `ptb.data`.

    corpus = load_corpus("simple-examples/data")             # or None: PTB, downloaded once; or "demo": built-in
    for inputs, targets in windows(corpus.train, batch_size=20, num_steps=35):
        ...                                                  # int32 [20, 35]; targets is one step ahead of inputs

1. A text has words separated by whitespace, and lines of any length. Each line gives its words (or at level "char" its
   characters), then one `<eos>`.
2. `Vocabulary` numbers the words of the training text by descending count. A `Corpus` holds the vocabulary and the ids of
   train, valid and test, each int32 `[N]`.
3. `windows` cuts ids into `batch_size` contiguous streams, and these into windows `[batch_size, num_steps]`. Row b of a
   window continues row b of the window before, so a model can carry its state from one window to the next.
4. `validation_windows` are windows of a text that may be too short for so many streams. `scoring_windows` are those in which a
   text is scored: batch size 1, every prediction once.

Data that cannot be used raises `DataError`. Its message is one line: the file, what is wrong, what to do.
"""

from ptb.data.corpus import Corpus, load_corpus, read_corpus
from ptb.data.files import DataError
from ptb.data.vocabulary import Vocabulary
from ptb.data.windows import Windows, scoring_windows, validation_windows, windows

__all__ = [
    "Corpus",
    "DataError",
    "Vocabulary",
    "Windows",
    "load_corpus",
    "read_corpus",
    "scoring_windows",
    "validation_windows",
    "windows",
]
