"""Checks that the readers of volumes share."""

from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.volume_integrity import (
    MAX_VOXELS,
    check_positive,
    check_size,
    parse_integers,
    parse_numbers,
)

PATH = Path("scan.nrrd")


def test_check_size() -> None:
    check_size(PATH, (1000, 512, 512))
    with pytest.raises(DataError, match="more than"):
        check_size(PATH, (MAX_VOXELS + 1,))
    for shape in ((), (3, 0, 3), (3, -3, -3)):
        with pytest.raises(DataError, match="nothing to read"):
            check_size(PATH, shape)
    with pytest.raises(DataError, match="states 100000 dimensions") as caught:
        check_size(PATH, (9,) * 100_000)
    assert len(str(caught.value)) < 300


def test_numbers_of_text_headers() -> None:
    assert parse_integers(PATH, "sizes", " 3 4\t5 ") == (3, 4, 5)
    assert parse_numbers(PATH, "spacings", "1e-1 2", count=2) == (0.1, 2.0)
    for text in ("3 x", "3 4.5", "1" * 5000):
        with pytest.raises(DataError, match=r"scan\.nrrd is damaged.*sizes is .*not whole"):
            parse_integers(PATH, "sizes", text)
    with pytest.raises(DataError, match=r"expected 3 number"):
        parse_integers(PATH, "sizes", "3 4", count=3)
    with pytest.raises(DataError, match=r"spacings is '1 2x', not numbers"):
        parse_numbers(PATH, "spacings", "1 2x", count=2)
    with pytest.raises(DataError, match=r"expected 3 number"):
        parse_numbers(PATH, "spacings", "1", count=3)


@pytest.mark.parametrize("step", [0.0, -1.0, np.nan, np.inf])
def test_spacing_has_to_be_positive(step: float) -> None:
    check_positive(PATH, "spacings", (1.0, 0.1))
    with pytest.raises(DataError, match=r"scan\.nrrd: spacings is .*expected positive"):
        check_positive(PATH, "spacings", (1.0, step))
