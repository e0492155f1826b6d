import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from voxlift.core.errors import WeightsError
from voxlift.weights.container import read_container
from voxlift.weights.file import read_weight_file

both_kinds = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


class Trap:
    """Pickled code: opening it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(str(self.path)),)  # type: ignore[return-value]


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that must not be there, before or after."""
    path = tmp_path / "sprung"
    yield path
    assert not path.exists()


@both_kinds
@pytest.mark.parametrize("key", ["state_dict", "hidden"])
def test_code_in_a_pickle_is_named_and_not_run(
    tmp_path: Path, marker: Path, key: str, *, legacy: bool
) -> None:
    path = tmp_path / "my file.pth"
    content = {"model": {"a": torch.ones(2)}, key: Trap(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"asks for .*getattr") as caught:
        read_container(path)
    assert f"voxlift convert '{path}' --allow-code --out NEW.safetensors" in str(caught.value)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_code_under_another_protocol_is_named_and_not_run(
    tmp_path: Path, marker: Path, protocol: int
) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(2), "b": Trap(marker)}, path, pickle_protocol=protocol)
    with pytest.raises(WeightsError, match=r"(getattr|pathlib\.Path\.touch).*--allow-code"):
        read_container(path)


def test_a_plain_pickle_is_never_opened(tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "a.pkl"
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps({"a": Trap(marker)}, protocol=protocol))
        with pytest.raises(WeightsError, match=r"none of torch\.save"):
            read_container(path, allow_code=True)


def test_consent_runs_what_the_file_holds_and_says_so(tmp_path: Path) -> None:
    marker = tmp_path / "sprung"
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(2), "b": Trap(marker)}, path)
    with pytest.warns(UserWarning, match=r"a\.pth is opened with the right to run code") as caught:
        container = read_container(path, allow_code=True)
    assert caught[0].filename == __file__
    assert list(container.tensors) == ["a"]
    assert marker.exists()


def test_consent_is_not_used_where_it_is_not_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(2)}, path)
    assert list(read_container(path, allow_code=True).tensors) == ["a"]


def network() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))


@both_kinds
@pytest.mark.parametrize("wrapper", ["", "model", "net"])
def test_a_pickled_network_needs_consent_and_gives_its_tensors(
    tmp_path: Path, wrapper: str, *, legacy: bool
) -> None:
    module = network()
    path = tmp_path / "a.pth"
    content = {wrapper: module, "lr": np.float64(0.5), "w": np.ones(2)} if wrapper else module
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"asks for .*torch\.nn\.modules\.conv\.Conv3d"):
        read_container(path)
    with pytest.warns(UserWarning, match="right to run code"):
        container = read_container(path, allow_code=True)
    assert container.wrapper == wrapper
    assert list(container.tensors) == list(module.state_dict())
    assert torch.equal(container.tensors["0.weight"], module.state_dict()["0.weight"])
    assert container.extras == ({"lr": 0.5, "w": [1.0, 1.0]} if wrapper else {})


def test_a_torchscript_archive_needs_consent_and_gives_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    module = network().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.jit.trace(module, torch.zeros(1, 1, 3, 3, 3))  # type: ignore[no-untyped-call]
        torch.jit.save(program, path)
    with pytest.raises(WeightsError, match=r"TorchScript archive.*--allow-code"):
        read_container(path)
    with pytest.warns(UserWarning, match="right to run code"):
        container = read_container(path, allow_code=True)
    assert set(container.tensors) == set(module.state_dict())


def test_a_newer_protocol_is_read_with_consent(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(2)}, path, pickle_protocol=4)
    with pytest.raises(WeightsError, match=r"protocol 4.*--allow-code"):
        read_container(path)
    with pytest.warns(UserWarning, match="right to run code"):
        assert list(read_container(path, allow_code=True).tensors) == ["a"]


class Gone:
    """A class that the reader of a file will not have."""


def test_code_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pth"
    with monkeypatch.context() as patch:
        patch.setattr(Gone, "__module__", "torch.nn")
        patch.setattr(nn, "Gone", Gone, raising=False)
        torch.save({"a": torch.ones(2), "b": Gone()}, path)
    with (
        pytest.warns(UserWarning, match="right to run code"),
        pytest.raises(WeightsError, match=r"needs code that is not installed: .*Gone"),
    ):
        read_container(path, allow_code=True)


def test_consent_reaches_the_reader_of_formats(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"zzz": torch.ones(2), "b": Trap(tmp_path / "sprung")}, path)
    with (
        pytest.warns(UserWarning, match="right to run code"),
        pytest.raises(WeightsError, match="unknown layout"),
    ):
        read_weight_file(path, allow_code=True)


class Made:
    """Whatever a call makes when the file is opened."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    ("made", "what"),
    [
        (Made(torch.Tensor.to_sparse, torch.ones(2, 2)), "quantized, sparse or nested"),
        (Made(torch.Tensor.to, torch.ones(2), "meta"), "saved on the meta device"),
        (Made(eval, "1 / 0"), "could not be read even with code: division by zero"),
        (Made(eval, "[][1]"), "could not be read even with code: list index"),
    ],
)
def test_consent_makes_nothing_readable_that_is_not(tmp_path: Path, made: Made, what: str) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": made, "b": torch.ones(1)}, path)
    with (
        pytest.warns(UserWarning, match="right to run code"),
        pytest.raises(WeightsError, match=what),
    ):
        read_container(path, allow_code=True)
