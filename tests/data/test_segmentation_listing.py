"""Listings are of cases with names of their own."""

from pathlib import Path

import pytest

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.segmentation_cases import SegmentationCase, SegmentationCases
from voxlift.data.segmentation_listing import SegmentationListing

CASE = SegmentationCase("a", (Path("a"),), Path("b"), group="g")


def test_a_complete_data_set_is_listed_as_it_is() -> None:
    labels = LabelScheme.of_values([0, 1])
    cases = SegmentationCases((CASE,), labels, channel_names=("CT",), origin="the set")
    listing = SegmentationListing.of(cases)
    assert listing.cases == (CASE,)
    assert (listing.labels, listing.channel_names) == (labels, ("CT",))
    assert listing.origin == "the set"


@pytest.mark.parametrize(
    ("cases", "message"), [((), "no volume with a mask"), ((CASE, CASE), "case a is there twice")]
)
def test_none_and_two_of_one_name(cases: tuple[SegmentationCase, ...], message: str) -> None:
    with pytest.raises(DataError, match=f"the set: .*{message}"):
        SegmentationListing(cases, origin="the set")
