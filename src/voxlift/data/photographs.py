"""The photographs that are always there: ten that scikit-image and scikit-learn ship.

The class of a sample is the photograph that it is a random crop of. It teaches a network little,
but shows within minutes, and without any download, that it learns.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.epoch_order import sample_uniforms
from voxlift.data.images import RgbImage, read_image

# Name of each photograph, the package that ships it and where.
PHOTOGRAPHS: dict[str, tuple[str, str]] = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "hubble_deep_field": ("skimage", "data/hubble_deep_field.jpg"),
    "immunohistochemistry": ("skimage", "data/ihc.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
}

# The band of columns, as shares of the width, that validation crops come from.
VALIDATION_BAND = (0.6, 0.8)
# Smallest and largest edge of a crop, as shares of the photograph's width.
CROP_EDGES = (0.1, 0.2)


class PhotographSource:
    """Square random crops of ten photographs; the class is the photograph.

    Validation crops come from the columns between 60 % and 80 % of the width, training crops from
    left or right of them, so no pixel is in both. A crop's edge is 10 to 20 % of the width, in
    both alike; the crop is then scaled to `size`.

    Args:
        split: Which part, `train` or `val`.
        num_crops: Number of samples; the classes take turns.
        size: Height and width of a sample in pixels.
        seed: Chooses the crops.

    Raises:
        ConfigError: If a number is not positive or the split is unknown.
        DataError: If a photograph is not where its package puts it.
    """

    def __init__(
        self,
        split: Literal["train", "val"],
        *,
        num_crops: int = 8000,
        size: int = 64,
        seed: int = 0,
    ) -> None:
        if split not in ("train", "val"):
            raise ConfigError(f"split is {split!r}; give 'train' or 'val'.")
        if num_crops < 1 or size < 1:
            raise ConfigError(f"num_crops is {num_crops} and size {size}; both must be positive.")
        self.split = split
        self.size = size
        self.class_names = tuple(PHOTOGRAPHS)
        self.labels: npt.NDArray[np.int64] = np.arange(num_crops) % len(PHOTOGRAPHS)
        self._photographs = [read_image(_path(name)) for name in PHOTOGRAPHS]
        self._draws = sample_uniforms(
            seed, epoch=0, indices=np.arange(num_crops), num_draws=3, purpose=f"crop-{split}"
        )

    def __len__(self) -> int:
        """Count the crops."""
        return len(self.labels)

    def region(self, index: int) -> tuple[int, int, int]:
        """Tell where a crop lies in its photograph: top row, left column and edge, in pixels."""
        height, width = self._photographs[self.labels[index]].shape[:2]
        along_edge, along_rows, along_columns = self._draws[index]
        begin, end = (round(share * width) for share in VALIDATION_BAND)
        smallest, largest = (int(share * width) for share in CROP_EDGES)
        edge = min(smallest + int(along_edge * (largest - smallest + 1)), end - begin, height)
        top = int(along_rows * (height - edge + 1))
        if self.split == "val":
            lefts = np.arange(begin, end - edge + 1)
        else:
            lefts = np.concatenate([np.arange(begin - edge + 1), np.arange(end, width - edge + 1)])
        return top, int(lefts[int(along_columns * len(lefts))]), edge

    def read(self, index: int, *, draft_size: int | None = None) -> RgbImage:
        """Read one crop; `draft_size` changes nothing."""
        del draft_size
        top, left, edge = self.region(index)
        crop = self._photographs[self.labels[index]][top : top + edge, left : left + edge]
        scaled = Image.fromarray(crop).resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.array(scaled)

    def describe(self) -> str:
        """Say in a line what these images are."""
        return (
            f"{len(self)} crops ({self.split}) of the {len(PHOTOGRAPHS)} photographs in "
            "scikit-image and scikit-learn"
        )


def _path(name: str) -> Path:
    package, file = PHOTOGRAPHS[name]
    # The package is only found, not imported, which would take seconds.
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise DataError(
            f"The photograph {name!r} comes with the package {package}, which is not installed. "
            "Install scikit-image and scikit-learn."
        )
    return Path(spec.origin).parent / file
