"""corpora.py against real servers on loopback: sound copies of the files, damaged ones, and none that answers."""

import hashlib
import http.server
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import corpora
import reader
from ptb import grammar

REPOSITORY = Path(__file__).parents[1]
FILES = {
    "ptb.train.txt": b" the cat saw the dog \n" * 20_000,
    "ptb.valid.txt": b" the dog \n" * 20_000,
    "ptb.test.txt": b" the cat \n" * 20_000,
}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


class Copies(http.server.BaseHTTPRequestHandler):
    """One copy of the files for each way to give them: /good/ptb.train.txt, /wrong/ptb.train.txt …"""

    def do_GET(self):
        self.server.requests.append(self.path)
        kind, name = self.path.strip("/").split("/")
        content = FILES[name]
        if kind == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if kind == "good":
            self.wfile.write(content)
        elif kind == "wrong":
            self.wfile.write(content.replace(b"the", b"teh"))
        else:  # closes, resets or stalls the connection in mid-file
            self.wfile.write(content[: len(content) // 2])
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif kind == "stalled":
                self.server.closing.wait(60)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Copies) as server:
        server.requests, server.closing = [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture
def closed_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def assert_holds_the_files(folder):
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_what_is_missing_or_damaged_is_downloaded_and_nothing_else(tmp_path, server, capfd):
    folder, mirrors = tmp_path / "datasets/ptb", [f"{server.url}/good"]
    assert corpora.download_ptb(folder, mirrors, SHA256) == folder
    assert_holds_the_files(folder)
    assert sorted(server.requests) == ["/good/ptb.test.txt", "/good/ptb.train.txt", "/good/ptb.valid.txt"]
    out, err = capfd.readouterr()
    assert out == ""
    assert "licensed by the Linguistic Data Consortium" in err

    server.requests.clear()
    corpora.download_ptb(folder, mirrors, SHA256)
    assert server.requests == []
    assert capfd.readouterr() == ("", "")

    (folder / "ptb.train.txt").write_bytes(FILES["ptb.train.txt"][:1000])
    (folder / "ptb.valid.txt").unlink()
    corpora.download_ptb(folder, mirrors, SHA256)
    assert server.requests == ["/good/ptb.train.txt", "/good/ptb.valid.txt"]
    assert_holds_the_files(folder)


@pytest.mark.parametrize("kind", ["missing", "wrong", "broken", "reset", "stalled", "down"])
def test_a_bad_copy_gives_way_to_the_next(tmp_path, server, closed_port, kind):
    bad = f"http://127.0.0.1:{closed_port}" if kind == "down" else f"{server.url}/{kind}"
    checksum = {"ptb.train.txt": SHA256["ptb.train.txt"]}
    corpora.download_ptb(tmp_path, [bad, f"{server.url}/good"], checksum, timeout=2.0)
    assert os.listdir(tmp_path) == ["ptb.train.txt"]
    assert (tmp_path / "ptb.train.txt").read_bytes() == FILES["ptb.train.txt"]
    asked = [path.split("/")[1] for path in server.requests]
    assert asked == (["good"] if kind == "down" else [kind, "good"])


def test_when_every_copy_is_bad_the_error_says_where_to_put_the_files(tmp_path, server, closed_port):
    (tmp_path / "ptb.test.txt").write_bytes(FILES["ptb.test.txt"])
    (tmp_path / "ptb.valid.txt").write_bytes(b"damaged")
    mirrors = [f"{server.url}/{kind}" for kind in ("missing", "broken", "wrong")] + [f"http://127.0.0.1:{closed_port}"]
    with pytest.raises(reader.DataError) as error:
        corpora.download_ptb(tmp_path, mirrors, SHA256)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("ptb.train.txt: none of 4 public copies could be downloaded")
    assert message.endswith(
        f"put ptb.train.txt, ptb.valid.txt, ptb.test.txt into {tmp_path}, or pass the folder that holds them with --data_path"
    )
    assert sorted(os.listdir(tmp_path)) == ["ptb.test.txt", "ptb.valid.txt"]


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(reader.DataError, match="cannot be written .*set KERAS_HOME") as error:
        corpora.download_ptb(tmp_path / "file/datasets/ptb", [])
    assert str(tmp_path / "file/datasets/ptb") in str(error.value)


def test_a_killed_download_leaves_no_part_under_the_name_of_the_whole(tmp_path, server):
    code = f"""
import pathlib, resource, signal, corpora
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which kills the process when it writes more into a file
corpora.download_ptb(pathlib.Path({str(tmp_path)!r}), [{f"{server.url}/good"!r}], {SHA256!r})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.PIPE)
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    (part,) = tmp_path.rglob("ptb.*")
    assert (part.parent.parent, part.stat().st_size) == (tmp_path, 1000)
    corpora.download_ptb(tmp_path, [f"{server.url}/good"], SHA256)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("ptb.*")} == FILES


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:{}", "http:/127.0.0.1:{}"])
def test_without_a_network_one_message_names_the_cache(tmp_path, closed_port, proxy):
    environment = os.environ | {"KERAS_HOME": str(tmp_path), "https_proxy": proxy.format(closed_port)}
    code = """
import corpora, reader
try:
    corpora.load_corpus(None)
except reader.DataError as error:
    print(error)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert "none of 3 public copies" in done.stdout
    assert f"into {tmp_path}/datasets/ptb, or pass the folder that holds them with --data_path" in done.stdout
    assert done.stdout.count("\n") == 1


def test_ptb_in_the_cache_needs_no_network_and_no_keras(tmp_path, monkeypatch, ptb_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/ptb").symlink_to(Path(ptb_path).resolve())
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    code = "import corpora, sys; print(len(corpora.load_corpus(None).test), 'keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("82430 False\n", "")


def test_the_cache_is_that_of_keras(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert corpora.ptb_cache() == Path("/home/someone/.keras/datasets/ptb")
    monkeypatch.setenv("KERAS_HOME", "/data/keras")
    assert corpora.ptb_cache() == Path("/data/keras/datasets/ptb")


def test_a_path_is_read_as_files(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    for name, content in FILES.items():
        (tmp_path / "demo" / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    corpus = corpora.load_corpus("./demo")
    assert len(corpus.test) == 60_000
    assert corpora.load_corpus("./demo", reader.Vocabulary((reader.UNK, reader.EOS))).test[:3].tolist() == [0, 0, 1]


def test_the_demo_is_the_text_of_the_grammar():
    text = grammar.demo_text(seed=0)
    corpus = corpora.load_corpus("demo")
    for lines, tokens in ((text.train, corpus.train), (text.valid, corpus.valid), (text.test, corpus.test)):
        words = " ".join(corpus.vocabulary.words[index] for index in tokens)
        assert words == " ".join(f"{line} <eos>" for line in lines)
