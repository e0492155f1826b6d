"""The windows that CT is looked at through, by their usual names."""

from voxlift.core.errors import ConfigError
from voxlift.core.preprocessing import window_bounds

DETECTION_WINDOW_HU = (-1024.0, 1050.0)

CT_WINDOWS_HU: dict[str, tuple[float, float]] = {
    "lesions": DETECTION_WINDOW_HU,
    "lung": window_bounds(1500, -600),
    "mediastinum": window_bounds(350, 50),
    "abdomen": window_bounds(400, 50),
    "liver": window_bounds(150, 30),
    "bone": window_bounds(1800, 400),
    "brain": window_bounds(80, 40),
}
"""Lowest and highest value of each; `lesions` is wide enough for lesions of any organ."""


def window_hu(window: str | tuple[float, float]) -> tuple[float, float]:
    """Return the bounds of a window that is given by name, or by its bounds.

    Raises:
        ConfigError: If the name is unknown, or low is not below high.
    """
    if isinstance(window, str):
        if window not in CT_WINDOWS_HU:
            raise ConfigError(
                f"There is no window '{window}'; known are {', '.join(CT_WINDOWS_HU)}. "
                "Or give its lowest and highest HU."
            )
        return CT_WINDOWS_HU[window]
    low, high = window
    if not low < high:
        raise ConfigError(f"The window is {window}, but its low end has to be below its high end.")
    return float(low), float(high)
