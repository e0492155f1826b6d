"""The variable dimension transform: a photograph is read as a thin volume."""

import torch
from torch import Tensor

from voxlift.core.errors import DataError
from voxlift.core.types import Images, LiftedImages

NUM_SLICES = 3


def lift(
    images: Images, *, shuffle: bool = False, generator: torch.Generator | None = None
) -> LiftedImages:
    """Read the colour channels of images as the slices of thin one-channel volumes.

    Without `shuffle` the result is a view: nothing is copied.

    Args:
        images: RGB images of any dtype, normalised, if at all, alike for all channels.
        shuffle: Put each image's slices in a random order of its own, so that the depth axis
            learns no fixed order of colours.
        generator: Where the random orders come from; torch's global generator if None.

    Shape:
        `(batch, 3, height, width)` -> `(batch, 1, 3, height, width)`.

    Raises:
        DataError: If there are not exactly three channels.

    Source:
        Variable dimension transform, arXiv 2201.01426, section 3.
    """
    if images.ndim != 4 or images.shape[1] != NUM_SLICES:
        raise DataError(
            f"Only RGB images (batch, 3, height, width) can be lifted; found the shape "
            f"{tuple(images.shape)}. Repeat a grey channel three times or drop an alpha channel."
        )
    if shuffle:
        images = shuffle_slices(images, generator=generator)
    return images.unsqueeze(1)


def shuffle_slices(images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Permute dimension 1 of each image on its own.

    The orders are drawn on the generator's device and then moved, so that a run draws the same
    ones on a CPU and on a GPU.
    """
    device = generator.device if generator is not None else torch.device("cpu")
    keys = torch.rand(images.shape[:2], generator=generator, device=device)
    order = keys.argsort(dim=1).to(images.device)
    return images[torch.arange(len(images), device=images.device)[:, None], order]
