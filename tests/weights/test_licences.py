import warnings
from collections.abc import Iterator

import pytest

from voxlift.weights import licences
from voxlift.weights.licences import is_non_commercial, warn_if_non_commercial


@pytest.fixture(autouse=True)
def _nobody_was_warned() -> Iterator[None]:
    before = set(licences._warned)
    licences._warned.clear()
    yield
    licences._warned.clear()
    licences._warned.update(before)


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [
        ("non-commercial use only", True),
        ("For Non Commercial research", True),
        ("noncommercial", True),
        ("CC BY-NC 4.0", True),
        ("CC-BY-NC-SA-4.0", True),
        ("https://creativecommons.org/licenses/by-nc/4.0/", True),
        ("cc-nc", True),
        ("CC BY 4.0", False),
        ("Apache-2.0", False),
        ("by-nct", False),
        ("ncbi", False),
        ("", False),
        (None, False),
    ],
)
def test_licences_that_forbid_commercial_use(licence: str | None, forbids: bool) -> None:
    assert is_non_commercial(licence) is forbids


def test_each_file_warns_once() -> None:
    with pytest.warns(UserWarning, match=r"hf://a/b are not for commercial.*: CC BY-NC 4\.0\."):
        warn_if_non_commercial("hf://a/b", "CC BY-NC 4.0", "1" * 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_non_commercial("b.pth", "CC BY-NC 4.0", "1" * 64)
        warn_if_non_commercial("c.pth", "MIT", "2" * 64)
        warn_if_non_commercial("c.pth", None, "2" * 64)
    with pytest.warns(UserWarning, match="c.pth"):
        warn_if_non_commercial("c.pth", "non-commercial", "2" * 64)
