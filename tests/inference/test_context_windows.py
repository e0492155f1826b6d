"""A whole volume, every slice in turn as the key slice."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from voxlift.core.architecture import Architecture, Norm
from voxlift.core.detection_settings import DetectionSettings, DetectorSettings
from voxlift.core.errors import DataError
from voxlift.core.files import write_text
from voxlift.core.geometry import named_geometry
from voxlift.data.deeplesion import read_deeplesion
from voxlift.data.detection_batches import detection_preprocessing
from voxlift.data.orientation import from_canonical, to_canonical
from voxlift.data.volume import Volume
from voxlift.inference import context_planes, context_slices
from voxlift.inference.context_windows import SliceBoxes, detect_slices
from voxlift.inference.detection import detect_cases
from voxlift.inference.saved_model import SavedModel
from voxlift.nets.detector import Detector
from voxlift.nets.slice_encoder import MP3D, SliceEncoder, SliceResNet
from voxlift.weights.header import HeadDescription

FAMILIES: dict[str, type[SliceEncoder]] = {"mp3d18": MP3D, "resnet10": SliceResNet}
SEES_NEXT = {"mp3d18": "layer1.0.conv2.weight", "resnet10": "conv1.weight"}
"""Of each, a convolution that sees one slice to either side."""

SETTINGS = DetectorSettings(
    head="fcos", fpn_channels=8, score_threshold=0.0, nms_threshold=0.3, max_boxes=5
)


def make_model(name: str = "mp3d18", *, norm: Norm = "group", **fields: Any) -> SavedModel:
    settings = DetectionSettings.model_validate(
        {
            "class_names": ("lesion", "other"),
            "num_slices": 5,
            "image_size": 32,
            "max_image_size": 64,
            "detector": SETTINGS,
            **fields,
        }
    )
    torch.manual_seed(0)
    architecture = Architecture(
        name=name, width=4, stem_kernel=3, norm=norm, num_slices=settings.num_slices
    )
    backbone = FAMILIES[name](architecture, named_geometry("pretrain"), slice_start="mean")
    network = Detector(backbone, num_classes=2, settings=settings.detector)
    # Scores that tell places apart.
    for module in network.head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.2)
    head = HeadDescription(
        task="detect",
        num_classes=2,
        class_names=settings.class_names,
        settings=settings.model_dump(mode="json"),
    )
    return SavedModel((network.eval(),), head, detection_preprocessing("HU"))


def make_volume(
    depth: int = 11,
    *,
    size: tuple[int, int] = (32, 32),
    spacing_mm: tuple[float, float, float] = (1.25, 0.8, 0.8),
    seed: int = 0,
) -> Volume:
    """Blobs in air: what differs from slice to slice and from pixel to pixel."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(-900, 900, size=(depth, math.ceil(size[0] / 8), -(-size[1] // 8)))
    blobs = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, : size[0], : size[1]]
    return Volume(np.rint(blobs).astype(np.int16), spacing_mm)


def same(found: SliceBoxes, expected: SliceBoxes) -> None:
    assert found.position == pytest.approx(expected.position)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.labels, expected.labels)


