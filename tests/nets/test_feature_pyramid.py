import itertools
import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.poolers import LevelMapper

from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import Geometry, named_geometry
from voxlift.nets.feature_pyramid import (
    PyramidAnchors,
    PyramidRoIAlign,
    feature_pyramid,
    pad_volumes,
    plane_strides,
)
from voxlift.nets.resnet import ResNet
from voxlift.nets.slice_encoder import SliceResNet

RATIOS = (0.5, 1.0, 2.0)


def encoder(geometry: Geometry) -> SliceResNet:
    architecture = Architecture(name="resnet10", width=4, stem_kernel=3, num_slices=3)
    return SliceResNet(architecture, geometry)


def padded(height: int, width: int, *, images: int = 1) -> ImageList:
    return ImageList(torch.zeros(images, 1, 3, height, width), [(height, width)] * images)


def random_boxes(count: int, *, largest: float) -> Tensor:
    corners = torch.rand(count, 2) * largest
    return torch.cat([corners, corners + 1 + torch.rand(count, 2) ** 3 * largest], 1)


def test_strides_of_planes() -> None:
    assert plane_strides(encoder(named_geometry("pretrain"))) == (4, 8, 16, 32)
    assert plane_strides(encoder(named_geometry("thumbnail"))) == (1, 2, 4, 8)
    plain = ResNet(Architecture(name="resnet10", width=4), named_geometry("pretrain"))
    with pytest.raises(ConfigError, match=r"resnet10 gives maps .* no planes.*with num_slices"):
        plane_strides(plain)
    with pytest.raises(ConfigError, match="strides height by 2 and width by 1"):
        plane_strides(encoder(Geometry(stem_stride=(1, 2, 1))))


def test_a_pyramid_has_one_level_more_than_the_backbone() -> None:
    pyramid = feature_pyramid((4, 8), channels=5)
    maps = pyramid({"0": torch.randn(2, 4, 8, 12), "1": torch.randn(2, 8, 4, 6)})
    assert {name: tuple(level.shape) for name, level in maps.items()} == {
        "0": (2, 5, 8, 12),
        "1": (2, 5, 4, 6),
        "pool": (2, 5, 2, 3),
    }


def test_volumes_are_padded_below_and_on_the_right() -> None:
    volumes = [torch.randn(1, 3, 5, 9), torch.randn(1, 3, 7, 2)]
    batch = pad_volumes(volumes, multiple=8)
    assert batch.image_sizes == [(5, 9), (7, 2)]
    assert batch.tensors.shape == (2, 1, 3, 8, 16)
    for found, volume in zip(batch.tensors, volumes, strict=True):
        height, width = volume.shape[-2:]
        assert torch.equal(found[..., :height, :width], volume)
        assert found.count_nonzero() == volume.numel()


