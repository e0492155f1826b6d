import logging
from pathlib import Path

import pytest
import torch

from voxlift.core.errors import WeightsError
from voxlift.weights import bundled
from voxlift.weights.bundled import BUNDLED, announce, bundled_path, list_weights
from voxlift.weights.file import write_weight_file
from voxlift.weights.header import WeightHeader


@pytest.fixture
def bundled_folder(tmp_path: Path, header: WeightHeader, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every bundled start, as a stand-in file with its card."""
    monkeypatch.setattr(bundled, "FOLDER", tmp_path)
    described = header.model_copy(
        update={"licence": "CC0", "provenance": {"data": "CIFAR-10", "accuracy": 0.82}}
    )
    for name in BUNDLED:
        tensors = {"conv1.weight": torch.zeros(2, 2)}
        write_weight_file(tmp_path / f"{name}.safetensors", tensors, described)
        (tmp_path / f"{name}.md").write_text(f"# {name}", encoding="utf-8")
    return tmp_path


def test_every_start_is_listed_with_its_licence_and_origin(
    bundled_folder: Path, header: WeightHeader
) -> None:
    entries = list_weights()
    assert [entry.name for entry in entries] == ["tiny", "tiny-axes"]
    for entry in entries:
        assert entry.architecture == header.architecture
        assert entry.geometry == header.geometry
        assert entry.licence == "CC0"
        assert entry.provenance == {"data": "CIFAR-10", "accuracy": 0.82}
        assert entry.card == f"# {entry.name}"
        assert entry.num_bytes == bundled_path(entry.name).stat().st_size
        assert entry.summary == BUNDLED[entry.name]


@pytest.mark.parametrize("ending", ["safetensors", "md"])
def test_a_missing_file_is_an_error_that_names_it(bundled_folder: Path, ending: str) -> None:
    (bundled_folder / f"tiny-axes.{ending}").unlink()
    with pytest.raises(WeightsError, match=rf"'tiny-axes' is not in .*tiny-axes\.{ending} is miss"):
        list_weights()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=r"'huge'; known are tiny, tiny-axes"):
        bundled_path("huge")


def test_licence_and_origin_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    announce.cache_clear()
    caplog.set_level(logging.INFO, logger="voxlift.weights.bundled")
    for _ in range(3):
        announce("tiny", licence="CC0", provenance="{'data': 'CIFAR-10'}")
        announce("tiny-axes", licence=None, provenance="{}")
    first, second = (record.getMessage() for record in caplog.records)
    assert "'tiny'" in first
    assert "Licence: CC0. Origin: {'data': 'CIFAR-10'}" in first
    assert "Licence: not stated" in second
    announce.cache_clear()
