"""Voxlift's own format: our names already, and a header that says everything."""

from voxlift.core.errors import WeightsError
from voxlift.weights.container import Container
from voxlift.weights.header import HEADER_KEY, parse_header
from voxlift.weights.translation import Translation


class VoxliftFormat:
    """A safetensors file with a Voxlift header."""

    summary = "written by Voxlift"
    licence = "as each file says"

    def recognises(self, container: Container) -> bool:
        """Look for the header's key."""
        return HEADER_KEY in container.metadata

    def translate(self, container: Container) -> Translation:
        """Parse the header; the tensors are as they shall be.

        Raises:
            WeightsError: If there is no header, or it does not hold together.
        """
        if HEADER_KEY not in container.metadata:
            raise WeightsError(
                f"{container.path} has no Voxlift header; expected a file written by "
                "voxlift.save_weights(...). Declare another format, or none."
            )
        header = parse_header(container.metadata[HEADER_KEY], where=str(container.path))
        return Translation(container.tensors, header)
