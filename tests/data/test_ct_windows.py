"""Windows by name."""

import pytest

from voxlift.core.errors import ConfigError
from voxlift.data.ct_windows import window_hu


def test_names_and_bounds() -> None:
    assert window_hu("lesions") == (-1024.0, 1050.0)
    assert window_hu("lung") == (-1350.0, 150.0)
    assert window_hu((-100, 300)) == (-100.0, 300.0)


def test_unknown_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match="no window 'lungs'; known are lesions, lung"):
        window_hu("lungs")
    with pytest.raises(ConfigError, match="below its high end"):
        window_hu((300, -100))
