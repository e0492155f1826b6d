"""Folders of made-up JPEG photographs, for timing how they are loaded."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from voxlift.core.randomness import numpy_generator

# Edges in pixels of the structures in an image, and how strong each kind is (0 to 255 scale).
# Chosen so that a file takes about as many bytes a pixel as in common photograph collections.
_STRUCTURES = ((125, 60.0), (31, 30.0), (7, 20.0), (2, 15.0), (1, 10.0))
_QUALITY = 90


def write_synthetic_jpegs(
    folder: Path, *, num_images: int, size: tuple[int, int], num_classes: int = 4, seed: int = 0
) -> None:
    """Write photographs of random structure into one folder for each class.

    Args:
        folder: Where the class folders are made.
        num_images: Number of photographs, shared evenly by the classes.
        size: (height, width) in pixels.
        num_classes: Number of class folders.
        seed: Determines the pixels.
    """
    for index in range(num_images):
        parent = folder / f"class{index % num_classes}"
        parent.mkdir(parents=True, exist_ok=True)
        pixels = _random_photograph(numpy_generator(seed, "bench-image", index), size)
        Image.fromarray(pixels).save(parent / f"{index:05}.jpg", quality=_QUALITY)


def _random_photograph(
    generator: np.random.Generator, size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Add up noise of several coarsenesses, as photographs have structure of all sizes."""
    height, width = size
    total = np.full((height, width, 3), 128, dtype=np.float32)
    for edge, strength in _STRUCTURES:
        shape = (height // edge + 2, width // edge + 2)
        coarse = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        fine = Image.fromarray(coarse).resize(
            (shape[1] * edge, shape[0] * edge), Image.Resampling.BILINEAR
        )
        # Uniform bytes have a standard deviation of 74.
        total += (np.asarray(fine, dtype=np.float32)[:height, :width] - 127.5) * (strength / 74)
    return total.clip(0, 255).astype(np.uint8)
