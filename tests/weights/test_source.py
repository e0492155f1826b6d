import logging
from pathlib import Path

import pytest

from voxlift.core.errors import WeightsError
from voxlift.weights import bundled
from voxlift.weights.bundled import announce
from voxlift.weights.source import locate, read_source


@pytest.fixture
def tiny(weight_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weight file in the place of the bundled start `tiny`."""
    monkeypatch.setattr(bundled, "FOLDER", weight_path.parent)
    return weight_path.rename(weight_path.with_name("tiny.safetensors"))


def test_a_bundled_name_or_a_path_is_found(tiny: Path) -> None:
    assert locate("tiny") == tiny
    assert locate(tiny) == tiny
    assert locate(str(tiny)) == tiny


def test_a_home_folder_is_understood(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny.parent))
    assert locate("~/tiny.safetensors") == tiny


@pytest.mark.parametrize("source", ["large", "scratch", "gone.safetensors"])
def test_what_is_neither_is_an_error(source: str) -> None:
    with pytest.raises(
        WeightsError, match=rf"no weights '{source}'.*tiny, tiny-axes.*from scratch"
    ):
        locate(source)


def test_a_file_that_was_read_is_not_read_again(weight_path: Path) -> None:
    file = read_source(weight_path)
    weight_path.unlink()
    assert read_source(file) is file


def test_a_bundled_start_tells_its_licence(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    announce.cache_clear()
    caplog.set_level(logging.INFO, logger="voxlift.weights.bundled")
    assert read_source("tiny").path == tiny
    assert "Licence" in caplog.text
    caplog.clear()
    read_source(str(tiny))
    read_source("tiny")
    assert not caplog.records
    announce.cache_clear()