def test_a_batch_that_fits_is_left_alone() -> None:
    batch = torch.randn(2, 1, 3, 8, 16)
    assert torch.equal(pad_volumes(batch, multiple=8).tensors, batch)
    assert pad_volumes(batch, multiple=8).image_sizes == [(8, 16)] * 2
    assert pad_volumes(batch, multiple=32).tensors.shape == (2, 1, 3, 32, 32)


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        ([], "no volume"),
        (torch.zeros(0, 1, 3, 8, 8), "no volume"),
        (torch.zeros(1, 3, 8, 8), r"batch of volumes is .* \(1, 3, 8, 8\)"),
        ([torch.zeros(3, 8, 8)], r"\(3, 8, 8\)"),
        ([torch.zeros(1, 3, 8, 8), torch.zeros(1, 9, 8, 8)], r"alike.*\(1, 3, 8, 8\) and \(1, 9"),
    ],
)
def test_what_is_no_batch_is_refused(volumes: list[Tensor] | Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pad_volumes(volumes, multiple=8)


def test_anchors_are_those_of_a_plain_loop() -> None:
    anchors = PyramidAnchors(scales=(4.0, 5.0), ratios=RATIOS, num_levels=2)
    images, maps = padded(16, 24, images=2), [torch.zeros(2, 1, 4, 6), torch.zeros(2, 1, 2, 3)]
    expected = []
    for stride, (rows, columns) in ((4, (4, 6)), (8, (2, 3))):
        for row, column in itertools.product(range(rows), range(columns)):
            for ratio, scale in itertools.product(RATIOS, (4.0, 5.0)):
                height, width = (scale * stride * f for f in (ratio**0.5, ratio**-0.5))
                y, x = row * stride, column * stride
                expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    found = anchors(images, maps)
    assert len(found) == 2
    assert anchors.num_anchors_per_location() == [6, 6]
    for image in found:
        torch.testing.assert_close(image, torch.tensor(expected))


def test_anchors_are_torchvisions_but_for_its_rounding() -> None:
    sizes = ((16,), (32,), (64,))
    theirs = AnchorGenerator(sizes, (RATIOS,) * 3)
    ours = PyramidAnchors(scales=(4.0,), ratios=RATIOS, num_levels=3)
    images = padded(32, 64)
    maps = [torch.zeros(1, 1, 32 // stride, 64 // stride) for stride in (4, 8, 16)]
    (expected,), (found,) = theirs(images, maps), ours(images, maps)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 0.5


def test_anchors_are_precise_for_maps_of_half_precision() -> None:
    ours = PyramidAnchors(scales=(4.0,), ratios=RATIOS, num_levels=1)
    level = torch.zeros(1, 1, 256, 256)
    (expected,), (found,) = (ours(padded(1024, 1024), [m]) for m in (level, level.bfloat16()))
    assert torch.equal(found, expected)


def test_anchors_that_leave_gaps_are_refused() -> None:
    for scale, ratios in ((2.0, (1.0,)), (4.0, (0.25,)), (4.0, (1.0, 100.0))):
        PyramidAnchors(scales=(scale,), ratios=ratios, num_levels=1).check_cover()
    for scale, ratios in ((1.9, (1.0,)), (4.0, (0.2, 5.0))):
        with pytest.raises(ConfigError, match="at least 2 strides high and wide"):
            PyramidAnchors(scales=(scale,), ratios=ratios, num_levels=1).check_cover()


def test_the_smallest_anchors_reach_every_pixel() -> None:
    ours = PyramidAnchors(scales=(2.0,), ratios=(1.0,), num_levels=1)
    (found,) = ours(padded(12, 16), [torch.zeros(1, 1, 3, 4)])
    y, x = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(16) + 0.5, indexing="ij")
    points = torch.stack([x, y], 2).reshape(-1, 1, 2)
    assert ((points > found[:, :2]) & (points < found[:, 2:])).all(2).any(1).all()


@pytest.mark.parametrize("first", [1, 4])
def test_levels_of_strides_that_double_are_those_of_the_paper(first: int) -> None:
    strides = [first * 2**i for i in range(4)]
    align = PyramidRoIAlign(["0"], output_size=7, sampling_ratio=2)
    align.set_strides(strides)
    boxes = [random_boxes(200, largest=900), torch.tensor([[0.0, 0, 112, 112], [0, 0, 224, 224]])]
    paper = LevelMapper(int(math.log2(first)), int(math.log2(strides[-1])))
    levels = align.map_levels(boxes)
    assert torch.equal(levels, paper(boxes))
    assert len(set(levels.tolist())) > 2


def test_levels_of_other_strides_are_the_coarsest_that_are_fine_enough() -> None:
    align = PyramidRoIAlign(["0"], output_size=7, sampling_ratio=2)
    align.set_strides([3, 6, 6, 12])
    edges = torch.tensor([1.0, 3 * 14, 6 * 14 - 0.1, 6 * 14, 12 * 14, 900])
    boxes = torch.stack([torch.zeros(6), torch.zeros(6), edges, edges], 1)
    assert align.map_levels([boxes]).tolist() == [0, 0, 0, 2, 3, 3]


def test_features_are_read_where_the_box_lies_however_the_image_was_padded() -> None:
    align = PyramidRoIAlign(["0", "1"], output_size=2, sampling_ratio=2)
    align.set_strides([4, 8])
    # Maps that hold the position of each pixel in the image, which was padded from 33 to 64.
    maps = {
        str(i): torch.stack(
            torch.meshgrid(*[torch.arange(64 // stride) * float(stride)] * 2, indexing="ij")
        )[None]
        for i, stride in enumerate((4, 8))
    }
    box = torch.tensor([[6.0, 10.0, 30.0, 26.0]])
    (found,) = align(maps, [box], [(33, 33)])
    expected_y = torch.tensor([[14.0, 14.0], [22.0, 22.0]])
    expected_x = torch.tensor([[12.0, 24.0], [12.0, 24.0]])
    torch.testing.assert_close(found, torch.stack([expected_y, expected_x]))
