"""Exported models against NumPy, read by what other programs read them with. Formats of an extra are skipped without it."""

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

import ptb
from configs import TEST
from helpers import in_process, oracle
from helpers.processes import ON_THE_CPU, files_of_at_most
from helpers.rejected import contents
from helpers.run_files import ids_and_weights, write_run
from helpers.texts import raises_one_line
from ptb.config import override
from ptb.data.download import PTB_FINGERPRINT
from ptb.data.files import DAY
from ptb.runs import export as package
from ptb.runs.export import FORMATS, ExportError, export
from ptb.runs.storage import RunError

WORDS = ("the", "<eos>", "dogs", "cat", "sees", "and", "see", "<unk>")
CONFIG = override(TEST, {"layers": (4, 4), "init_scale": 0.7, "dropout": 0.5})
IDS = np.array([[1, 0, 3, 4, 1], [1, 5, 7, 2, 6]], np.int32)
LENGTHS = np.array([5, 3], np.int32)
TEXT = "the cat sees the zebra\nthe dogs see\n"


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_run(folder, CONFIG, WORDS, data_path="somewhere/text")
    return ptb.load(folder)


@pytest.fixture(scope="module")
def exported(lm, tmp_path_factory):
    """Return `exported(format)`, the path of the model in that format; it skips the test if a package is missing."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def exported(name):
        for needed in FORMATS[name].packages:
            pytest.importorskip(needed)
        written = export(lm, name, folder)
        assert written.path == folder / FORMATS[name].file
        assert written.difference < 1e-5
        return written.path

    return exported


@pytest.fixture(scope="module")
def expected(lm):
    """Log p of every word after each of IDS, by NumPy."""
    return oracle.log_probabilities(ids_and_weights(lm.run.path)[1], IDS, CONFIG.model)


def zeros(batch_size):
    return {f"state_{layer}_{part}": np.zeros((batch_size, 4), np.float32) for layer in (0, 1) for part in ("hidden", "cell")}


SERVE = """
import sys
import numpy as np, tensorflow as tf
assert "ptb" not in sys.modules
given = {name: tf.constant(array) for name, array in np.load("given.npz").items()}
signatures = tf.saved_model.load("saved_model").signatures
scores = signatures["score"](ids=given["ids"], lengths=given.pop("lengths"))
first, second = given["ids"][:, :2], given.pop("ids")[:, 2:]
before = signatures["next_word"](ids=first, **given)
after = signatures["next_word"](ids=second, **{name: before[f"new_{name}"] for name in given})
both = tf.concat([before["log_probabilities"], after["log_probabilities"]], 1)
np.savez("served.npz", both=both, total=scores["total"], each=scores["log_probabilities"])
"""


@pytest.mark.slow
def test_a_saved_model_is_served_where_nothing_but_tensorflow_is(lm, exported, expected):
    folder = exported("saved_model").parent
    export(lm, "saved_model", folder)  # replaces the first one
    np.savez(folder / "given.npz", ids=IDS, lengths=LENGTHS, **zeros(2))
    done = subprocess.run([sys.executable, "-c", SERVE], cwd=folder, env=ON_THE_CPU, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    served = np.load(folder / "served.npz")
    np.testing.assert_allclose(served["both"], expected, rtol=1e-5, atol=1e-6)
    each = np.take_along_axis(expected[:, :-1], IDS[:, 1:, np.newaxis], 2)[..., 0]
    each[1, 2:] = 0  # after the length of the second sentence
    np.testing.assert_allclose(served["each"], each, rtol=1e-5)
    np.testing.assert_allclose(served["total"], each.sum(1), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter")
def test_tensorflow_lite_carries_the_state_from_word_to_word(exported, expected):
    import tensorflow as tf

    path = exported("tflite")
    assert path.stat().st_size > 1000
    next_word = tf.lite.Interpreter(str(path)).get_signature_runner("next_word")
    state = zeros(1)
    for token, log_p in zip(IDS[0], expected[0]):
        found = next_word(ids=np.array([[token]], np.int32), **state)
        np.testing.assert_allclose(found["log_probabilities"][0, 0], log_p, rtol=1e-5)
        state = {name: found[f"new_{name}"] for name in state}


@pytest.mark.slow
def test_onnx_takes_any_batch_and_carries_the_state(exported, expected):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(exported("onnx")), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    first = dict(zip(names, session.run(None, {"ids": IDS[:, :2]} | zeros(2))))
    state = {name: first[f"new_{name}"] for name in zeros(2)}
    second = dict(zip(names, session.run(None, {"ids": IDS[:, 2:]} | state)))
    both = np.concatenate([part["log_probabilities"] for part in (first, second)], 1)
    np.testing.assert_allclose(both, expected, rtol=1e-5, atol=1e-6)


# Changes to CONFIG, and the parts of a layer's state.
MODELS = {
    "gru": ({"cell": "gru"}, ("hidden",)),
    "mogrifier": ({"cell": "mogrifier_lstm", "mogrifier_rank": 2}, ("hidden", "cell")),
    "tied, projection": ({"embedding_size": 3, "tied": True, "projection": "affine"}, ("hidden", "cell")),
    "mixture": ({"mixture": 2}, ("hidden", "cell")),
    "sum of layers": ({"sum_layers": True}, ("hidden", "cell")),
}


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "parts"), MODELS.values(), ids=MODELS)
def test_a_saved_model_of_any_architecture(changes, parts, tmp_path):
    import tensorflow as tf

    config = override(CONFIG, changes)
    write_run(tmp_path, config, WORDS)
    next_word = tf.saved_model.load(str(export(ptb.load(tmp_path), "saved_model").path)).signatures["next_word"]
    state = {f"state_{layer}_{part}": tf.zeros([2, 4]) for layer in (0, 1) for part in parts}
    assert {*next_word.structured_input_signature[1]} == {"ids", *state}
    found = next_word(ids=tf.constant(IDS), **state)
    assert found.keys() == {"log_probabilities", *[f"new_{name}" for name in state]}
    expected = oracle.log_probabilities(ids_and_weights(tmp_path)[1], IDS, config.model)
    np.testing.assert_allclose(found["log_probabilities"], expected, rtol=1e-5, atol=1e-6)


def test_keras_and_safetensors_hold_the_weights(exported, lm):
    import keras

    _, weights = ids_and_weights(lm.run.path)
    assert oracle.weights_of(keras.models.load_model(exported("keras"))).keys() == weights.keys()
    arrays = pytest.importorskip("safetensors.numpy").load_file(exported("safetensors"))
    assert arrays.keys() == weights.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, weights[name])


def test_pytorch_computes_the_same_with_its_own_layers(exported, expected):
    torch = pytest.importorskip("torch")
    state_dict = torch.load(exported("torch"), weights_only=True)

    class RNNModel(torch.nn.Module):  # as in PyTorch's examples, word_language_model/model.py
        def __init__(self):
            super().__init__()
            self.encoder, self.rnn = torch.nn.Embedding(8, 4), torch.nn.LSTM(4, 4, 2)
            self.decoder = torch.nn.Linear(4, 8)

        def forward(self, ids):
            return torch.log_softmax(self.decoder(self.rnn(self.encoder(ids))[0]), -1)

    model = RNNModel()
    model.load_state_dict(state_dict)
    with torch.no_grad():
        found = model(torch.tensor(IDS.T)).numpy().transpose(1, 0, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_word_vectors(exported, lm):
    _, weights = ids_and_weights(lm.run.path)
    first, *rows = exported("word2vec").read_text().splitlines()
    assert first == "8 4"
    assert [row.split(" ")[0] for row in rows] == [*WORDS]
    np.testing.assert_array_equal(np.array([row.split(" ")[1:] for row in rows], np.float32), weights["embedding"])
    with np.load(exported("npz")) as file:
        assert file["words"].tolist() == [*WORDS]
        np.testing.assert_array_equal(file["embeddings"], weights["embedding"])


def test_a_text_is_read_as_that_of_the_training(tmp_path):
    write_run(tmp_path / "run", override(CONFIG, {"lowercase": True}), WORDS, encoding="utf-16")
    (tmp_path / "text.txt").write_text("The CAT\n", encoding="utf-16")
    exported = export(ptb.load(tmp_path / "run"), "npz", tmp_path / "new", tmp_path / "text.txt")
    with np.load(exported.path) as file:
        assert file["words"][file["token_ids"]].tolist() == ["the", "cat", "<eos>"]


def test_hidden_states_of_a_text_by_the_command(lm, tmp_path, monkeypatch):
    monkeypatch.setattr("ptb.runs.load.PROMPT_WINDOW", 4)
    (tmp_path / "text.txt").write_text(TEXT)
    flags = ("--format=npz", f"--text={tmp_path / 'text.txt'}", f"--output={tmp_path / 'new'}")
    printed = in_process.succeed("export.py", lm.run.path, *flags).stdout
    assert str(tmp_path / "new" / "vectors.npz") in printed
    tokens = TEXT.replace("\n", " <eos> ").replace("zebra", "<unk>").split()
    ids, weights = ids_and_weights(lm.run.path)
    features = weights["embedding"][[[ids[token]] for token in tokens]].astype(np.float64)
    with np.load(tmp_path / "new" / "vectors.npz") as file:
        assert file["words"][file["token_ids"]].tolist() == tokens
        assert file["token_ids"].dtype == np.int32
        for layer in (0, 1):
            parts = [weights[f"lstm_{layer}/{name}"] for name in ("kernel", "recurrent_kernel", "bias")]
            features = oracle.lstm(features, np.zeros((1, 4)), np.zeros((1, 4)), *parts)[0]
            np.testing.assert_allclose(file[f"layer_{layer}"], features[:, 0], rtol=1e-4, atol=1e-6)


def test_the_card_names_what_is_known_and_the_files_that_are_there(lm, tmp_path):
    folder = tmp_path / "new"
    for name in ("npz", "word2vec"):
        export(lm, name, folder)
    card = (folder / "README.md").read_text()
    assert {*re.findall(r"^\| `(\S+)` \|", card, re.MULTILINE)} == {path.name for path in folder.iterdir()} - {"README.md"}
    assert all(
        fact in card for fact in ("somewhere/text", "`model.layers` (4, 4)", f"{lm.model.count_params():,}", "not measured")
    )
    assert (folder / "vocabulary.txt").read_bytes() == lm.vocabulary.to_bytes()
    write_run(tmp_path, CONFIG, WORDS, corpus=PTB_FINGERPRINT, data_path="../ptb")
    (tmp_path / "result.json").write_text(json.dumps({"test_perplexity": 114.51, "valid_perplexity": 120.25}))
    export(ptb.load(tmp_path), "word2vec")
    card = (tmp_path / "export" / "README.md").read_text()
    assert all(
        fact in card for fact in ("114.510", "120.250", PTB_FINGERPRINT, "on the Penn Treebank", "Linguistic Data Consortium")
    )


def test_the_card_names_the_run_whose_weights_were_the_start(tmp_path):
    write_run(tmp_path, CONFIG, WORDS, data_path="demo", init_from={"run": "runs/ptb-1"})
    export(ptb.load(tmp_path), "word2vec")
    assert "weights of runs/ptb-1" in (tmp_path / "export" / "README.md").read_text()


def test_a_readme_of_something_else_is_not_replaced_and_a_card_is(lm, tmp_path):
    (tmp_path / "README.md").write_text("# My project\n")
    before = contents(tmp_path)
    with raises_one_line(ExportError, tmp_path / "README.md", "--output"):
        export(lm, "word2vec", tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / "README.md").unlink()
    for _ in range(2):
        assert export(lm, "word2vec", tmp_path).difference == 0


@pytest.mark.parametrize(("name", "own"), [("word2vec", "vectors.txt"), ("saved_model", "saved_model/weights")])
def test_what_has_the_name_of_a_file_and_is_of_something_else_is_not_replaced(lm, name, own, tmp_path):
    (tmp_path / own).parent.mkdir(exist_ok=True)
    (tmp_path / own).write_text("mine")
    before = contents(tmp_path)
    with raises_one_line(ExportError, tmp_path / FORMATS[name].file, "--output"):
        export(lm, name, tmp_path)
    assert contents(tmp_path) == before


def test_a_full_disk_is_named_and_leaves_nothing_in_the_way_of_the_next_try(lm, tmp_path):
    card = export(lm, "word2vec", tmp_path / "other").path.with_name("README.md")
    for size in (10, card.stat().st_size - 1):  # bytes: less than the vectors; less than the card
        with raises_one_line(RunError, tmp_path / "new"), files_of_at_most(size):
            export(lm, "word2vec", tmp_path / "new")
        assert not (tmp_path / "new").exists()
    export(lm, "word2vec", tmp_path / "new")


@pytest.mark.parametrize("part", ["ptb.runs.export.model_card", "ptb.data.vocabulary.Vocabulary.to_bytes"])
def test_a_stopped_export_is_no_owner_of_its_folder(lm, part, tmp_path, monkeypatch):
    with monkeypatch.context() as patches, pytest.raises(KeyboardInterrupt):
        patches.setattr(part, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        export(lm, "word2vec", tmp_path / "new")
    export(lm, "word2vec", tmp_path / "new")


def test_what_killed_exports_left_is_deleted_after_a_day(lm, tmp_path):
    for name, age in ((".export-old", 2 * DAY), (".export-new", 0)):
        (tmp_path / name / "saved_model").mkdir(parents=True)
        os.utime(tmp_path / name, times=(time.time() - age,) * 2)
    export(lm, "word2vec", tmp_path)
    assert [path.name for path in tmp_path.glob(".export-*")] == [".export-new"]  # may still be in use


def test_names_that_are_not_utf8(tmp_path):
    run = tmp_path / os.fsdecode(b"\xe9")
    write_run(run, CONFIG, WORDS, data_path=os.fsdecode(b"caf\xe9.txt"))
    for _ in range(2):  # the second time the card is known
        export(ptb.load(run), "word2vec", tmp_path / "new")
    assert "caf\\udce9.txt" in (tmp_path / "new" / "README.md").read_text()


def test_files_of_another_model_or_run_are_not_mixed_with_those_of_this_one(lm, tmp_path):
    write_run(tmp_path / "run", CONFIG, WORDS, seed=2)
    other = ptb.load(tmp_path / "run")
    export(other, "word2vec")
    for folder, named in ((tmp_path / "run", "config.json"), (tmp_path / "run" / "export", "README.md")):
        before = contents(folder)
        with raises_one_line(ExportError, folder / named, "--output"):
            export(lm, "npz", folder)
        assert contents(folder) == before
    assert {path.name for path in (tmp_path / "run" / "export").iterdir()} == {"README.md", "vocabulary.txt", "vectors.txt"}


def test_the_card_has_the_perplexities_of_its_own_weights_alone(tmp_path):
    write_run(tmp_path, CONFIG, WORDS)
    (tmp_path / "result.json").write_text(json.dumps({"test_perplexity": 114.51, "valid_perplexity": 120.25}))
    with np.load(tmp_path / "checkpoint-000000000.npz") as file:
        arrays = dict(file)
    record = json.loads(arrays.pop("__record__").tobytes())
    for step in (1, 2):
        written = json.dumps(record | {"step": step, "best_step": 1}).encode()
        np.savez(tmp_path / f"checkpoint-{step:09d}.npz", __record__=np.frombuffer(written, np.uint8), **arrays)
    export(ptb.load(tmp_path, checkpoint="last"), "word2vec", tmp_path / "a")  # the result is that of the last weights
    export(ptb.load(tmp_path), "word2vec", tmp_path / "b")
    assert "114.510" in (tmp_path / "a" / "README.md").read_text()
    assert "not measured with these weights" in (tmp_path / "b" / "README.md").read_text()


def test_a_folder_of_a_user_who_does_not_exist_is_taken_as_it_is(lm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert export(lm, "word2vec", "~nobody1/out").path.is_file()


@pytest.mark.parametrize("exists", [False, True])
def test_a_file_that_differs_from_the_model_is_an_error_and_is_not_left(lm, exists, tmp_path, monkeypatch):
    def write_wrongly(source, path):
        FORMATS["word2vec"].write(source, path)
        path.write_text(re.sub(r"-0\.(\d)", r"-1.\1", path.read_text()))

    if exists:
        export(lm, "word2vec", tmp_path / "out")
    before = contents(tmp_path)
    wrong = FORMATS["word2vec"]._replace(write=write_wrongly)
    monkeypatch.setattr(package, "FORMATS", FORMATS | {"wrong": wrong})
    with raises_one_line(ExportError, tmp_path / "out" / "vectors.txt"):
        export(lm, "wrong", tmp_path / "out")
    assert contents(tmp_path) == before


def test_a_missing_extra_is_named(lm, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("onnx", "torch", "safetensors"):
        with raises_one_line(ExportError, f"--format={name}", f"pip install '.[{name}]'"):
            export(lm, name, tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("changes", [{"cell": "gru"}, {"layers": (4, 3)}, {"one_hot_input": True}, {"projection": "affine"}])
def test_what_pytorch_has_no_layers_for(changes, tmp_path):
    pytest.importorskip("torch")
    write_run(tmp_path, override(CONFIG, changes), WORDS)
    with raises_one_line(ExportError, "model.pt", "safetensors"):
        export(ptb.load(tmp_path), "torch")
    assert not (tmp_path / "export").exists()
