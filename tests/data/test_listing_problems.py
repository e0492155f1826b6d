"""All problems in one error, or each in the log."""

import logging

import pytest

from voxlift.core.errors import DataError
from voxlift.data.listing_problems import report_problems

PROBLEMS = {"image without mask": ["a"], "nothing": [], "mask without image": ["b", "c"]}


def test_all_kinds_are_in_one_error_with_the_remedy() -> None:
    with pytest.raises(DataError) as caught:
        report_problems("set", PROBLEMS, skip_bad=False, remedy="Add them.")
    assert str(caught.value) == (
        "set: image without mask (1): a; mask without image (2): b, c. Add them. "
        "Or go on without them with --skip-bad."
    )


def test_ten_names_at_most_are_shown() -> None:
    with pytest.raises(DataError, match=r"bad \(12\): 0, 1, .*, 9 and 2 more\."):
        report_problems("s", {"bad": list(map(str, range(12)))}, skip_bad=False, remedy="Mend.")


def test_each_is_listed_on_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        report_problems("set", PROBLEMS, skip_bad=True, remedy="Add them.")
    assert [record.getMessage() for record in caplog.records] == [
        "skipped: image without mask: a",
        "skipped: mask without image: b",
        "skipped: mask without image: c",
    ]


def test_no_problem_is_no_error() -> None:
    report_problems("set", {"nothing": []}, skip_bad=False, remedy="")
