"""Classes as stated, found or named by the user."""

import pytest

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.segmentation_classes import adapt_classes, check_unnamed_values, find_classes

STATED = LabelScheme(names=("background", "liver", "tumour"), values=(0, 1, 2))


def classes(scheme: LabelScheme | None) -> dict[str, int]:
    assert scheme is not None
    return dict(zip(scheme.names, scheme.values, strict=True))


def test_found_values_are_classes_and_0_the_background() -> None:
    assert classes(find_classes([2, 1])) == {"background": 0, "class 1": 1, "class 2": 2}
    assert classes(find_classes([0, 255])) == {"background": 0, "class 255": 255}
    scheme = find_classes([0, 1, 255], ignore_value=255)
    assert (classes(scheme), scheme.ignore_value) == ({"background": 0, "class 1": 1}, 255)


def test_names_in_the_order_of_the_values() -> None:
    assert classes(find_classes([0, 4, 9], class_names=["a", "b"])) == {
        "background": 0,
        "a": 4,
        "b": 9,
    }


def test_more_names_than_values_are_those_of_1_2_3() -> None:
    scheme = find_classes([0, 1, 3], class_names=["a", "b", "c", "d"])
    assert classes(scheme) == {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4}


@pytest.mark.parametrize(
    ("found", "names", "message"),
    [
        ([0, 1, 2], ["a"], r"1 class names \(a\), but the masks hold 2 values.*\(1, 2\)"),
        ([0, 9], ["a", "b"], "2 class names.*hold 1 values"),
        ([0, 1, 2], ["a", "a"], "background, a, a; each may be there once"),
        ([0, 1], ["background"], "once only"),
        (range(300), [], "300 different values"),
    ],
)
def test_names_that_do_not_fit(found: list[int], names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_classes(found, class_names=names)


def test_the_user_renames_and_ignores_stated_classes() -> None:
    assert adapt_classes(None, class_names=["a"]) is None
    assert adapt_classes(STATED) is STATED
    renamed = adapt_classes(STATED, class_names=["Leber", "Tumor"])
    assert classes(renamed) == {"background": 0, "Leber": 1, "Tumor": 2}
    ignoring = adapt_classes(STATED, ignore_value=2)
    assert classes(ignoring) == {"background": 0, "liver": 1}
    assert ignoring is not None
    assert ignoring.ignore_value == 2
    with pytest.raises(DataError, match=r"3 class names.*states 2 classes.*\(liver, tumour\)"):
        adapt_classes(STATED, class_names=["a", "b", "c"])


def test_regions_are_added_to_stated_and_found_classes() -> None:
    regions = {"organ": (1, 2), "tumour": (2,)}
    for scheme in (adapt_classes(STATED, regions=regions), find_classes([1, 2], regions=regions)):
        assert scheme is not None
        assert scheme.output_names == ("organ", "tumour")
    with_regions = adapt_classes(STATED, regions=regions)
    renamed = adapt_classes(with_regions, class_names=["Leber", "Tumor"])
    assert renamed is not None
    assert renamed.output_names == ("organ", "tumour")
    with pytest.raises(DataError, match="states regions; that 2 is not labelled"):
        adapt_classes(with_regions, ignore_value=2)


def test_values_that_can_be_no_classes() -> None:
    check_unnamed_values([0, 1, 65535, -1], ignore_value=-1)
    with pytest.raises(DataError, match="holds 257 different values"):
        check_unnamed_values(range(257), ignore_value=None)
    with pytest.raises(DataError, match=r"holds the value -1.*--ignore-value -1"):
        check_unnamed_values([0, -1], ignore_value=None)
