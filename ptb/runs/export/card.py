"""The model card that goes with exported files: what the model is, what it was trained on, and how to use each file."""

import hashlib

from ptb.config import Config, differences
from ptb.runs.load import TrainedModel
from ptb.runs.texts import is_ptb

USES = {
    "keras": '`from ptb import LanguageModel`, `keras.models.load_model("{file}")`, then `logits, state = model(ids, state)`',
    "saved_model": '`tf.saved_model.load("{file}").signatures`: `score(ids, lengths)` and `next_word(ids, state_…)`',
    "tflite": "a TensorFlow Lite interpreter: the signature `next_word(ids [1, 1], state_…)`",
    "onnx": '`onnxruntime.InferenceSession("{file}")`: `ids [batch, steps]`, `state_…` → `log_probabilities`, `new_state_…`',
    "safetensors": '`safetensors.numpy.load_file("{file}")`: all weights by name; the configuration is in the metadata',
    "torch": '`torch.load("{file}", weights_only=True)`: encoder, rnn and decoder of PyTorch\'s word_language_model',
    "npz": '`numpy.load("{file}")`: `words`, `embeddings`; of a text `token_ids` and `layer_0`, …',
    "word2vec": '`gensim.models.KeyedVectors.load_word2vec_format("{file}")`: the input embeddings',
}
TITLE = ", a recurrent language model"  # after the name of the configuration
UNITS = {
    "word": "words, separated by whitespace",
    "char": "characters; a space is `_`",
    "symbol": "symbols, separated by whitespace",
}


def model_card(lm: TrainedModel, files: dict[str, str]) -> str:
    """Return the card in Markdown. `files` are the names of the exported files by their format."""
    record, source = lm.record, lm.record.get("init_from")
    unit = UNITS[lm.config.data.level]
    text = "the Penn Treebank" if is_ptb(record) else record["data_path"] or "a text without a name"
    lines = [
        f"# {record['model']}{TITLE}",
        "",
        f"{lm.model.count_params():,} parameters, {len(lm.vocabulary):,} {unit}.",
        identity(lm),
        "",
        "| perplexity | |",
        "|---|---|",
        *_perplexities(lm),
        "",
        "## Text",
        "",
        f"Trained on {text}, fingerprint `{record['corpus']}`. {licence(record)}",
        *([f"Training began with the weights of {source['run']}: the licence of its text counts too."] if source else []),
        "",
        "## Configuration",
        "",
        f"Seed {record['seed']}, precision {record['precision']}. All fields that differ from their defaults:",
        "",
        *[f"- `{path}` {value}" for path, value in differences(lm.config, Config()).items()],
        "",
        "## Files",
        "",
        "| file | use |",
        "|---|---|",
        "| `vocabulary.txt` | one word per line; the id of a word is the number of its line, from 0 |",
        *[f"| `{file}` | {USES[name].format(file=file)} |" for name, file in files.items()],
        "",
        "A text begins with the id of `<eos>` and a state of zeros; every line ends in `<eos>`.",
        "",
    ]
    return _escaped("\n".join(lines))


def is_model_card(text: str) -> bool:
    """Return whether a text is a card that this program wrote, perhaps edited below its title."""
    return text.partition("\n")[0].endswith(TITLE)


def identity(lm: TrainedModel) -> str:
    """Return the line of a card that says which weights the files have."""
    digest = hashlib.sha256(b"".join(array.tobytes() for array in lm.model.get_weights())).hexdigest()
    return _escaped(f"Weights of step {lm.weights.step} of `{lm.run.path.name}`, SHA-256 {digest[:16]}.")


def _escaped(text):
    """Return a text with escapes such as `\\udce9` in place of what is no UTF-8 in the names of files."""
    return text.encode(errors="backslashreplace").decode()


def _perplexities(lm):
    result = lm.run.result
    if result is None:
        return ["| not measured: training has not finished | |"]
    if not lm.weights.best_are_last and lm.weights.are_best != lm.config.keeps_best:
        return ["| not measured with these weights | |"]
    names = ("test_perplexity", "valid_perplexity", "train_perplexity")
    return [
        f"| {name.removesuffix('_perplexity')} | {result[name]:.3f} |" for name in names if isinstance(result.get(name), float)
    ]


def licence(record: dict) -> str:
    """Return what is known of the licence of the text that a run was trained on."""
    if is_ptb(record):
        return (
            "The Linguistic Data Consortium licenses this text to its users: check that you may pass on what was trained on it."
        )
    if record["data_path"] == "demo":
        return "A grammar of the program wrote this text, under the program's licence (Apache 2.0)."
    return "The licence of this text is not known here: add it before you pass the model on."
