"""From the values in a mask file to classes, to the network's outputs, and back."""

import numpy as np
import pytest
from pydantic import ValidationError

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import IGNORED, LabelScheme, Region

ORGANS = LabelScheme(names=("background", "liver", "spleen"), values=(0, 3, 500), ignore_value=-1)
TUMOURS = LabelScheme(
    names=("background", "oedema", "necrosis", "enhancing"),
    values=(0, 2, 1, 4),
    regions=(
        Region(name="whole", members=(1, 2, 3), value=2),
        Region(name="core", members=(2, 3), value=1),
        Region(name="enhancing", members=(3,), value=4),
    ),
)


def test_values_become_class_numbers_and_ignored_ones_255() -> None:
    mask = np.array([[[0, 3, 500, -1]]], dtype=np.int16)
    encoded = ORGANS.encode(mask)
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == [[[0, 1, 2, IGNORED]]]
    assert ORGANS.encode(mask.astype(np.float64)).tolist() == encoded.tolist()


def test_values_of_no_class_are_named_with_the_classes() -> None:
    with pytest.raises(DataError, match=r"holds 1, 7, which.*0 background, 3 liver, 500 spleen"):
        ORGANS.encode(np.array([0, 7, 3, 1]))
    with pytest.raises(DataError, match=r"holds 4, 5, 6, 7, 8 and 2 other values"):
        ORGANS.encode(np.arange(4, 11))
    with pytest.raises(DataError, match=r"such as 0\.5"):
        ORGANS.encode(np.array([0, 0.5]))


def test_decided_masks_hold_the_values_of_the_files() -> None:
    probabilities = np.array([[0.5, 0.1, 0.2], [0.3, 0.8, 0.3], [0.2, 0.1, 0.5]])
    assert ORGANS.decide(probabilities).tolist() == [0, 3, 500]
    assert ORGANS.decide(probabilities).dtype == np.uint16
    expected = [[False, True, False], [False, False, True]]
    assert ORGANS.structures_of(probabilities).tolist() == expected


def test_structures_are_the_classes_without_background_and_ignored_voxels() -> None:
    classes = np.array([0, 1, 2, IGNORED], dtype=np.uint8)
    masks = ORGANS.structure_masks(classes)
    assert ORGANS.structures == ("liver", "spleen")
    assert masks.tolist() == [[False, True, False, False], [False, False, True, False]]


def test_regions_overlap_in_truth_and_are_painted_over_each_other() -> None:
    assert TUMOURS.num_outputs == 3
    assert TUMOURS.structures == TUMOURS.output_names == ("whole", "core", "enhancing")
    classes = TUMOURS.encode(np.array([0, 2, 1, 4]))
    masks = TUMOURS.structure_masks(classes)
    assert masks.astype(int).tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    # A certain network gives back the mask that it was taught.
    assert TUMOURS.decide(masks.astype(np.float32)).tolist() == [0, 2, 1, 4]
    assert TUMOURS.structures_of(masks.astype(np.float32)).tolist() == masks.tolist()


def test_regions_by_values_are_those_of_the_competition() -> None:
    plain = LabelScheme(names=TUMOURS.names, values=TUMOURS.values)
    regions = {"whole": (2, 1, 4), "core": (1, 4), "enhancing": (4,)}
    assert plain.with_regions(regions) == TUMOURS


def test_regions_side_by_side_are_painted_each_with_its_own_value() -> None:
    scheme = LabelScheme.of_values(range(5)).with_regions({"left": (1, 2), "right": (3, 4)})
    assert [region.value for region in scheme.regions] == [1, 3]


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({"a": (1, 9)}, "'a' is of the values 1, 9; expected some of 2, 1, 4"),
        ({"a": (0, 1)}, "'a' is of the values 0"),
        ({"a": ()}, "'a' is of the values none"),
        ({"core": (1, 4), "whole": (1, 2, 4)}, "'core' holds nothing.*larger regions first"),
    ],
)
def test_regions_that_cannot_be(regions: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelScheme(names=TUMOURS.names, values=TUMOURS.values).with_regions(regions)


def test_classes_by_values_found_in_masks() -> None:
    scheme = LabelScheme.of_values([5, 0, 255, 5], ignore_value=255)
    assert (scheme.names, scheme.values) == (("background", "class 5"), (0, 5))
    assert scheme.describe() == "background (0), class 5 (5); 255 is not labelled"
    assert "as regions: whole, core, enhancing" in TUMOURS.describe()


def test_a_scheme_survives_being_written_to_json() -> None:
    for scheme in (ORGANS, TUMOURS):
        assert LabelScheme.model_validate_json(scheme.model_dump_json()) == scheme


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": (0, 1)}, "3 names and 2 values"),
        ({"names": ("a", "b", "b")}, "names.*once only"),
        ({"values": (0, 1, 1)}, "values.*once only"),
        ({"values": (0, 1, -2)}, "masks hold 0 to 65535"),
        ({"values": (0, 1, 70000)}, "masks hold 0 to 65535"),
        ({"ignore_value": 3}, "3 is a class and ignored"),
        ({"ignore_value": 10**6}, "less than or equal to 65535"),
        ({"regions": (Region(name="x", members=(3,), value=1),)}, "'x' has the members"),
        ({"regions": (Region(name="x", members=(0,), value=1),)}, "'x' has the members"),
        (
            {"regions": tuple(Region(name="x", members=(1,), value=v) for v in (1, 2))},
            "names of the regions",
        ),
        (
            {"regions": tuple(Region(name=n, members=(1,), value=1) for n in "xy")},
            "values of the regions",
        ),
    ],
)
def test_schemes_that_contradict_themselves(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LabelScheme.model_validate({**ORGANS.model_dump(), **changes})


def test_a_region_is_not_painted_as_background_or_ignored() -> None:
    region = Region(name="x", members=(1,), value=9)
    with pytest.raises(ValidationError, match="painted as 9"):
        LabelScheme(names=("b", "c"), values=(0, 1), ignore_value=9, regions=(region,))
