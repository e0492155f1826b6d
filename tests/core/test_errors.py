from typing import Self

import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from voxlift.core.errors import (
    ConfigError,
    DataError,
    VoxliftError,
    WeightsError,
    wrong_fields,
)


@pytest.mark.parametrize("error", [ConfigError, DataError, WeightsError])
def test_errors_of_users_are_value_errors(error: type[VoxliftError]) -> None:
    assert issubclass(error, VoxliftError)
    assert issubclass(error, ValueError)


def test_wrong_fields_are_named() -> None:
    class Model(BaseModel):
        width: int = Field(ge=1)
        height: int = 1

        @model_validator(mode="after")
        def _flat(self) -> Self:
            if self.height > self.width:
                raise ValueError("It is higher than wide.")
            return self

    with pytest.raises(ValidationError) as refused:
        Model.model_validate({"width": 0, "height": "x"})
    assert wrong_fields(refused.value).startswith("width is 0 (Input should be greater than or")
    assert "; height is 'x' (Input should be a valid integer" in wrong_fields(refused.value)
    with pytest.raises(ValidationError) as refused:
        Model(width=1, height=2)
    assert wrong_fields(refused.value) == "It is higher than wide"
