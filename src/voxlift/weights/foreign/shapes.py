"""What a foreign network is, as its tensors have it, and whether that can be."""

from collections.abc import Mapping

from pydantic import ValidationError

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError


def make_architecture(fields: Mapping[str, object], *, where: str) -> Architecture:
    """Write down what was inferred from the tensors of a file.

    Args:
        fields: Of the architecture.
        where: The file.

    Raises:
        WeightsError: If no network can be like that, such as one of no channels.
    """
    try:
        return Architecture.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, entry['loc']))} is {entry['input']!r} ({entry['msg']})"
            for entry in error.errors()
        )
        raise WeightsError(
            f"By the shapes of its tensors, {where} is of a network that cannot be: {wrong}. It "
            "was cut down or edited: fetch the published file again."
        ) from error
