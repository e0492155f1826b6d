"""The weight formats that are understood, each recognised by its fingerprint.

A new format is one file with a class like `VoxliftFormat` and one line in `FORMATS`.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from voxlift.core.errors import WeightsError
from voxlift.weights.container import Container
from voxlift.weights.header import HEADER_KEY, WeightHeader, parse_header


@dataclass(frozen=True)
class Translation:
    """A weight file in Voxlift's own terms.

    Args:
        tensors: By our names: `conv1.weight`, or `backbone.conv1.weight` and `head.weight`.
        header: What is known of them.
        ignored: Tensors which the format knows and which are of no use here, and why.
    """

    tensors: dict[str, Tensor]
    header: WeightHeader
    ignored: dict[str, str]


class WeightFormat(Protocol):
    """One layout of weight files."""

    def recognises(self, container: Container) -> bool:
        """Tell by the fingerprint alone, whatever the file is called."""

    def translate(self, container: Container) -> Translation:
        """Rename the tensors to ours and write down what is known about them.

        Raises:
            WeightsError: If the file has the fingerprint but not the rest.
        """


class VoxliftFormat:
    """Voxlift's own format: our names already, and a header that says everything."""

    def recognises(self, container: Container) -> bool:
        """Look for the header's key."""
        return HEADER_KEY in container.metadata

    def translate(self, container: Container) -> Translation:
        """Parse the header; the tensors are as they shall be."""
        header = parse_header(container.metadata[HEADER_KEY], where=str(container.path))
        return Translation(container.tensors, header, ignored={})


FORMATS: dict[str, WeightFormat] = {
    "voxlift": VoxliftFormat(),
}


def recognise(container: Container) -> str:
    """Name the format of a file.

    Raises:
        WeightsError: If none of the known formats has this fingerprint.
    """
    for name, known in FORMATS.items():
        if known.recognises(container):
            return name
    some = ", ".join(list(container.tensors)[:5]) or "no tensors at all"
    raise WeightsError(
        f"{container.path} is a safetensors file of an unknown layout: it has no Voxlift header, "
        f"and its tensors are {some} ... Known formats: {', '.join(FORMATS)}. Load it into a "
        "network yourself, check the result, and write it with voxlift.save_weights(...)."
    )
