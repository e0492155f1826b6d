"""Boxes of a data set's images, in pixels of the images as stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from voxlift.core.architecture import Architecture
from voxlift.core.detection_settings import DetectionSettings, DetectorSettings
from voxlift.core.errors import ConfigError, DataError, VoxliftError
from voxlift.core.geometry import named_geometry
from voxlift.data.coco import read_coco
from voxlift.data.detection_batches import detection_preprocessing
from voxlift.data.detection_cases import Boxes, DetectionCase, DetectionCases, Slices, Unit
from voxlift.inference.detection import check_detector_classes, detect_cases, the_detector
from voxlift.inference.saved_model import SavedModel
from voxlift.nets.detection_head import Detection
from voxlift.nets.detector import Detector
from voxlift.nets.factory import create_backbone
from voxlift.nets.slice_encoder import MP3D
from voxlift.weights.header import HeadDescription


@dataclass(frozen=True)
class Grey:
    """An image of one value, its number."""

    number: int
    size: tuple[int, int]
    unit: Unit = "0-255"

    def read(self, *, num_slices: int, interval_mm: float | None) -> Slices:
        return Slices(np.full((num_slices, *self.size), self.number, np.float32), self.unit)


class Oracle(Detector):
    """Find in an image of value n what was told for number n, in shares of its width and height."""

    def __init__(self, answers: Sequence[Sequence[Sequence[float]]]) -> None:
        nn.Module.__init__(self)
        self.answers = answers
        self.head = nn.Module()  # type: ignore[assignment]
        self.head.score_threshold = 0.5
        self.unused = nn.Parameter(torch.zeros(1))
        self.asked: list[float] = []

    def detect(self, volumes: Sequence[Tensor] | Tensor) -> list[Detection]:
        self.asked.append(self.score_threshold)
        return [self._answer(volume) for volume in volumes]

    def _answer(self, volume: Tensor) -> Detection:
        preprocessing = detection_preprocessing("0-255")
        number = round(float(volume.mean()) * preprocessing.std + preprocessing.mean)
        rows = torch.tensor(self.answers[number], dtype=torch.float32).reshape(-1, 6)
        rows = rows[rows[:, 4] >= self.score_threshold]
        height, width = volume.shape[-2:]
        return {
            "boxes": rows[:, :4] * torch.tensor([width, height, width, height]),
            "scores": rows[:, 4],
            "labels": rows[:, 5].long(),
        }


SIZES = ((40, 60), (50, 30), (33, 47))


def make_cases() -> DetectionCases:
    cases = [
        DetectionCase(
            id=f"image-{number}",
            group=f"person-{number}",
            split="test",
            size=size,
            truth=Boxes.of([[1, 2, 11, 22]]),
            source=Grey(number, size),
        )
        for number, size in enumerate(SIZES)
    ]
    return DetectionCases(tuple(cases), ("thing",), "the set")


def saved(network: nn.Module, *more: nn.Module, **settings: Any) -> SavedModel:
    described = DetectionSettings.model_validate(
        {
            "class_names": ("thing",),
            "num_slices": 3,
            "slice_interval_mm": None,
            "image_size": 64,
            "max_image_size": 100,
            **settings,
        }
    )
    head = HeadDescription(
        task="detect",
        num_classes=len(described.class_names),
        class_names=described.class_names,
        settings=described.model_dump(mode="json"),
    )
    return SavedModel((network.eval(), *more), head, detection_preprocessing("0-255"))


def test_boxes_are_those_of_the_stored_image() -> None:
    oracle = Oracle(
        [
            [[0.1, 0.2, 0.5, 0.6, 0.9, 0], [0.0, 0.0, 0.3, 0.3, 0.6, 0]],
            [],
            [[-0.1, 0.5, 1.2, 1.1, 0.7, 0]],
        ]
    )
    done: list[str] = []
    last, first, middle = detect_cases(
        saved(oracle), make_cases(), np.array([2, 0, 1]), batch_size=2, on_case=done.append
    )
    assert done == ["image-2", "image-0", "image-1"]
    expected = [[6, 8, 30, 24, 0.9], [0, 0, 18, 12, 0.6]]
    np.testing.assert_allclose(first.boxes, expected, rtol=1e-6)
    assert first.boxes.dtype == np.float32
    assert first.labels.tolist() == [0, 0]
    assert len(middle) == 0
    assert middle.boxes.shape == (0, 5)
    # Clipped to the image of 33 x 47 pixels, to the last digit.
    np.testing.assert_allclose(last.boxes, [[0, 16.5, 47, 33, 0.7]], rtol=1e-6)
    assert last.boxes[0, 2] == 47
    assert last.boxes[0, 3] == 33


def test_the_threshold_is_lent() -> None:
    oracle = Oracle([[[0, 0, 1, 1, 0.9, 0], [0, 0, 1, 1, 0.2, 0]], [], []])
    model = saved(oracle)
    (found,) = detect_cases(model, make_cases(), np.array([0]), batch_size=1)
    assert len(found) == 1
    (found,) = detect_cases(model, make_cases(), np.array([0]), batch_size=1, score_threshold=0.1)
    assert len(found) == 2
    assert (oracle.asked, oracle.score_threshold) == ([0.5, 0.1], 0.5)
    broken = Oracle([])
    with pytest.raises(IndexError):
        detect_cases(saved(broken), make_cases(), np.array([0]), batch_size=1, score_threshold=0)
    assert broken.score_threshold == 0.5


@dataclass(frozen=True)
class Noise:
    """A photograph of noise."""

    number: int
    size: tuple[int, int]
    unit: Unit = "0-255"

    def read(self, *, num_slices: int, interval_mm: float | None) -> Slices:
        generator = np.random.default_rng(self.number)
        array = generator.uniform(0, 255, (num_slices, *self.size)).astype(np.float32)
        return Slices(array, self.unit)


def test_answers_do_not_depend_on_the_images_of_the_batch() -> None:
    torch.manual_seed(0)
    backbone = MP3D(
        Architecture(name="mp3d18", width=8, stem_kernel=7, norm="group", num_slices=3),
        named_geometry("pretrain"),
    )
    settings = DetectorSettings(fpn_channels=16, head_width=16, score_threshold=0, max_boxes=5)
    model = saved(
        Detector(backbone, num_classes=1, settings=settings), image_size=32, max_image_size=96
    )
    # Stored in three sizes, fed in two; the last is told by its file alone.
    sizes = ((32, 32), (32, 90), (64, 64), (32, 90), (32, 32), (32, 32))
    drawn = make_cases().cases[0]
    cases = replace(
        make_cases(),
        cases=tuple(
            replace(
                drawn,
                id=f"image-{number}",
                size=None if number == 5 else size,
                source=Noise(number, size),
            )
            for number, size in enumerate(sizes)
        ),
    )
    indices, done = np.array([3, 5, 0, 1, 4, 2]), list[str]()
    alone = detect_cases(model, cases, indices, batch_size=1)
    together = detect_cases(model, cases, indices, batch_size=4, on_case=done.append)
    assert done == [f"image-{number}" for number in (3, 1, 5, 0, 4, 2)]
    for index, one, other in zip(indices, alone, together, strict=True):
        assert len(one) == 5
        np.testing.assert_allclose(other.boxes, one.boxes, rtol=1e-4, atol=1e-4)
        (itself,) = detect_cases(model, cases, np.array([index]), batch_size=1)
        np.testing.assert_allclose(one.boxes, itself.boxes, rtol=1e-4, atol=1e-4)


def test_a_network_that_is_not_finite_is_told() -> None:
    backbone = create_backbone("resnet10", width=4, stem=3, num_slices=3)
    detector = Detector(
        backbone, num_classes=1, settings=DetectorSettings(fpn_channels=8, head_width=8)
    )
    torch.nn.init.constant_(next(backbone.parameters()), np.nan)
    with pytest.raises(VoxliftError, match="not finite"):
        detect_cases(saved(detector), make_cases(), np.array([0]), batch_size=1)


def test_no_cases() -> None:
    with pytest.raises(DataError, match="no samples"):
        detect_cases(saved(Oracle([])), make_cases(), np.array([], int), batch_size=1)


def test_what_is_no_detector_is_refused() -> None:
    with pytest.raises(ConfigError, match="trained to detect and finds no boxes"):
        the_detector(saved(nn.Linear(1, 1)))
    with pytest.raises(ConfigError, match="2 detectors"):
        the_detector(saved(Oracle([]), Oracle([])))


def test_other_classes_are_refused() -> None:
    model = saved(Oracle([]))
    check_detector_classes(model, make_cases())
    other = replace(make_cases(), class_names=tuple(f"c{i}" for i in range(12)))
    with pytest.raises(DataError, match=r"the set has .* c9, \.\.\. \(12 in all\).* finds thing"):
        check_detector_classes(model, other)


@dataclass(frozen=True)
class OneSlice:
    """A photograph of a CT slice, as all slices about it."""

    source: Any
    unit: Unit = "HU"
    asked: list[int] = field(default_factory=list)

    def read(self, *, num_slices: int, interval_mm: float | None) -> Slices:
        self.asked.append(num_slices)
        grey = self.source.read(num_slices=3, interval_mm=None).array[0]
        low, high = detection_preprocessing("HU").window or (0, 0)
        return Slices(np.stack([low + grey / 255 * (high - low)] * num_slices), self.unit)


@pytest.mark.data
def test_a_detector_of_lesions_on_real_pixels(data_folder: Path) -> None:
    read = read_coco(data_folder / "deeplesion45", class_agnostic=True)
    cases = replace(
        read,
        cases=tuple(replace(case, source=OneSlice(case.source)) for case in read.cases[:3]),
        class_names=("thing",),
    )
    backbone = MP3D(
        Architecture(name="mp3d18", width=8, stem_kernel=7, norm="group", num_slices=9),
        named_geometry("pretrain"),
    )
    detector = Detector(
        backbone,
        num_classes=1,
        settings=DetectorSettings(fpn_channels=16, head_width=16, score_threshold=0),
    )
    model = replace(
        saved(detector, num_slices=9, slice_interval_mm=2.5, image_size=128, max_image_size=128),
        preprocessing=detection_preprocessing("HU"),
    )
    found = detect_cases(model, cases, np.arange(3), batch_size=2)
    assert [case.source.asked for case in cases.cases] == [[9]] * 3  # type: ignore[attr-defined]
    for case in found:
        assert len(case) == detector.max_boxes
        assert np.isfinite(case.boxes).all()
        assert case.boxes[:, :4].min() >= 0
        assert case.boxes[:, :4].max() <= 512
        # In pixels of the stored image, which is four times as large as it was fed.
        assert case.boxes[:, :4].max() > 128
        assert (case.boxes[:, 2:4] >= case.boxes[:, :2]).all()
