from typing import Any

import pytest
from pydantic import ValidationError

from voxlift.core.label_scheme import LabelScheme
from voxlift.core.segmentation_settings import SegmentationSettings

LABELS = LabelScheme(names=("background", "a", "b"), values=(0, 2, 5), ignore_value=7)


def test_settings_survive_json_regions_and_all() -> None:
    settings = SegmentationSettings(
        labels=LABELS.with_regions({"whole": (2, 5), "core": (5,)}),
        channel_names=("T1", "FLAIR"),
        window_voxels=(8, 16, 24),
        decoder="fcn",
        mirror_axes=(0, 2),
        seed=3,
        fractions=(0.5, 0.25, 0.25),
    )
    dumped = settings.model_dump(mode="json")
    assert SegmentationSettings.model_validate(dumped) == settings
    assert dumped["labels"]["regions"][1]["name"] == "core"


@pytest.mark.parametrize(
    "fields", [{"window_voxels": (0, 8, 8)}, {"decoder": "fpn"}, {"windows": (8, 8, 8)}]
)
def test_what_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    good = {"labels": LABELS, "channel_names": ("CT",), "window_voxels": (8, 8, 8)}
    SegmentationSettings.model_validate(good)
    with pytest.raises(ValidationError):
        SegmentationSettings.model_validate({**good, **fields})
