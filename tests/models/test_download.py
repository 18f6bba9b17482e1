"""Fetching from a real server on this machine that can do everything wrong."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from alexkit.errors import DownloadFailed, OutOfSpace
from alexkit.events import Event, StageAdvanced, StageFinished, StageStarted
from alexkit.models import download, zoo
from alexkit.models.download import fetch
from alexkit.models.specs import SPECS, Published

BODY = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/good/… whole, /cut/… half of what it promises, anything else 404."""

    bodies: dict[str, bytes]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = self.bodies.get(self.path.split("/")[-1])
        kind = self.path.split("/")[1]
        if body is None or kind not in ("good", "cut"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if kind == "good" else body[: len(body) // 2])

    def log_message(self, *_args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that holds ``w.pth``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.bodies, Handler.asked = {"w.pth": BODY}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_fetched_once(server: str, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "checkpoints"
    path, sha256 = fetch(f"{server}/good/w.pth", SHA256[:8], folder)
    assert (path, sha256) == (folder / "w.pth", SHA256)
    assert path.read_bytes() == BODY
    assert fetch(f"{server}/good/w.pth", SHA256[:8], folder) == (path, SHA256)
    assert Handler.asked == ["/good/w.pth"], "the second time it is taken from the folder"


def test_how_far_it_is_is_told(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MEGABYTE", 100_000)
    heard: list[Event] = []
    fetch(f"{server}/good/w.pth", SHA256[:8], tmp_path, heard.append)
    assert heard[0] == StageStarted("download", 5, "MB")
    assert [e.done for e in heard if isinstance(e, StageAdvanced)] == [1, 2, 3, 4, 5]
    assert isinstance(heard[-1], StageFinished)


def test_a_wrong_file_in_the_folder_is_fetched_again(server: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(BODY[:1000])
    assert fetch(f"{server}/good/w.pth", SHA256[:8], tmp_path)[1] == SHA256
    assert (tmp_path / "w.pth").read_bytes() == BODY


@pytest.mark.parametrize(
    ("path", "prefix", "said"),
    [
        ("good/w.pth", "00000000", "not the published file"),
        ("cut/w.pth", SHA256[:8], "ended after 256,000 of 512,000 bytes|IncompleteRead"),
        ("good/other.pth", SHA256[:8], "404"),
    ],
    ids=["wrong hash", "cut half way", "not there"],
)
def test_failures_leave_nothing(
    server: str, tmp_path: Path, path: str, prefix: str, said: str
) -> None:
    with pytest.raises(DownloadFailed, match=said) as caught:
        fetch(f"{server}/{path}", prefix, tmp_path)
    assert f"{server}/{path}" in caught.value.message
    assert "--weights FILE" in caught.value.hint
    assert caught.value.exit_status == 3
    assert list(tmp_path.iterdir()) == []


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/w.pth"
        with pytest.raises(DownloadFailed, match="no connection"):
            fetch(url, SHA256[:8], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("silent", [False, True], ids=["hangs up", "falls silent"])
def test_a_server_that_takes_the_question_and_gives_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT", 0.2 if silent else 60)
    given_up = threading.Event()

    def take(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1000)
            if silent:
                given_up.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=take, args=(listening,))
        thread.start()
        try:
            with pytest.raises(DownloadFailed, match="timed out" if silent else "broke"):
                fetch(f"http://127.0.0.1:{listening.getsockname()[1]}/w.pth", "00", tmp_path)
        finally:
            given_up.set()
            thread.join()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutOfSpace, match="cannot be written"):
        fetch(f"{server}/good/w.pth", SHA256[:8], tmp_path / "file" / "checkpoints")


def test_imagenet_means_the_published_weights(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_net
) -> None:
    net = make_net("alexnet-owt")
    net.cut("fc6")  # 10 MB instead of 244
    torch.save(net.state_dict(), tmp_path / "made.pth")
    Handler.bodies["w.pth"] = (tmp_path / "made.pth").read_bytes()
    sha256 = hashlib.sha256(Handler.bodies["w.pth"]).hexdigest()
    published = Published(f"{server}/good/w.pth", sha256[:8])
    spec = SPECS["alexnet-owt"]
    fields = {f: getattr(spec, f) for f in spec.__dataclass_fields__} | {"imagenet": published}
    monkeypatch.setattr(zoo, "SPECS", {**SPECS, "alexnet-owt": type(spec)(**fields)})
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    backbone = zoo.load_backbone(None, "imagenet", seed=0)
    assert backbone.spec.name == "alexnet-owt"
    assert backbone.sha256 == sha256
    assert torch.equal(backbone.net.conv5.weight, net.conv5.weight)
