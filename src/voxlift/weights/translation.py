"""What a weight format is: it recognises a file, and puts it into Voxlift's own terms."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from voxlift.weights.container import Container
from voxlift.weights.header import WeightHeader


@dataclass(frozen=True)
class Translation:
    """A weight file in Voxlift's own terms.

    Args:
        tensors: By our names: `conv1.weight`, or `backbone.conv1.weight` and `head.weight`.
        header: What is known of them.
        ignored: Tensors which the format knows and which are of no use here, and why.
        adapted: Tensors, by our names, that the translation changed, and how.
        notes: Whatever else a reader of the load report should know.
        geometry_matters: Whether another geometry than the file's is more than normal use, so that
            a load into one is warned of.
    """

    tensors: dict[str, Tensor]
    header: WeightHeader
    ignored: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    geometry_matters: bool = False


class WeightFormat(Protocol):
    """One layout of weight files."""

    @property
    def summary(self) -> str:
        """Which published files these are, in a few words."""

    @property
    def licence(self) -> str | None:
        """Under what terms they are published, as far as the format alone tells."""

    def recognises(self, container: Container) -> bool:
        """Tell by the fingerprint alone, whatever the file is called."""

    def translate(self, container: Container) -> Translation:
        """Rename the tensors to ours and write down what is known about them.

        Raises:
            WeightsError: If the file has the fingerprint but not the rest.
        """
