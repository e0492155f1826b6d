import logging
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub import CommitOperationAdd, ModelCard
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import ModelInfo, RepoUrl

from voxlift.core.errors import WeightsError
from voxlift.weights.file import read_weight_file, write_weight_file
from voxlift.weights.header import WeightHeader
from voxlift.weights.hub import push_weights

TOKEN = "hf_thisIsASecret"
REPOSITORY = "org/name"
COMMIT = "ab" * 20


class FakeApi:
    """A hub that remembers what it was sent."""

    tokens: list[str]
    repositories: dict[str, dict[str, Any]]
    commits: list[dict[str, Any]]
    fails: dict[str, Exception]

    def __init__(self, *, token: str) -> None:
        self.tokens.append(token)

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> RepoUrl:
        self._fail("create_repo")
        assert exist_ok
        new = {"private": private, "files": [".gitattributes"]}
        self.repositories.setdefault(repo_id, new)
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def model_info(self, repo_id: str) -> ModelInfo:
        self._fail("model_info")
        found = self.repositories[repo_id]
        siblings = [{"rfilename": name} for name in found["files"]]
        return ModelInfo(  # type: ignore[no-untyped-call]
            id=repo_id, sha=COMMIT, private=found["private"], siblings=siblings
        )

    def create_commit(
        self,
        repo_id: str,
        operations: list[CommitOperationAdd],
        *,
        commit_message: str,
        parent_commit: str,
    ) -> None:
        self._fail("create_commit")
        files = {}
        for operation in operations:
            with operation.as_file() as stream:
                files[operation.path_in_repo] = stream.read()
        self.commits.append({"repository": repo_id, "message": commit_message, "files": files})
        assert parent_commit == COMMIT

    def _fail(self, name: str) -> None:
        if name in self.fails:
            raise self.fails[name]


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    members: dict[str, Any] = {"tokens": [], "repositories": {}, "commits": [], "fails": {}}
    api: type[FakeApi] = type("Api", (FakeApi,), members)
    monkeypatch.setattr(huggingface_hub, "HfApi", api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    return api


def refusal(status: int) -> HfHubHTTPError:
    """What the hub's library raises for a status."""
    request = httpx2.Request("POST", f"https://huggingface.co/api/models/{REPOSITORY}")
    response = httpx2.Response(status, request=request)
    return HfHubHTTPError(f"{status} Client Error, Bearer {TOKEN}", response=response)


def test_file_and_card_go_in_with_one_commit(weight_path: Path, hub: type[FakeApi]) -> None:
    address = push_weights(weight_path, REPOSITORY, message="First", summary="A stem.")
    assert address == "https://huggingface.co/org/name"
    (commit,) = hub.commits
    assert commit["repository"] == REPOSITORY
    assert commit["message"] == "First"
    assert sorted(commit["files"]) == ["README.md", "model.safetensors"]
    assert commit["files"]["model.safetensors"] == weight_path.read_bytes()
    card = commit["files"]["README.md"].decode("utf-8")
    assert ModelCard(card).data.get("library_name") == "voxlift"
    assert "A stem." in card
    assert not hub.repositories[REPOSITORY]["private"]


def test_whose_token_is_used(weight_path: Path, hub: type[FakeApi]) -> None:
    push_weights(weight_path, REPOSITORY)
    push_weights(weight_path, REPOSITORY, token="hf_another")
    assert hub.tokens == [TOKEN, "hf_another"]


def test_nobody_is_logged_in(
    weight_path: Path, hub: type[FakeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(WeightsError, match=r"Nobody is logged in.*hf auth login"):
        push_weights(weight_path, REPOSITORY)
    assert hub.tokens == []


def test_folders_of_this_machine_are_not_published(
    tmp_path: Path, header: WeightHeader, hub: type[FakeApi]
) -> None:
    path = tmp_path / "anna.safetensors"
    told = {"data": "/home/anna/nodules.csv", "metrics": {"test/top1": 0.5}, "ids": ["/x/anna"]}
    tensors = {"conv1.weight": torch.arange(8.0).reshape(2, 4).half()}
    write_weight_file(path, tensors, header.model_copy(update={"provenance": told}))
    before = path.read_bytes()
    push_weights(path, REPOSITORY)
    assert path.read_bytes() == before
    files = hub.commits[0]["files"]
    for content in files.values():
        assert b"anna" not in content
    published = tmp_path / "published.safetensors"
    published.write_bytes(files["model.safetensors"])
    file = read_weight_file(published)
    assert file.header.provenance["metrics"] == {"test/top1": 0.5}
    assert file.header.provenance["data"] == "(local path)"
    assert file.tensors["conv1.weight"].dtype == torch.float16
    assert torch.equal(file.tensors["conv1.weight"], tensors["conv1.weight"])
    assert file.sha256 in files["README.md"].decode("utf-8")


@pytest.mark.parametrize("name", ["name", "", "a/b/c", "org/na me", "org/--", "org/a.git"])
def test_names_that_cannot_be(weight_path: Path, hub: type[FakeApi], name: str) -> None:
    with pytest.raises(WeightsError, match=r"name of a repository|whose repository"):
        push_weights(weight_path, name)
    assert hub.tokens == []


@pytest.mark.parametrize("there", ["README.md", "model.safetensors"])
def test_nothing_is_replaced_unasked(weight_path: Path, hub: type[FakeApi], there: str) -> None:
    hub.repositories[REPOSITORY] = {"private": False, "files": [there, "notes.txt"]}
    with pytest.raises(WeightsError, match=rf"holds {there} already.*--overwrite"):
        push_weights(weight_path, REPOSITORY)
    assert hub.commits == []
    push_weights(weight_path, REPOSITORY, overwrite=True)
    assert len(hub.commits) == 1


def test_what_shall_be_private_is_not_put_where_all_can_see_it(
    weight_path: Path, hub: type[FakeApi]
) -> None:
    push_weights(weight_path, "org/new", private=True)
    assert hub.repositories["org/new"]["private"]
    hub.repositories[REPOSITORY] = {"private": False, "files": []}
    with pytest.raises(WeightsError, match="is there already and is public"):
        push_weights(weight_path, REPOSITORY, private=True)
    assert len(hub.commits) == 1


def test_only_voxlifts_own_files_are_published(tmp_path: Path, hub: type[FakeApi]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("notes")
    with pytest.raises(WeightsError, match=r"a\.txt"):
        push_weights(path, REPOSITORY)
    with pytest.raises(WeightsError, match="does not exist"):
        push_weights(tmp_path / "gone.safetensors", REPOSITORY)
    assert hub.tokens == []


@pytest.mark.parametrize("step", ["create_repo", "model_info", "create_commit"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal(401), r"does not let this account write to org/name \(401\)"),
        (refusal(403), r"does not let this account write to org/name \(403\)"),
        (refusal(412), "changed org/name in the meantime"),
        (refusal(500), r"could not be reached: 500 Client Error, Bearer \(token\)"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE forbids"),
        (httpx2.ConnectError("no route to host"), "could not be reached: no route to host"),
        (RuntimeError("odd hf_other12"), r"could not be reached: odd \(token\)"),
    ],
)
def test_refusals_say_what_to_do_and_not_the_token(
    weight_path: Path,
    hub: type[FakeApi],
    caplog: pytest.LogCaptureFixture,
    step: str,
    error: Exception,
    message: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.fails[step] = error
    with pytest.raises(WeightsError, match=rf"Nothing was published\. .*{message}") as raised:
        push_weights(weight_path, REPOSITORY)
    assert TOKEN not in str(raised.value)
    assert raised.value.__suppress_context__
    assert TOKEN not in caplog.text
    assert hub.commits == []
