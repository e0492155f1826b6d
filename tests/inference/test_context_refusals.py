"""Volumes and models that cannot be searched slice by slice."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from voxlift.core.architecture import SliceTransform
from voxlift.core.detection_settings import DetectionSettings, DetectorSettings
from voxlift.core.errors import ConfigError, DataError, VoxliftError
from voxlift.data.detection_batches import detection_preprocessing
from voxlift.data.preprocess import PreprocessingWarning
from voxlift.data.volume import Volume
from voxlift.inference.context_windows import detect_slices
from voxlift.inference.saved_model import SavedModel
from voxlift.nets.detector import Detector
from voxlift.nets.factory import create_backbone
from voxlift.weights.header import HeadDescription


def make_model(
    *, num_slices: int = 5, slice_transform: SliceTransform = "group", **fields: Any
) -> SavedModel:
    settings = DetectionSettings.model_validate(
        {
            "class_names": ("lesion",),
            "num_slices": num_slices,
            "image_size": 32,
            "detector": DetectorSettings(head="fcos", fpn_channels=8),
            **fields,
        }
    )
    backbone = create_backbone(
        "mp3d18",
        width=4,
        stem=3,
        norm="group",
        num_slices=num_slices,
        slice_transform=slice_transform,
    )
    network = Detector(backbone, num_classes=1, settings=settings.detector).eval()
    head = HeadDescription(
        task="detect",
        num_classes=1,
        class_names=settings.class_names,
        settings=settings.model_dump(mode="json"),
    )
    return SavedModel((network,), head, detection_preprocessing("HU"))


def make_volume(depth: int, *, spacing_mm: tuple[float, float, float] = (1.25, 0.8, 0.8)) -> Volume:
    values = np.random.default_rng(0).uniform(-900, 900, (depth, 32, 32))
    return Volume(np.rint(values).astype(np.int16), spacing_mm)


def refusal(match: str, error: type[Exception] = ConfigError) -> Any:
    return pytest.raises(error, match=match)


def test_models_that_do_not_search_volumes() -> None:
    volume = make_volume(3)
    photographs = make_model(num_slices=3, slice_interval_mm=None)
    with refusal(r"photographs.*Fine-tune it on CT first: voxlift finetune --task detect"):
        detect_slices(photographs, volume)
    model = make_model()
    with refusal("There are 2 detectors.*Give the weight file of one"):
        detect_slices(SavedModel(model.networks * 2, model.head, model.preprocessing), volume)
    with refusal("batch_size is 0"):
        detect_slices(model, volume, batch_size=0)
    zscore = model.preprocessing.model_copy(update={"intensity": "zscore", "window": None})
    with refusal("scales intensities by zscore of each image"):
        detect_slices(SavedModel(model.networks, model.head, zscore), volume)


def test_pooled_contexts_share_no_maps() -> None:
    model = make_model(num_slices=9, slice_transform="pool")
    assert len(detect_slices(model, make_volume(2))) == 2
    with refusal("mp3d18 pools the slices of each context.*Leave fast_context out"):
        detect_slices(model, make_volume(2), fast_context=True)


def test_volumes_that_cannot_be_searched() -> None:
    model = make_model()
    with refusal("spacing_mm is.*expected three positive numbers", DataError):
        make_volume(3, spacing_mm=(math.nan, 1, 1))
    broken = make_volume(3)
    array = broken.array.astype(np.float32)
    array[1, 2, 3] = np.nan
    with refusal(r"scan: 1 of .* voxels are NaN", DataError):
        detect_slices(model, Volume(array, broken.spacing_mm), name="scan")
    with pytest.warns(PreprocessingWarning, match="scan holds values from 0 to 200"):
        detect_slices(
            model, Volume(np.full((2, 32, 32), 200) * [[[0], [1]] * 16], (2.5, 1, 1)), name="scan"
        )


@pytest.mark.parametrize("fast", [False, True])
def test_an_answer_that_is_no_number_is_not_no_answer(fast: bool) -> None:
    model = make_model()
    with torch.no_grad():
        next(model.networks[0].parameters()).fill_(math.nan)
    with refusal(
        r"scan, key slices 0 to 0: The network's feature maps are not finite", VoxliftError
    ):
        detect_slices(model, make_volume(2), fast_context=fast, name="scan")
