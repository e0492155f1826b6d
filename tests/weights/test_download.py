import hashlib
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import cast

import pytest

from voxlift.core.errors import WeightsError
from voxlift.weights import download
from voxlift.weights.download import SafeRedirects, cache_folder, fetch_url, split_checksum

CONTENT = bytes(range(256)) * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()
START = SHA256[:8]


class Server(ThreadingHTTPServer):
    """Answers on this machine alone; counts and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.agents: list[str | None] = []

    def url(self, path: str) -> str:
        """Address of a path."""
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = cast(Server, self.server)
        server.asked.append(self.path)
        server.agents.append(self.headers["User-Agent"])
        what = self.path.rsplit("/", 1)[-1]
        moved = {"moved.pth": "/model.pth", "elsewhere.pth": "ftp://127.0.0.1:9/model.pth"}
        if what in moved:
            self.send_response(302)
            self.send_header("Location", moved[what])
            self.end_headers()
            return
        if what.isdecimal():
            self.send_error(int(what))
            return
        self.send_response(200)
        length: int | str = len(CONTENT)
        if what == "cut.pth":
            length = len(CONTENT) + 10
        elif what == "more.pth":
            length = len(CONTENT) - 10
        elif what == "huge.pth":
            length = 30 * 10**9
        if what == "page.pth":
            self.send_header("Content-Type", "text/html; charset=utf-8")
        if what != "unannounced.pth":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOXLIFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask of the server on this machine, which has no https, as little as of those that have it."""
    monkeypatch.setitem(download.FEWEST_DIGITS, "http", 8)


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("digits", [8, 20, 64])
def test_a_file_is_fetched_once(server: Server, cache: Path, digits: int) -> None:
    address = server.url(f"folder/model.pth#sha256={SHA256[:digits].upper()}")
    path = fetch_url(address)
    assert path == cache / f"{SHA256[:digits]}-model.pth"
    assert path.read_bytes() == CONTENT
    assert fetch_url(address) == path
    assert len(server.asked) == 1
    assert server.agents[0] is not None
    assert server.agents[0].startswith("voxlift/")


@pytest.mark.usefixtures("trusted")
def test_the_checksum_of_a_published_name_will_do(server: Server, cache: Path) -> None:
    path = fetch_url(server.url(f"model-{START}.pth"))
    assert kept(cache) == [path.name] == [f"{START}-model-{START}.pth"]
    with pytest.raises(WeightsError, match="sha256 that begins with"):
        fetch_url(server.url("model-5ff2ecb7.pth"))
    assert kept(cache) == [path.name]


def test_a_file_in_the_cache_needs_no_server(server: Server) -> None:
    path = fetch_url(server.url(f"model.pth#sha256={SHA256}"))
    assert fetch_url(f"https://gone.invalid/other.pth#sha256={SHA256}") == path


