"""Public photograph sets by name, fetched and unpacked by torchvision."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.data.images import RgbImage, read_image

CACHE_VARIABLE = "VOXLIFT_CACHE"


@dataclass(frozen=True)
class PublicSet:
    """How torchvision holds a set of photographs.

    Args:
        class_name: Name of the class in `torchvision.datasets`.
        train: Arguments that choose its training part.
        val: Arguments that choose what Voxlift validates on: its validation part, else its test.
        in_memory: Whether it holds the pixels of all images in `data`; else it has a file each.
    """

    class_name: str
    train: dict[str, Any]
    val: dict[str, Any]
    in_memory: bool


PUBLIC_SETS: dict[str, PublicSet] = {
    "cifar10": PublicSet("CIFAR10", {"train": True}, {"train": False}, in_memory=True),
    "cifar100": PublicSet("CIFAR100", {"train": True}, {"train": False}, in_memory=True),
    "svhn": PublicSet("SVHN", {"split": "train"}, {"split": "test"}, in_memory=True),
    "stl10": PublicSet("STL10", {"split": "train"}, {"split": "test"}, in_memory=True),
    "flowers102": PublicSet("Flowers102", {"split": "train"}, {"split": "val"}, in_memory=False),
    "food101": PublicSet("Food101", {"split": "train"}, {"split": "test"}, in_memory=False),
    "dtd": PublicSet("DTD", {"split": "train"}, {"split": "val"}, in_memory=False),
    "aircraft": PublicSet("FGVCAircraft", {"split": "train"}, {"split": "val"}, in_memory=False),
}


class TorchvisionSource:
    """One part of a public set of photographs.

    Args:
        name: A name in `PUBLIC_SETS`.
        split: Which part, `train` or `val`.
        download: Whether to download the set where it is not there yet.

    Raises:
        DataError: If the set is not there, or cannot be downloaded.
    """

    def __init__(self, name: str, *, split: Literal["train", "val"], download: bool) -> None:
        # Importing torchvision takes seconds, which only its users should wait.
        from torchvision import datasets

        public_set = PUBLIC_SETS[name]
        self.name = name
        self.split = split
        self.folder = cache_folder() / name
        options = public_set.train if split == "train" else public_set.val
        if not public_set.in_memory:
            # The "image" of a sample is then its path, and nothing is decoded before its time.
            options = {**options, "loader": Path}
        try:
            dataset = getattr(datasets, public_set.class_name)(
                self.folder, download=download, **options
            )
        except (RuntimeError, OSError) as error:
            remedy = (
                "Check the connection and the free space, then try again."
                if download
                else f"Add --download to fetch it; for a folder of that name, write ./{name}."
            )
            raise DataError(
                f"The data set {name} could not be read from {self.folder}: {error}. {remedy}"
            ) from error
        self._paths: list[Path] = []
        self._pixels: npt.NDArray[np.uint8] | None = None
        if public_set.in_memory:
            pixels = np.asarray(dataset.data)
            # SVHN and STL10 have the channels first.
            self._pixels = pixels if pixels.shape[-1] == 3 else pixels.transpose(0, 2, 3, 1)
            labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
        else:
            samples = [dataset[index] for index in range(len(dataset))]
            self._paths = [path for path, _ in samples]
            labels = [label for _, label in samples]
        self.labels: npt.NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
        # SVHN has no names for its ten digits.
        names = getattr(dataset, "classes", range(int(self.labels.max()) + 1))
        self.class_names = tuple(str(name) for name in names)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.labels)

    def read(self, index: int, *, draft_size: int | None = None) -> RgbImage:
        """Read one image; `draft_size` as in `read_image`."""
        if self._pixels is None:
            return read_image(self._paths[index], draft_size=draft_size)
        image: RgbImage = self._pixels[index]
        return image

    def describe(self) -> str:
        """Say in a line what these images are."""
        return f"{len(self)} images of {len(self.class_names)} classes of {self.name} {self.split}"


def cache_folder() -> Path:
    """Return the folder of downloaded sets: VOXLIFT_CACHE, else one in the home folder."""
    folder = os.environ.get(CACHE_VARIABLE)
    return Path(folder) if folder else Path.home() / ".cache" / "voxlift"
