"""The errors that Voxlift raises for its users.

Each says what was found, what was expected and what to do. They are `ValueError`s, so that code
which does not know Voxlift can still catch them.
"""

from pydantic import ValidationError


class VoxliftError(ValueError):
    """Base of every error that a user of Voxlift can cause and mend."""


class ConfigError(VoxliftError):
    """An option, a run folder or a combination of settings that cannot work."""


class DataError(VoxliftError):
    """A file, a folder or an array that cannot be read as what it was given for."""


class WeightsError(VoxliftError):
    """Weights that do not fit the network, or a weight file that cannot be trusted."""


def wrong_fields(error: ValidationError) -> str:
    """Say which fields are wrong, what was found in each, and why."""
    return "; ".join(
        f"{'.'.join(map(str, each['loc']))} is {each['input']!r:.60} ({each['msg']})"
        if each["loc"]
        else each["msg"].removeprefix("Value error, ").rstrip(".")
        for each in error.errors()
    )