def test_a_damaged_file_in_the_cache_is_fetched_again(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    address = server.url(f"model.pth#sha256={SHA256}")
    path = fetch_url(address)
    path.write_bytes(b"damaged")
    assert fetch_url(address).read_bytes() == CONTENT
    assert len(server.asked) == 2
    assert "damaged since it was fetched" in caplog.text


def test_another_checksum_leaves_nothing(server: Server, cache: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(WeightsError, match=f"begins with {SHA256}; expected {wrong}. Nothing was"):
        fetch_url(server.url(f"model.pth#sha256={wrong}"))
    assert kept(cache) == []


def test_redirects_are_followed(server: Server) -> None:
    assert fetch_url(server.url(f"moved.pth#sha256={SHA256}")).read_bytes() == CONTENT
    assert server.asked == ["/moved.pth", "/model.pth"]


@pytest.mark.parametrize("to", ["http://b.org/x", "ftp://b.org/x", "HTTP://b.org/x", "file:///x"])
def test_redirects_from_https_to_anything_else_are_refused(to: str) -> None:
    request = urllib.request.Request("https://a.org/x.pth")
    with pytest.raises(WeightsError, match="not secure"):
        SafeRedirects().redirect_request(request, BytesIO(), 302, "Found", Message(), to)
    secure = SafeRedirects().redirect_request(
        request, BytesIO(), 302, "Found", Message(), "https://b.org/x"
    )
    assert secure is not None
    assert secure.full_url == "https://b.org/x"


@pytest.mark.parametrize("to", ["ftp://b.org/x", "FTP://b.org/x", "file:///x", "data:,x"])
def test_redirects_from_http_lead_to_the_web_alone(to: str) -> None:
    request = urllib.request.Request("http://a.org/x.pth")
    handler = SafeRedirects()
    with pytest.raises(WeightsError, match="stays with http or https"):
        handler.redirect_request(request, BytesIO(), 302, "Found", Message(), to)
    for web in ("http://b.org/x", "https://b.org/x", "HTTPS://b.org/x"):
        followed = handler.redirect_request(request, BytesIO(), 302, "Found", Message(), web)
        assert followed is not None
        assert followed.full_url == web


def test_a_server_cannot_lead_elsewhere(server: Server, cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"redirects to ftp://.*Nothing was fetched"):
        fetch_url(server.url(f"elsewhere.pth#sha256={SHA256}"))
    assert kept(cache) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("404", "answers 404 .* Check the address"),
        ("401", "answers 401 .* log-in"),
        ("403", "answers 403 .* not open to everyone"),
        ("503", "answers 503 .* Try again later"),
        ("cut.pth", r"cut off: 25,600 of 25,610 bytes"),
        ("more.pth", "sha256 that begins with"),
        ("huge.pth", r"has 30,000,000,000 bytes or more; at most 20,000,000,000"),
        ("page.pth", "is a web page, not a file"),
    ],
)
def test_what_cannot_be_had_leaves_nothing(
    server: Server, cache: Path, path: str, message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        fetch_url(server.url(f"{path}#sha256={SHA256}"))
    assert kept(cache) == []


@pytest.mark.usefixtures("trusted")
def test_an_endless_file_is_cut_short(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetch_url(server.url(f"unannounced.pth#sha256={START}")).read_bytes() == CONTENT
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    monkeypatch.setattr(download, "CHUNK_BYTES", 300)
    with pytest.raises(WeightsError, match="has 1,200 bytes or more; at most 1,000"):
        fetch_url(server.url(f"unannounced.pth#sha256={SHA256[:9]}"))
    assert len(kept(cache)) == 1


def test_without_a_network(cache: Path, server: Server) -> None:
    address = server.url(f"model.pth#sha256={SHA256}")
    server.server_close()
    with pytest.raises(WeightsError, match=r"could not be fetched: .* give its path"):
        fetch_url(address)
    assert kept(cache) == []


def test_a_silent_server_is_not_waited_for_for_ever(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/model.pth#sha256={SHA256}"
        with pytest.raises(WeightsError, match="timed out"):
            fetch_url(address)
    assert kept(cache) == []


def test_a_cache_that_cannot_be_written_names_the_variable(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VOXLIFT_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"could not be kept in .* set VOXLIFT_CACHE"):
        fetch_url(server.url(f"model.pth#sha256={SHA256}"))


@pytest.mark.usefixtures("trusted")
def test_the_progress_bar_is_for_terminals(
    server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_url(server.url(f"model.pth#sha256={SHA256[:10]}"))
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    fetch_url(server.url(f"model.pth#sha256={SHA256[:11]}"))
    shown = capfd.readouterr()
    assert "model.pth" in shown.err
    assert shown.out == ""


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setenv("VOXLIFT_CACHE", "~/fast")
    assert cache_folder() == Path("/home/anna/fast/weights")
    monkeypatch.delenv("VOXLIFT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/caches")
    assert cache_folder() == Path("/var/caches/voxlift/weights")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/home/anna/.cache/voxlift/weights")


def test_what_to_append_is_said_exactly() -> None:
    with pytest.raises(WeightsError) as raised:
        split_checksum("https://a.org/m.pth?x=1")
    assert f"https://a.org/m.pth?x=1#sha256={'0' * 64} " in str(raised.value)


@pytest.mark.parametrize("address", ["m.pth#sha256=12345678", "m-5ff2ecb7.pth", "m-d720bda1ff.pth"])
def test_few_digits_will_do_with_https_alone(address: str) -> None:
    assert split_checksum(f"https://a.org/{address}")[1] in address
    with pytest.raises(WeightsError) as raised:
        split_checksum(f"HTTP://a.org/{address}")
    message, url = str(raised.value), f"http://a.org/{address.split('#')[0]}"
    assert f"{url} is not secure" in message
    assert f"all 64 digits. Append #sha256= and the sha256 that its publisher states: {url}" in (
        message
    )
    assert split_checksum(f"{url}#sha256={SHA256}") == (url, SHA256)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://a.org/model.pth", "without a checksum"),
        ("https://a.org/model-20240229.pth", "without a checksum"),
        ("https://a.org/", "without a checksum"),
        (f"https://a.org/model-{'0f' * 20}.pth", "without a checksum.*the first 8 will do"),
        ("http://a.org/model.pth", r"without a checksum.*own 64 hexadecimal digits\)"),
        ("http://a.org/m.pth#sha256=1234567", "expected #sha256= and all 64 hexadecimal digits"),
        (f"http://a.org/m.pth#sha256={'a' * 63}", "63 digits of the sha256 .* are too few"),
        ("https://a.org/m.pth#sha256=1234567", "8 to 64 hexadecimal digits"),
        ("https://a.org/m.pth#sha256=", "8 to 64 hexadecimal digits"),
        (f"https://a.org/m.pth#sha256={'a' * 65}", "8 to 64 hexadecimal digits"),
        ("https://a.org/m.pth#sha256=notahexnumber", "8 to 64 hexadecimal digits"),
        ("https://a.org/m.pth#md5=12345678", "8 to 64 hexadecimal digits"),
        ("https:///m.pth#sha256=12345678", "name of a host"),
        ("https://anna:secret@a.org/m.pth#sha256=12345678", "without user and password"),
        ("ftp://a.org/m.pth#sha256=12345678", "is no web address: expected https"),
        ("https://[a.org/m.pth#sha256=12345678", "no web address"),
    ],
)
def test_addresses_that_cannot_be_checked(address: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as raised:
        split_checksum(address)
    assert "secret" not in str(raised.value)


def test_a_cache_that_cannot_be_read(cache: Path) -> None:
    (cache / f"{START}-model.pth").mkdir(parents=True)
    with pytest.raises(WeightsError, match="could not be read or replaced"):
        fetch_url(f"https://gone.invalid/model.pth#sha256={START}")


@pytest.mark.usefixtures("trusted")
def test_file_names_are_made_harmless(server: Server, cache: Path) -> None:
    for number, name in enumerate(("..%2F..%2Fetc%2Fpass%20wd", "", "x" * 300)):
        path = fetch_url(server.url(f"{name}#sha256={SHA256[: 8 + number]}"))
        assert path.parent == cache
        assert re.fullmatch(r"[0-9a-f]+-[\w.-]{1,100}", path.name)
