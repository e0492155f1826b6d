"""Cases held out of training: those to choose the weights by, and those to judge them by."""

import logging
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError

logger = logging.getLogger(__name__)

Indices = npt.NDArray[np.int64]
Keep = Literal["best", "last"]


class HeldOut(Protocol):
    """Data of a run that holds cases out."""

    @property
    def val(self) -> Indices:
        """Cases that are watched in training, and by which the weights may be chosen."""

    @property
    def test(self) -> Indices:
        """Cases that nothing is chosen by."""


def check_validation(val: Indices, *, origin: str, keep: Keep, patience: int) -> None:
    """See that there is something to choose the weights, or the end of the run, by.

    Raises:
        DataError: If there is not.
    """
    if not len(val) and (keep == "best" or patience):
        raise DataError(
            f"{origin}: there are no validation cases to choose the best weights or the end of the "
            "run by. Give some by --fractions, or take the last weights with --keep last "
            "--patience 0."
        )


def judged_part(data: HeldOut, *, keep: Keep) -> tuple[Literal["test", "val"], Indices]:
    """Find the cases to judge a run by: the test cases, else those of the validation.

    The latter are as good as test cases where the weights were not chosen by them; where they
    were, the log says so.
    """
    if len(data.test):
        return "test", data.test
    if keep == "best":
        logger.warning(
            "There are no test cases: the metrics are those of the validation cases, by which the "
            "weights were chosen."
        )
    return "val", data.val
