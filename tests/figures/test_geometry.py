from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from torch import nn

from voxlift.core.errors import DataError
from voxlift.core.geometry import GEOMETRIES
from voxlift.core.types import Triple
from voxlift.figures.geometry import map_sizes, plot_geometries


def test_geometries_are_drawn(tmp_path: Path) -> None:
    photograph, volume = (3, 224, 224), (48, 96, 96)
    rows = {
        "pretrain": (GEOMETRIES["pretrain"], photograph),
        "volume": (GEOMETRIES["volume"], volume),
        "unet": (GEOMETRIES["unet"], volume),
    }
    path = plot_geometries(rows, tmp_path / "geometries.png", title="One set of weights")
    assert imread(path)[..., :3].std() > 0.02


def test_the_maps_of_the_paper_have_its_sizes() -> None:
    sizes = map_sizes(GEOMETRIES["pretrain"], (3, 224, 224))
    assert sizes[2:] == [(3, 56, 56), (3, 28, 28), (3, 14, 14), (3, 7, 7)]


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("size_voxels", [(33, 32, 47), (48, 50, 51)])
def test_sizes_agree_with_padded_convolutions(name: str, size_voxels: Triple) -> None:
    geometry = GEOMETRIES[name]
    image = torch.zeros(1, 1, *size_voxels)
    image = nn.Conv3d(1, 1, 7, stride=geometry.stem_stride, padding=3)(image)
    expected = [size_voxels, tuple(image.shape[2:])]
    if geometry.pool_stride is not None:
        image = nn.MaxPool3d(3, stride=geometry.pool_stride, padding=1)(image)
    for stride in geometry.stage_strides:
        image = nn.Conv3d(1, 1, 3, stride=stride, padding=1)(image)
        expected.append(tuple(image.shape[2:]))
    assert map_sizes(geometry, size_voxels) == expected


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "geometries.png"
    with pytest.raises(DataError, match="no geometry"):
        plot_geometries({}, path)
    with pytest.raises(DataError, match="smallest size"):
        plot_geometries({"volume": (GEOMETRIES["volume"], (3, 224, 224))}, path)
    assert not path.exists()
