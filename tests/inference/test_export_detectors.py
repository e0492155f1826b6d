"""Detectors are exported as the maps of their pyramids."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from voxlift.core.detection_settings import DetectorSettings
from voxlift.core.errors import ConfigError, DataError
from voxlift.inference.export import export_model
from voxlift.nets.detector import Detector
from voxlift.nets.factory import create_backbone
from voxlift.weights.header import HeadDescription, WeightHeader

RunExported = Callable[[Path, Tensor], dict[str, Tensor]]
HeaderIn = Callable[[Path], WeightHeader]


def detector(name: str = "resnet10") -> Detector:
    fields = {"stem": 3} if name.startswith("resnet") else {}
    made = create_backbone(name, width=8, num_slices=3, **fields)  # type: ignore[arg-type]
    settings = DetectorSettings(fpn_channels=16, head_width=16)
    return Detector(made, num_classes=2, settings=settings).eval()


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("name", ["resnet10", "mp3d18"])
def test_a_detector_gives_the_maps_of_its_pyramid(
    suffix: str, name: str, tmp_path: Path, run_exported: RunExported, header_in: HeaderIn
) -> None:
    model = detector(name)
    path = tmp_path / f"detector{suffix}"
    head = HeadDescription(task="detect", num_classes=2)
    report = export_model(model, path, size_voxels=(3, 64, 128), head=head)
    edges = {f"p{level}": 2**level for level in range(2, 7)}
    assert report.outputs == {
        name: ("batch", 16, 64 // edge, 128 // edge) for name, edge in edges.items()
    }
    assert report.strides == {name: (edge, edge) for name, edge in edges.items()}
    assert "output p3: batch x 16 x 8 x 16, stride 8 x 8" in report.summary()
    assert any("boxes" in note and "not part of it" in note for note in report.notes)
    assert header_in(path).head is None
    assert header_in(path).architecture == model.backbone.architecture
    volumes = torch.randn(3, 1, 3, 64, 128)
    with torch.no_grad():
        expected = list(model.pyramid(volumes).values())
    found = run_exported(path, volumes)
    assert list(found) == list(edges)
    for one, other in zip(found.values(), expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-4 * other.abs().max()


def test_a_detector_in_training_is_left_in_it(tmp_path: Path) -> None:
    model = detector().train()
    report = export_model(model, tmp_path / "a.pt2", size_voxels=(3, 64, 64), dynamic="none")
    assert len(report.notes) == 2
    assert all(module.training for module in model.modules())
    report = export_model(
        model, tmp_path / "a.pt2", size_voxels=(3, 64, 64), dynamic="none", backbone_only=True
    )
    assert list(report.outputs) == ["map1", "map2", "map3", "map4"]
    assert report.strides["map1"] == (4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size_voxels": (3, 64, 96)}, "multiples of 64, and pads"),
        ({"size_voxels": (3, 64, 64), "dynamic": "all"}, "exported for one size"),
    ],
)
def test_detectors_take_only_sizes_that_they_pad_to(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        export_model(detector(), tmp_path / "a.pt2", **options)
    with pytest.raises(DataError, match="built for 3 slices"):
        export_model(detector(), tmp_path / "a.pt2", size_voxels=(4, 64, 64))
