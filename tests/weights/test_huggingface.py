import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from voxlift.core.errors import WeightsError
from voxlift.weights.huggingface import HubAddress, fetch_from_hub, parse_address

COMMIT = "ab" * 20
OTHER_COMMIT = "cd" * 20


class Hub(ThreadingHTTPServer):
    """A small hub on this machine, which huggingface_hub itself talks to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, list[str]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.broken_list = False

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        hub = cast(Hub, self.server)
        hub.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0].strip("/")
        is_list = path.startswith("api/models/")
        parts = path.removeprefix("api/models/").split("/")
        if len(parts) < 4:
            return self._refuse(404, "")
        repository, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        revision = revision.replace("%2F", "/")
        files = hub.repositories.get(repository)
        commit = {"main": COMMIT, COMMIT: COMMIT, "v1": OTHER_COMMIT, "refs/pr/1": COMMIT}
        if files is None:
            return self._refuse(401, "RepoNotFound")
        if revision not in commit:
            return self._refuse(404, "RevisionNotFound")
        if is_list:
            if hub.broken_list:
                return self._refuse(400, "")
            entries = [{"type": "file", "path": f, "size": 1, "oid": "0" * 40} for f in files]
            return self._send(json.dumps(entries).encode(), {}, with_body=with_body)
        headers = {"X-Repo-Commit": commit[revision]}
        if repository in hub.gated:
            return self._refuse(403, "GatedRepo", headers)
        if file not in files:
            return self._refuse(404, "EntryNotFound", headers)
        body = f"{repository} {file} {commit[revision]}".encode()
        headers["ETag"] = f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"'
        return self._send(body, headers, with_body=with_body)

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        template = running.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        huggingface_hub.close_session()
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        huggingface_hub.close_session()
        running.shutdown()
        thread.join()


@pytest.fixture
def go_offline(monkeypatch: pytest.MonkeyPatch) -> Any:
    def go() -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        huggingface_hub.close_session()

    return go


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://timm/resnet18.a1_in1k", HubAddress("timm/resnet18.a1_in1k")),
        ("hf://a/b/c.pth", HubAddress("a/b", "c.pth")),
        ("hf://a/b/c/d.pth@v1.0", HubAddress("a/b", "c/d.pth", "v1.0")),
        ("hf://a/b@refs/pr/1", HubAddress("a/b", None, "refs/pr/1")),
    ],
)
def test_addresses_are_taken_apart(text: str, address: HubAddress) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://a",
        "hf://a/",
        "hf:///b",
        "hf://a/b/",
        "hf://a/b//c",
        "hf://a/b/../c.pth",
        "hf://a/b@",
        "hf://a/b#sha256=12345678",
        "hf://a/b--c",
        "hf://datasets/a/b.pth",
        "hf://spaces/a/b.pth",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(WeightsError, match=r"hf://ORGANISATION/NAME/FILE|name of a repository"):
        parse_address(text)


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["model.safetensors", "other.safetensors", "pytorch_model.bin"], "model.safetensors"),
        (["README.md", "weights/lung.safetensors", "a.pth"], "weights/lung.safetensors"),
        (["README.md", "plans.json", "fold_0/checkpoint_final.pth"], "fold_0/checkpoint_final.pth"),
    ],
)
def test_the_weights_of_a_repository_are_found(
    hub: Hub, tmp_path: Path, files: list[str], chosen: str
) -> None:
    hub.repositories["org/name"] = files
    path, notes = fetch_from_hub("hf://org/name")
    assert path.is_relative_to(tmp_path)
    assert path.read_text() == f"org/name {chosen} {COMMIT}"
    assert notes == (f"{Path(chosen).name} of org/name at commit {COMMIT}",)


def test_a_file_and_a_revision_can_be_named(hub: Hub) -> None:
    hub.repositories["org/name"] = ["model.safetensors", "a/b.pth"]
    path, notes = fetch_from_hub("hf://org/name/a/b.pth@v1")
    assert path.read_text() == f"org/name a/b.pth {OTHER_COMMIT}"
    assert OTHER_COMMIT in notes[0]
    assert COMMIT in fetch_from_hub("hf://org/name@refs/pr/1")[1][0]


def test_what_is_missing_is_named_with_what_is_there(hub: Hub) -> None:
    hub.repositories["org/name"] = ["README.md", "b.pth", "a.pth"]
    hub.repositories["org/text"] = ["README.md"]
    for text, message in {
        "hf://org/none": r"no hf://org/none: no repository org/none .* hf auth login",
        "hf://org/name@v9": r"no such revision.* weight files are: b\.pth, a\.pth",
        "hf://org/name/c.pth": r"no file c\.pth in hf://org/name\. .* b\.pth, a\.pth",
        "hf://org/name": r"several weight files: b\.pth, a\.pth\. .* hf://org/name/b\.pth",
        "hf://org/text": r"holds no weights: none of its 1 files ends in \.safetensors",
        "hf://org/text/a.pth@v1": r"no file a\.pth in hf://org/text@v1\. It holds no weights",
    }.items():
        with pytest.raises(WeightsError, match=message):
            fetch_from_hub(text)
    hub.broken_list = True
    with pytest.raises(WeightsError, match=r"no file c\.pth in hf://org/name\.$"):
        fetch_from_hub("hf://org/name/c.pth")
    with pytest.raises(WeightsError, match="hf://org/name could not be reached"):
        fetch_from_hub("hf://org/name")


def test_many_files_are_not_all_listed(hub: Hub) -> None:
    hub.repositories["org/name"] = [f"{number:02d}.pth" for number in range(15)]
    with pytest.raises(WeightsError, match=r"10\.pth, 11\.pth and 3 more"):
        fetch_from_hub("hf://org/name")


def test_a_gated_repository_says_how_to_get_in(hub: Hub) -> None:
    hub.repositories["org/name"] = ["model.safetensors"]
    hub.gated.add("org/name")
    with pytest.raises(WeightsError, match=r"accepted its terms.*hf auth login"):
        fetch_from_hub("hf://org/name")


def test_what_is_in_the_cache_needs_no_network(hub: Hub, go_offline: Any) -> None:
    hub.repositories["org/name"] = ["model.safetensors", "a.pth"]
    hub.repositories["org/other"] = ["README.md", "deep/a.pth"]
    online = [fetch_from_hub(f"hf://{text}") for text in ("org/name", "org/other", "org/name@v1")]
    go_offline()
    hub.asked.clear()
    offline = [fetch_from_hub(f"hf://{text}") for text in ("org/name", "org/other", "org/name@v1")]
    assert offline == online
    assert fetch_from_hub(f"hf://org/name@{COMMIT}") == online[0]
    assert hub.asked == []


def test_without_network_no_other_file_stands_in(hub: Hub, go_offline: Any) -> None:
    hub.repositories["org/name"] = ["model.safetensors", "a.pth", "b.pth"]
    fetch_from_hub("hf://org/name/a.pth")
    go_offline()
    with pytest.raises(WeightsError) as raised:
        fetch_from_hub("hf://org/name")
    message = str(raised.value)
    assert "not in the hub's cache" in message
    assert "HF_HUB_OFFLINE" in message
    assert "In the cache are of this repository: a.pth." in message
    assert "hf download org/name model.safetensors" in message
    with pytest.raises(WeightsError, match=r"hf download org/name b\.pth --revision v1;"):
        fetch_from_hub("hf://org/name/b.pth@v1")


def test_no_network_and_nothing_in_the_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> str:
        raise LocalEntryNotFoundError("unreachable") from OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=r"\(Name or service not known\).*give its path"):
        fetch_from_hub("hf://org/name")


def test_any_other_error_names_what_was_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=r"hf://org/name@v1 could not be reached: .*No space"):
        fetch_from_hub("hf://org/name@v1")
