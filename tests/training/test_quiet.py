import logging
import warnings

import pytest

from voxlift.config import PretrainConfig
from voxlift.training.quiet import NAMES, quiet_lightning


def test_levels_come_back() -> None:
    before = [logging.getLogger(name).level for name in NAMES]
    with quiet_lightning():
        assert not logging.getLogger("lightning.pytorch.utilities.rank_zero").isEnabledFor(
            logging.INFO
        )
    assert [logging.getLogger(name).level for name in NAMES] == before


def test_only_the_listed_warnings_are_silenced() -> None:
    with quiet_lightning():
        warnings.warn("Found 3 module(s) in eval mode at the start of training.", stacklevel=1)
        warnings.warn("You defined a `validation_step` but have no data.", stacklevel=1)
        with pytest.warns(UserWarning, match="learning rate"):
            warnings.warn("A learning rate of 0", stacklevel=1)


def test_a_run_says_nothing_of_lightning(
    small_config: PretrainConfig, run_small: object, capfd: pytest.CaptureFixture[str]
) -> None:
    assert callable(run_small)
    run_small(small_config.model_copy(update={"epochs": 1}))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
