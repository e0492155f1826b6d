"""What a foreign network is, as its tensors have it, and whether they are all its tensors."""

from collections.abc import Mapping

from pydantic import ValidationError
from torch import Tensor

from voxlift.core.architecture import Architecture
from voxlift.core.errors import WeightsError
from voxlift.weights.match import BATCH_COUNTER

Shape = tuple[int, ...]


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


def check_shapes(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, Shape],
    *,
    what: str,
    where: str,
    called: Mapping[str, str] | None = None,
) -> None:
    """Refuse a file that lacks a tensor, has one too many, or one of another shape.

    Args:
        tensors: Of the file.
        shapes: That they should have; counters of batch norm may come or be missing.
        what: What the file was taken for.
        where: The file.
        called: What the file itself calls tensors that bear other names here.

    Raises:
        WeightsError: Naming the first tensor that is wrong, and how many are.
    """
    called = called or {}
    wrong = [
        f"{called.get(name, name)} has the shape {tuple(tensors[name].shape)}, expected {shape}"
        if name in tensors
        else f"{called.get(name, name)} is missing, expected the shape {shape}"
        for name, shape in shapes.items()
        if name not in tensors or tuple(tensors[name].shape) != shape
    ]
    wrong += [
        f"{called.get(name, name)} is there, which such a network does not have"
        for name in tensors
        if name not in shapes and not name.endswith(BATCH_COUNTER)
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise WeightsError(
            f"{where} looks like {what}, but {wrong[0]}{more}. It is of a network that Voxlift "
            "does not have, or was edited: fetch the published file again, or load it into its own "
            "network."
        )
