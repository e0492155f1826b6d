"""Batches of images with boxes."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from voxlift.core.detection_settings import DetectionSettings
from voxlift.core.errors import ConfigError
from voxlift.core.preprocessing import PHOTOGRAPH_MEAN, PHOTOGRAPH_STD
from voxlift.data.coco import read_coco
from voxlift.data.detection_batches import (
    BoxAugmentation,
    DetectionBatch,
    detection_loader,
    detection_preprocessing,
)
from voxlift.data.detection_cases import Boxes, DetectionCase, DetectionCases, Slices, Unit
from voxlift.data.epoch_order import ResumableLoader

SETTINGS = DetectionSettings(
    class_names=("lesion",), num_slices=9, image_size=16, max_image_size=64
)


@dataclass(frozen=True)
class Numbered:
    """Slices whose every pixel is the distance to the key slice, and a bright box."""

    box: tuple[int, int, int, int]
    unit: Unit = "HU"
    asked: list[int] = field(default_factory=list)

    def read(self, *, num_slices: int, interval_mm: float | None) -> Slices:
        assert interval_mm == (2.5 if self.unit == "HU" else None)
        self.asked.append(num_slices)
        depths = np.arange(num_slices, dtype=np.float32) - num_slices // 2
        array = np.broadcast_to(10 * depths[:, None, None], (num_slices, 16, 24)).copy()
        x1, y1, x2, y2 = self.box
        array[:, y1:y2, x1:x2] += 500
        return Slices(array, self.unit)


def make_cases(unit: Unit = "HU") -> DetectionCases:
    cases = []
    for number in range(7):
        box = (number, 1, number + 6, 9)
        boxes = [box, (0, 0, 24, 16)] if number < 6 else []
        cases.append(
            DetectionCase(
                id=str(number),
                group=str(number),
                split="train",
                size=(16, 24),
                truth=Boxes.of(boxes, crowd=[False, True][: len(boxes)]),
                source=Numbered(box, unit),
            )
        )
    return DetectionCases(tuple(cases), ("lesion",), "test")


def load(
    cases: DetectionCases,
    augmentation: BoxAugmentation | None = None,
    *,
    settings: DetectionSettings = SETTINGS,
    workers: int = 0,
    shuffle: bool = False,
) -> ResumableLoader[DetectionBatch]:
    return detection_loader(
        cases,
        np.arange(len(cases)),
        settings=settings,
        preprocessing=detection_preprocessing(cases.unit),
        augmentation=augmentation,
        batch_size=3,
        seed=4,
        workers=workers,
        shuffle=shuffle,
    )


def test_images_boxes_and_places() -> None:
    first, _, last = list(load(make_cases()))
    assert [tuple(volume.shape) for volume in first["volumes"]] == [(1, 9, 16, 24)] * 3
    assert first["indices"].tolist() == [0, 1, 2]
    target = first["targets"][1]
    assert target["boxes"].tolist() == [[1, 1, 7, 9]]
    assert target["labels"].tolist() == [0]
    assert target["ignored"].tolist() == [[0, 0, 24, 16]]
    assert first["scales"].tolist() == [[1, 1, 1, 1]] * 3
    assert len(last["volumes"]) == 1
    assert last["targets"][0]["boxes"].shape == (0, 4)

    # Scaled by the window to 0..255 and then as photographs are.
    hu = 10.0 * -4
    grey = (hu + 1024) / (1050 + 1024) * 255
    expected = (grey - PHOTOGRAPH_MEAN) / PHOTOGRAPH_STD
    assert first["volumes"][0][0, 0, 15, 23].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("unit", ["HU", "0-255"])
def test_mean_and_std_are_those_of_photographs_unless_given(unit: Unit) -> None:
    scale = 255 if unit == "HU" else 1
    usual, given = (
        detection_preprocessing(unit, mean_std=mean_std) for mean_std in (None, (123.675, 58.395))
    )
    assert usual.mean * scale == pytest.approx(114.495)
    assert usual.std * scale == pytest.approx(57.63)
    assert given.mean * scale == pytest.approx(123.675)
    assert given.std * scale == pytest.approx(58.395)


def test_scales_lead_back_to_the_stored_image() -> None:
    settings = SETTINGS.model_copy(update={"image_size": 24, "max_image_size": 35})
    cases = make_cases()
    batch = next(iter(load(cases, settings=settings)))
    assert batch["volumes"][0].shape == (1, 9, 23, 35)
    for target, scale, index in zip(
        batch["targets"], batch["scales"], batch["indices"].tolist(), strict=True
    ):
        truth = cases.cases[index].truth
        back = (target["boxes"] / scale).numpy()
        np.testing.assert_allclose(back, truth.boxes[~truth.crowd], atol=1e-5)


@pytest.mark.parametrize("num_slices", [4, 9])
def test_the_key_slice_stays_when_slices_are_reversed(num_slices: int) -> None:
    settings = SETTINGS.model_copy(update={"num_slices": num_slices})
    plain = next(iter(load(make_cases(), settings=settings)))
    turned = next(iter(load(make_cases(), BoxAugmentation(flip_slices=1.0), settings=settings)))
    key = num_slices // 2
    for one, other in zip(plain["volumes"], turned["volumes"], strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one[0, key], other[0, key])
        # What was before the key slice is now behind it.
        torch.testing.assert_close(one[0, key - 1], other[0, key + 1])


def test_the_same_for_any_number_of_workers_and_when_resumed() -> None:
    augmentation = BoxAugmentation.for_slices(image_sizes=(12, 16, 20))
    loaders = [load(make_cases(), augmentation, workers=n, shuffle=True) for n in (0, 1)]
    epochs = []
    for loader in loaders:
        loader.set_epoch(2)
        epochs.append(list(loader))
    resumed = load(make_cases(), augmentation, shuffle=True)
    resumed.load_state_dict({"epoch": 2, "batches": 1})
    epochs.append([epochs[0][0], *resumed])
    for batches in epochs[1:]:
        for one, other in zip(epochs[0], batches, strict=True):
            assert one["indices"].tolist() == other["indices"].tolist()
            for a, b in zip(one["volumes"], other["volumes"], strict=True):
                assert torch.equal(a, b)
            for c, d in zip(one["targets"], other["targets"], strict=True):
                assert torch.equal(c["boxes"], d["boxes"])
    sizes = {volume.shape[2] for batch in epochs[0] for volume in batch["volumes"]}
    assert len(sizes) > 1
    loaders[0].set_epoch(3)
    assert any(
        one["indices"].tolist() != other["indices"].tolist()
        for one, other in zip(loaders[0], epochs[0], strict=True)
    )


def test_changed_boxes_stay_on_what_they_mark() -> None:
    augmentation = BoxAugmentation.for_slices(image_sizes=(16, 32))
    for batch in load(make_cases(), augmentation):
        for volume, target in zip(batch["volumes"], batch["targets"], strict=True):
            for x1, y1, x2, y2 in target["boxes"].round().int().tolist():
                bright = volume[0, 4] > volume[0, 4].mean() + volume[0, 4].std()
                assert bright[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].all()
                assert not bright[:, : max(0, x1 - 1)].any()
                assert not bright[y2 + 1 :].any()


def test_refuses_what_does_not_belong_together() -> None:
    cases = make_cases()
    photographs = make_cases("0-255")
    with pytest.raises(ConfigError, match="an order"):
        load(cases, BoxAugmentation.for_photographs())
    with pytest.raises(ConfigError, match="photographs have 3"):
        load(photographs)
    with pytest.raises(ConfigError, match="values in HU, the preprocessing is for 0-255"):
        detection_loader(
            cases,
            np.arange(2),
            settings=SETTINGS,
            preprocessing=detection_preprocessing("0-255"),
            batch_size=1,
            seed=0,
            shuffle=False,
        )


def test_windows_by_name() -> None:
    assert detection_preprocessing("HU").window == (-1024.0, 1050.0)
    assert detection_preprocessing("HU", window="lung").window == (-1350.0, 150.0)
    assert detection_preprocessing("HU", window=(0, 80)).window == (0.0, 80.0)


@pytest.mark.data
def test_real_photographs(data_folder: Path) -> None:
    cases = read_coco(data_folder / "coco128", class_agnostic=True)
    settings = DetectionSettings(
        class_names=cases.class_names, num_slices=3, slice_interval_mm=None, image_size=96
    )
    loader = detection_loader(
        cases,
        cases.indices("", with_boxes=True)[:8],
        settings=settings,
        preprocessing=detection_preprocessing(cases.unit),
        augmentation=BoxAugmentation.for_photographs(image_sizes=(96, 128)),
        batch_size=4,
        seed=0,
        shuffle=True,
    )
    for batch in loader:
        for volume, target in zip(batch["volumes"], batch["targets"], strict=True):
            assert volume.shape[:2] == (1, 3)
            assert min(volume.shape[2:]) in (96, 128)
            assert volume.abs().max() < 4
            assert (target["boxes"][:, 2] <= volume.shape[3]).all()
