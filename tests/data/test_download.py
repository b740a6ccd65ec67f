"""The download of PTB from HTTP servers on this machine: good copies, damaged copies, and servers that do not answer."""

import hashlib
import http.server
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from helpers.texts import raises_one_line
from ptb.data import download
from ptb.data.corpus import load_corpus
from ptb.data.files import DAY, DataError

ROOT = Path(__file__).parents[2]
FILES = {
    "ptb.train.txt": b" the cat saw the dog \n" * 20_000,
    "ptb.valid.txt": b" the dog \n" * 20_000,
    "ptb.test.txt": b" the cat \n" * 20_000,
}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


class Mirrors(http.server.BaseHTTPRequestHandler):
    """Serves one mirror for each kind of behaviour: /good/ptb.train.txt, /wrong/ptb.train.txt, …"""

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
        else:  # close, reset or stall the connection in the middle of the file
            self.wfile.write(content[: len(content) // 2])
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif kind == "stalled" and not self.server.closing.wait(20):
                self.server.requests.append("/stalled/longer than the timeout")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirrors) as server:
        server.requests, server.closing = [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture
def closed_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def assert_complete(folder):
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def test_missing_and_damaged_files_are_downloaded_and_no_others(tmp_path, server, capfd):
    folder, mirrors = tmp_path / "datasets/ptb", [f"{server.url}/good"]
    assert download.download_ptb(folder, mirrors, SHA256) == folder
    assert_complete(folder)
    assert sorted(server.requests) == ["/good/ptb.test.txt", "/good/ptb.train.txt", "/good/ptb.valid.txt"]
    out, err = capfd.readouterr()
    assert out == ""
    assert "Linguistic Data Consortium" in err  # the licence

    server.requests.clear()
    download.download_ptb(folder, mirrors, SHA256)
    assert server.requests == []
    assert capfd.readouterr() == ("", "")

    (folder / "ptb.train.txt").write_bytes(FILES["ptb.train.txt"][:1000])
    (folder / "ptb.valid.txt").unlink()
    download.download_ptb(folder, mirrors, SHA256)
    assert server.requests == ["/good/ptb.train.txt", "/good/ptb.valid.txt"]
    assert_complete(folder)


@pytest.mark.parametrize("kind", ["missing", "wrong", "broken", "reset", "stalled", "down"])
def test_after_a_bad_mirror_the_next_is_tried(tmp_path, server, closed_port, kind, capfd):
    bad = f"http://127.0.0.1:{closed_port}" if kind == "down" else f"{server.url}/{kind}"
    checksum = {"ptb.train.txt": SHA256["ptb.train.txt"]}
    download.download_ptb(tmp_path, [bad, f"{server.url}/good"], checksum, timeout=2.0)
    assert os.listdir(tmp_path) == ["ptb.train.txt"]
    assert (tmp_path / "ptb.train.txt").read_bytes() == FILES["ptb.train.txt"]
    requested = [path.split("/")[1] for path in server.requests]
    assert requested == (["good"] if kind == "down" else [kind, "good"])
    assert f"{bad}/ptb.train.txt" in capfd.readouterr().err


def test_without_a_good_mirror_the_error_says_where_to_put_the_files(tmp_path, server, closed_port):
    (tmp_path / "ptb.test.txt").write_bytes(FILES["ptb.test.txt"])
    (tmp_path / "ptb.valid.txt").write_bytes(b"damaged")
    mirrors = [f"{server.url}/{kind}" for kind in ("missing", "broken", "wrong")] + [f"http://127.0.0.1:{closed_port}"]
    with raises_one_line(DataError, "ptb.train.txt: ", ", ".join(SHA256), tmp_path, "--data_path"):
        download.download_ptb(tmp_path, mirrors, SHA256)
    assert sorted(os.listdir(tmp_path)) == ["ptb.test.txt", "ptb.valid.txt"]


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    folder = tmp_path / "file/datasets/ptb"
    with raises_one_line(DataError, folder, "KERAS_HOME", "--data_path"):
        download.download_ptb(folder, [])


def test_a_killed_download_leaves_no_partial_file_under_the_final_name(tmp_path, server):
    code = f"""
import pathlib, resource, signal
from ptb.data import download
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # kills the process when a file exceeds the limit
download.download_ptb(pathlib.Path({str(tmp_path)!r}), [{f"{server.url}/good"!r}], {SHA256!r})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    assert done.returncode == -signal.SIGXFSZ, done.stderr
    (part,) = tmp_path.rglob("ptb.*")
    assert (part.parent.parent, part.stat().st_size) == (tmp_path, 1000)
    download.download_ptb(tmp_path, [f"{server.url}/good"], SHA256)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("ptb.*")} == FILES


def test_what_killed_downloads_left_is_deleted_after_a_day(tmp_path, server):
    for name, age in ((".download-old", 2 * DAY), (".download-new", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ptb.train.txt").write_bytes(b"half")
        os.utime(tmp_path / name, times=(time.time() - age,) * 2)
    download.download_ptb(tmp_path, [f"{server.url}/good"], SHA256)
    assert [path.name for path in tmp_path.glob(".download-*")] == [".download-new"]  # may still be in use


@pytest.fixture
def fresh_opener():
    """urllib reads the proxies from the environment once, for the first request; let it read them again."""
    urllib.request.install_opener(None)
    yield
    urllib.request.install_opener(None)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:{}", "http:/127.0.0.1:{}"])
def test_without_a_network_one_error_names_the_cache(tmp_path, monkeypatch, closed_port, fresh_opener, proxy, capfd):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", proxy.format(closed_port))
    for name in ("no_proxy", "NO_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with raises_one_line(DataError, tmp_path / "datasets/ptb", "--data_path"):
        load_corpus(None)
    err = capfd.readouterr().err
    assert all(mirror in err for mirror in download.MIRRORS)


def test_the_cache_is_the_folder_of_keras(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert download.ptb_cache() == Path("/home/someone/.keras/datasets/ptb")
    monkeypatch.setenv("KERAS_HOME", "/data/keras")
    assert download.ptb_cache() == Path("/data/keras/datasets/ptb")


def test_the_checksums_are_those_of_ptb(ptb_path):
    digests = {name: hashlib.sha256(Path(ptb_path, name).read_bytes()).hexdigest() for name in FILES}
    assert digests == download.SHA256
