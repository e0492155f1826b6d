import logging
from dataclasses import dataclass

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.training.held_out import Indices, check_validation, judged_part

NONE, SOME, OTHERS = (np.array(rows, np.int64) for rows in ([], [3, 4], [5]))


@dataclass(frozen=True)
class Data:
    val: Indices
    test: Indices


def test_weights_are_not_chosen_by_nothing() -> None:
    check_validation(SOME, origin="data", keep="best", patience=3)
    check_validation(NONE, origin="data", keep="last", patience=0)
    for keep, patience in (("best", 0), ("last", 3)):
        with pytest.raises(DataError, match=r"data: there are no validation cases.*--keep last"):
            check_validation(NONE, origin="data", keep=keep, patience=patience)  # type: ignore[arg-type]


def test_test_cases_come_first(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert judged_part(Data(val=SOME, test=OTHERS), keep="best") == ("test", OTHERS)
        assert judged_part(Data(val=SOME, test=NONE), keep="last") == ("val", SOME)
        assert not caplog.records
        assert judged_part(Data(val=SOME, test=NONE), keep="best") == ("val", SOME)
    assert "by which the weights were chosen" in caplog.text
