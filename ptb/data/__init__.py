"""Text to arrays: vocabulary, corpus and windows `[batch, num_steps]`, with the files and corpora they come from.

Nothing in this package imports TensorFlow or Keras.

| module | contents |
|---|---|
| vocabulary | text to tokens, tokens to ids, and back |
| corpus | `Corpus`: the ids of train, valid and test; `load_corpus` reads one from any source |
| windows | ids to `(inputs, targets)` for training and scoring |
| sources | what a path names: train, valid and test, or documents that are one text |
| files, archives | bytes to characters, also of compressed files and archives; `DataError` |
| memmap | ids of texts too large for memory |
| download | Penn Treebank from public mirrors |
| grammar | the built-in demo corpus with known entropy |
"""
