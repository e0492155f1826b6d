"""What is saved with a detector."""

import pytest
from pydantic import ValidationError

from voxlift.core.detection_settings import DetectionSettings, DetectorSettings


def test_survives_json() -> None:
    settings = DetectionSettings(
        class_names=("lesion",), detector=DetectorSettings(head="fcos"), num_slices=5
    )
    assert DetectionSettings.model_validate_json(settings.model_dump_json()) == settings
    assert settings.num_classes == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_slices": 2}, "greater than or equal to 3"),
        ({"num_slices": 28}, "less than or equal to 27"),
        ({"slice_interval_mm": None}, "only photographs have none"),
        ({"slice_interval_mm": 0.0}, "greater than 0"),
        ({"max_image_size": 100}, "cannot be below"),
        ({"class_names": ()}, "at least 1"),
        ({"detector": {"score_threshold": 1.5}}, "less than or equal to 1"),
        ({"detector": {"head": "yolo"}}, "faster-rcnn"),
    ],
)
def test_refuses_what_cannot_be(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DetectionSettings.model_validate({"class_names": ("lesion",)} | fields)


def test_photographs_have_three_slices_without_an_interval() -> None:
    settings = DetectionSettings(class_names=("a", "b"), num_slices=3, slice_interval_mm=None)
    assert settings.num_classes == 2
