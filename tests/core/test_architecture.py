from typing import Any

import pytest
from pydantic import ValidationError

from voxlift.core.architecture import Architecture


def test_the_defaults_are_the_papers() -> None:
    assert Architecture(name="resnet18").model_dump() == {
        "name": "resnet18",
        "ndim": 3,
        "in_channels": 1,
        "width": 64,
        "stem_kernel": 7,
        "norm": "batch",
        "shortcut": "B",
        "num_slices": None,
        "slice_transform": "group",
        "project_first": False,
        "convolution": "full",
        "stages": None,
        "patch_merging": "all",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"ndim": 4},
        {"in_channels": 0},
        {"width": 0},
        {"stem_kernel": 4},
        {"norm": "layer"},
        {"shortcut": "C"},
        {"num_slices": 0},
        {"slice_transform": "mean"},
        {"stride": 2},
    ],
)
def test_what_cannot_be_built_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Architecture.model_validate({"name": "resnet18", **change})


def test_an_architecture_does_not_change() -> None:
    with pytest.raises(ValidationError):
        Architecture(name="resnet18").width = 32
