import pytest

from voxlift.core.errors import ConfigError, DataError, VoxliftError, WeightsError


@pytest.mark.parametrize("error", [ConfigError, DataError, WeightsError])
def test_errors_of_users_are_value_errors(error: type[VoxliftError]) -> None:
    assert issubclass(error, VoxliftError)
    assert issubclass(error, ValueError)