def every_window_on_its_own(model: SavedModel, volume: Volume) -> list[SliceBoxes]:
    """As one would write it: a stack of slices for the detector, one key slice after the other."""
    settings = model.detection
    window = model.preprocessing.window
    assert window is not None
    low, high = window
    step = settings.slice_interval_mm / volume.spacing_mm[0]  # type: ignore[operator]
    last = len(volume.array) - 1
    stored = torch.from_numpy(volume.array.astype(np.float32))
    found = []
    for key in range(len(stored)):
        slices = []
        for number in range(settings.num_slices):
            place = min(max(key + (number - settings.num_slices // 2) * step, 0), last)
            below = math.floor(place + 1e-9)
            share = max(place - below, 0)
            slices.append((1 - share) * stored[below] + share * stored[min(below + 1, last)])
        scaled = ((torch.stack(slices) - low) / (high - low)).clip(0, 1)
        image = (scaled - model.preprocessing.mean) / model.preprocessing.std
        network = model.networks[0]
        assert isinstance(network, Detector)
        (boxes,) = network.detect([image[None]])
        found.append(
            SliceBoxes(
                float(key),
                *(boxes[k].numpy() for k in ("boxes", "scores", "labels")),
            )
        )
    return found


# Steps of 2 and 1 voxels, of 5/4, 5/6 and 25/7, and of no small proportion.
@pytest.mark.parametrize("depth_mm", [1.25, 2.5, 2.0, 3.0, 0.7, 1.2345])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_what_every_window_on_its_own_gives(name: str, depth_mm: float) -> None:
    model = make_model(name)
    volume = make_volume(8, spacing_mm=(depth_mm, 1, 1))
    found = detect_slices(model, volume, batch_size=3)
    for boxes, expected in zip(found, every_window_on_its_own(model, volume), strict=True):
        assert len(boxes) == 5
        same(boxes, expected)


@pytest.mark.parametrize("num_slices", [4, 5])
def test_a_key_slice_of_a_data_set_has_the_very_same_boxes(tmp_path: Path, num_slices: int) -> None:
    """Through files of DeepLesion, which numbers slices from head to foot, and another size."""
    model = make_model(num_slices=num_slices, image_size=48)
    volume = make_volume(7, size=(36, 40), spacing_mm=(2.0, 0.8, 0.8))
    folder = tmp_path / "Images_png" / "000001_01_01"
    folder.mkdir(parents=True)
    images = []
    for place, plane in enumerate(volume.array):
        number = 10 + len(volume.array) - 1 - place
        stored = (plane.astype(np.int32) + 32768).astype(np.uint16)
        Image.fromarray(stored).save(folder / f"{number:03d}.png")
        images.append({"id": number, "file_name": f"000001_01_01/{number:03d}.png"})
    facts = {"height": 36, "width": 40, "spacing": 0.8, "slice_intv": 2.0, "z_position": 0.5}
    content = {
        "images": [
            {**image, **facts, "slice_no": image["id"], "windows": [-175, 275]} for image in images
        ],
        "categories": [{"id": 1, "name": "lesion"}, {"id": 2, "name": "other"}],
        "annotations": [
            {
                "id": image["id"],
                "image_id": image["id"],
                "category_id": 1,
                "bbox": [3, 4, 9, 8],
                "area": 72,
                "iscrowd": 0,
                "noisy": 0,
                "segmentation": [[]],
            }
            for image in images
        ],
    }
    write_text(tmp_path / "test.json", json.dumps(content))
    cases = read_deeplesion(tmp_path / "test.json", images=tmp_path / "Images_png")
    expected = detect_cases(model, cases, np.arange(7), batch_size=1)
    found = detect_slices(model, volume)
    assert [boxes.position for boxes in found] == list(range(7))
    for boxes, of_case in zip(found, expected, strict=True):
        np.testing.assert_allclose(boxes.boxes, of_case.boxes[:, :4], rtol=0, atol=1e-4)
        np.testing.assert_allclose(boxes.scores, of_case.boxes[:, 4], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(boxes.labels, of_case.labels)
        assert len(boxes) == 5


@pytest.mark.parametrize(
    ("interval_mm", "depth_mm", "distinct"),
    [
        # The volume's own slices.
        (2.5, 2.5, 12),
        (2.5, 1.25, 12),
        # And those in the middle between two of them, from the first to the last.
        (2.5, 5 / 3, 12 + 11),
        # Every key slice has five of its own; those beyond an end are the last one.
        (2.5, 1.3, None),
    ],
)
def test_the_stem_is_computed_once_of_each_slice(
    interval_mm: float, depth_mm: float, distinct: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(slice_interval_mm=interval_mm)
    volume = make_volume(12, spacing_mm=(depth_mm, 1, 1))
    seen: list[bytes] = []
    compute = MP3D.convolve_stem

    def counted(self: MP3D, image: Tensor) -> Tensor:
        assert image.shape == (1, 1, 1, 64, 64)
        seen.append(image.numpy().tobytes())
        return compute(self, image)

    monkeypatch.setattr(MP3D, "convolve_stem", counted)
    detect_slices(model, volume, batch_size=2)
    assert len(seen) == len(set(seen))
    if distinct is None:
        places = np.arange(12)[:, None] + np.arange(-2, 3) * interval_mm / depth_mm
        distinct = len(set(places.clip(0, 11).round(6).ravel().tolist()))
        assert distinct > 40
    assert len(seen) == distinct


def test_little_is_held_of_a_long_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many slices as a few windows have, however many voxels these are apart."""
    model = make_model()
    most = 0
    stack = context_slices.ContextSlices.stack

    def watched(
        self: context_slices.ContextSlices, windows: Sequence[context_slices.Places]
    ) -> Tensor:
        nonlocal most
        stacked = stack(self, windows)
        most = max(most, len(self._held))
        return stacked

    monkeypatch.setattr(context_slices.ContextSlices, "stack", watched)
    volume = make_volume(24, size=(8, 8), spacing_mm=(0.25, 1, 1))
    detect_slices(model, volume)
    # What one window leaves to the next, and the first and the last slice of the volume.
    assert 4 <= most <= 6
    monkeypatch.setattr(context_planes, "_PIECE_SLICES", 8)
    most = 0
    detect_slices(model, make_volume(24, size=(8, 8), spacing_mm=(1.25, 1, 1)), fast_context=True)
    assert 4 <= most <= 6


def test_the_order_in_which_key_slices_share_slices() -> None:
    model = make_model(num_slices=3, slice_interval_mm=3.0)
    volume = make_volume(7, spacing_mm=(2.0, 1, 1))
    places = context_slices.context_places(volume, model.detection)
    # Windows of half-voxel places, that have places in common three voxels apart.
    assert list(places) == [0, 3, 6, 1, 4, 2, 5]
    assert places[3] == (1.5, 3.0, 4.5)
    assert places[6] == (4.5, 6.0, 6.0)


def test_progress_comes_by_key_slices() -> None:
    told: list[tuple[int, int]] = []
    found = detect_slices(
        make_model(), make_volume(4), batch_size=3, on_slice=lambda *done: told.append(done)
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [boxes.position for boxes in found] == [0, 1, 2, 3]
    told.clear()
    detect_slices(
        make_model(), make_volume(4), fast_context=True, on_slice=lambda *done: told.append(done)
    )
    # 3.75 mm from the first to the last slice, in steps of 2.5 mm.
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize("fast", [False, True])
def test_thin_volumes(fast: bool) -> None:
    """A single slice is its own context; two are that of each other."""
    model = make_model()
    (single,) = detect_slices(model, make_volume(1, spacing_mm=(5.0, 1, 1)), fast_context=fast)
    stack = make_volume(1).array.repeat(5, axis=0)
    middle = detect_slices(model, Volume(stack, (2.5, 1, 1)))[2]
    assert single.position == 0
    np.testing.assert_allclose(single.boxes, middle.boxes, rtol=0, atol=1e-4)
    np.testing.assert_allclose(single.scores, middle.scores, rtol=0, atol=1e-6)
    two = detect_slices(model, make_volume(2, spacing_mm=(5.0, 1, 1)), fast_context=fast)
    assert [boxes.position for boxes in two] == ([0, 0.5, 1] if fast else [0, 1])


@pytest.mark.parametrize("fast", [False, True])
def test_pixels_that_are_not_square_are_fed_square(fast: bool) -> None:
    """Rows twice as far apart as columns: fed as the same image with each row twice as high."""
    model = make_model()
    flat = make_volume(3, size=(32, 64), spacing_mm=(2.5, 2.0, 1.0))
    found = detect_slices(model, flat, fast_context=fast)
    small = nn.functional.interpolate(
        torch.from_numpy(flat.array.astype(np.float32))[None],
        (32, 32),
        mode="bilinear",
        antialias=True,
    )[0].numpy()
    # The window clips nothing of these, so that scaling and resizing can change places.
    expected = detect_slices(model, Volume(small, (2.5, 1, 1)), fast_context=fast)
    for boxes, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            boxes.boxes, other.boxes * np.array([2, 1, 2, 1]), rtol=0, atol=1e-3
        )
        np.testing.assert_allclose(boxes.scores, other.scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_fast_context_is_exact_where_nothing_reaches_the_ends_of_a_window(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With batch norm, which looks at no other slice, and convolutions that see few of them."""
    model = make_model(name, norm="batch", num_slices=7)
    backbone: nn.Module = model.networks[0].backbone  # type: ignore[assignment]
    with torch.no_grad():
        for key, tensor in backbone.state_dict().items():
            if tensor.ndim == 5 and tensor.shape[2] == 3 and key != SEES_NEXT[name]:
                tensor[:, :, [0, 2]] = 0
            if key.startswith("group_transform"):
                # One slice across in a convolution, one in the pooling.
                tensor.zero_()[:, 2:5] = torch.tensor([0.2, 0.5, -0.3])[:, None, None]
    volume = make_volume(17, spacing_mm=(1.25, 1, 1))
    exact = {boxes.position: boxes for boxes in detect_slices(model, volume)}
    monkeypatch.setattr(context_planes, "_PIECE_SLICES", 8)
    fast = detect_slices(model, volume, fast_context=True, batch_size=3)
    assert [boxes.position for boxes in fast] == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    for boxes in fast:
        same(boxes, exact[boxes.position])
        assert len(boxes) == 5


@pytest.mark.parametrize("name", FAMILIES)
def test_a_long_slab_is_computed_in_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(name)
    volume = make_volume(23, spacing_mm=(2.0, 1, 1))
    compute = SliceEncoder.volumes_from_stem
    depths: list[int] = []

    def counted(self: SliceEncoder, stem: Tensor) -> list[Tensor]:
        depths.append(stem.shape[2])
        return compute(self, stem)

    monkeypatch.setattr(SliceEncoder, "volumes_from_stem", counted)
    whole = detect_slices(model, volume, fast_context=True)
    # 44 mm in steps of 2.5 mm, and two slices before and behind.
    assert [boxes.position for boxes in whole] == pytest.approx(np.arange(18) * 1.25)
    assert depths == [18 + 4]
    depths.clear()
    monkeypatch.setattr(context_planes, "_PIECE_SLICES", 12)
    pieces = detect_slices(model, volume, fast_context=True, batch_size=3)
    assert depths == [12, 12, 6]
    assert [boxes.position for boxes in pieces] == [boxes.position for boxes in whole]


def test_the_orientation_has_to_be_that_of_the_training() -> None:
    model = make_model()
    volume = make_volume(3)
    turned = from_canonical(volume, like=Volume(volume.array, direction=np.diag([1, 1, -1.0])))
    with pytest.raises(DataError, match=r"scan is not in the canonical orientation.*to_canonical"):
        detect_slices(model, turned, name="scan")
    for boxes, expected in zip(
        detect_slices(model, to_canonical(turned)), detect_slices(model, volume), strict=True
    ):
        same(boxes, expected)
    as_stored = model.preprocessing.model_copy(update={"orientation": "stored"})
    assert len(detect_slices(SavedModel(model.networks, model.head, as_stored), turned)) == 3
