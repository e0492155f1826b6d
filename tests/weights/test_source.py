import hashlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from voxlift.core.errors import WeightsError
from voxlift.weights import bundled, licences, source
from voxlift.weights.bundled import announce
from voxlift.weights.container import Container
from voxlift.weights.file import write_weight_file
from voxlift.weights.formats import FORMATS
from voxlift.weights.header import WeightHeader
from voxlift.weights.own import VoxliftFormat
from voxlift.weights.source import Location, locate, read_source, split_format
from voxlift.weights.translation import Translation


class Renamed(VoxliftFormat):
    """A format that no file is recognised to have: it has to be declared."""

    def recognises(self, container: Container) -> bool:
        del container
        return False

    def translate(self, container: Container) -> Translation:
        translation = super().translate(container)
        return Translation(translation.tensors, translation.header, notes=("was declared",))


@pytest.fixture(autouse=True)
def _another_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, "2.9d", Renamed())


@pytest.fixture(autouse=True)
def _nobody_was_warned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(licences, "_warned", set())
    announce.cache_clear()
    yield
    announce.cache_clear()


@pytest.fixture
def tiny(weight_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weight file in the place of the bundled start `tiny`."""
    monkeypatch.setattr(bundled, "FOLDER", weight_path.parent)
    return weight_path.rename(weight_path.with_name("tiny.safetensors"))


@pytest.fixture
def fetched(weight_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """What would have been fetched; the weight file comes instead."""
    asked: list[tuple[str, str | None]] = []

    def fetch(text: str, *, declared: str | None = None) -> tuple[Path, tuple[str, ...]]:
        asked.append((text, declared))
        return weight_path, ("came from afar",)

    monkeypatch.setattr(source, "fetch", fetch)
    return asked


def test_a_bundled_name_or_a_path_is_found(tiny: Path) -> None:
    assert locate("tiny") == Location(tiny)
    assert locate("voxlift:tiny") == Location(tiny, "voxlift")
    assert locate(tiny) == Location(tiny)
    assert locate(str(tiny)) == Location(tiny)
    assert locate(f"2.9d:{tiny}") == Location(tiny, "2.9d")


def test_a_home_folder_is_understood(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny.parent))
    assert locate("~/tiny.safetensors") == Location(tiny)
    assert locate("voxlift:~/tiny.safetensors") == Location(tiny, "voxlift")


@pytest.mark.parametrize(
    "source", ["large", "scratch", "gone.safetensors", "timm/gone.pth", "C:\\gone.pth", "x" * 5000]
)
def test_what_is_neither_is_an_error(source: str) -> None:
    with pytest.raises(WeightsError, match=r"no weights '.*tiny, tiny-axes.*'scratch'"):
        locate(source)


def test_a_path_is_never_anything_else(fetched: list[tuple[str, str | None]]) -> None:
    for name in ("timm/resnet18", "voxlift:tiny", "hf://a/b"):
        with pytest.raises(WeightsError, match="no such file"):
            locate(Path(name))
    assert fetched == []


@pytest.mark.parametrize(
    "text",
    [
        "hf://a/b",
        "https://a.org/m.pth#sha256=12345678",
        "http://a.org/m-5ff2ecb7.pth",
        "timm/resnet18",
        "torchvision/r3d_18",
    ],
)
def test_what_lies_elsewhere_is_fetched(
    fetched: list[tuple[str, str | None]], weight_path: Path, text: str
) -> None:
    assert locate(text) == Location(weight_path, None, ("came from afar",))
    assert locate(f"2.9d:{text}") == Location(weight_path, "2.9d", ("came from afar",))
    assert fetched == [(text, None), (text, "2.9d")]


def test_a_file_that_is_there_is_not_fetched(
    fetched: list[tuple[str, str | None]],
    weight_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(weight_path.parent)
    Path("timm").mkdir()
    weight_path.rename("timm/mine")
    assert locate("timm/mine") == Location(Path("timm/mine"))
    assert fetched == []


def test_what_a_file_is_called_and_how_it_came_is_kept(
    fetched: list[tuple[str, str | None]],
) -> None:
    file = read_source("2.9d:hf://a/b")
    assert file.source == "2.9d:hf://a/b"
    assert file.format == "2.9d"
    assert file.notes == ("came from afar", "was declared")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("medicalmet:a.pth", r"'medicalmet' is no known format.* voxlift, .*2\.9d"),
        ("hf:a/b", r"'hf' is no known format.*hf://"),
        ("https:/a.org/b.pth", r"'https' is no known format.*https://"),
        ("2.9d:", r"names a format, but no weights: expected 2\.9d:SOURCE"),
        ("2.9d:voxlift:a.pth", r"declares two formats.*as in voxlift:a\.pth"),
        ("s3://a/b.pth", r"not fetched by s3://.*hf://org/name"),
        ("2.9d:ftp://a.org/b.pth", r"not fetched by ftp://"),
        ("file:///a/b.pth", r"not fetched by file://"),
    ],
)
def test_names_that_cannot_be_understood(text: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        locate(text)


def test_a_drive_letter_or_a_colon_in_a_name_declares_nothing(
    weight_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(weight_path.parent)
    assert split_format("C:\\models\\a.pth") == (None, "C:\\models\\a.pth")
    weight_path.rename("run12:30.safetensors")
    assert locate("run12:30.safetensors") == Location(Path("run12:30.safetensors"))


def test_a_file_is_held_to_the_checksum_in_its_name(weight_path: Path) -> None:
    start = hashlib.sha256(weight_path.read_bytes()).hexdigest()[:8]
    good = weight_path.rename(weight_path.with_name(f"good-{start}.safetensors"))
    assert read_source(good).sha256.startswith(start)
    bad = good.rename(good.with_name("bad-5ff2ecb7.safetensors"))
    with pytest.raises(WeightsError, match="sha256 begins with 5ff2ecb7"):
        read_source(f"voxlift:{bad}")


def test_a_file_that_was_read_is_not_read_again(weight_path: Path) -> None:
    file = read_source(weight_path)
    assert file.source == str(weight_path)
    weight_path.unlink()
    assert read_source(file) is file


def test_a_bundled_start_tells_its_licence(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="voxlift.weights.bundled")
    assert read_source("tiny").path == tiny
    assert "Licence" in caplog.text
    caplog.clear()
    read_source(str(tiny))
    read_source("tiny")
    assert not caplog.records


def test_non_commercial_weights_warn_once(tmp_path: Path, header: WeightHeader) -> None:
    path = tmp_path / "a.safetensors"
    described = header.model_copy(update={"licence": "CC BY-NC 4.0"})
    write_weight_file(path, {"conv1.weight": torch.zeros(2, 2)}, described)
    with pytest.warns(UserWarning, match=r"a\.safetensors are not for commercial use"):
        read_source(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_source(path)


def test_consent_to_run_code_is_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(WeightsError, match="--allow-code"):
        read_source(path)
    with (
        pytest.warns(UserWarning, match="code"),
        pytest.raises(WeightsError, match="unknown layout"),
    ):
        read_source(path, allow_code=True)
