"""Photographs in one folder without class folders, whose classes stand in a list beside them.

So the validation images of ImageNet are published: `val/ILSVRC2012_val_00000001.JPEG` and so on.
A list is looked for in this order:

- `val.txt`, in the data's folder, in its folder `meta/` or among the images: a line for each image
  with its file name and its class, by the name of the class folder or by its number from 0 among
  the sorted names;
- `ILSVRC2012_devkit_t12/` or `devkit/` in the data's folder, as ImageNet publishes it:
  `data/ILSVRC2012_validation_ground_truth.txt`, a number for each image in the order of the file
  names, and `data/meta.mat`, which names the classes of these numbers.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.data.images import RgbImage, read_image

LISTS = ("val.txt", "meta/val.txt", "val/val.txt")
DEVKITS = ("ILSVRC2012_devkit_t12", "devkit")
GROUND_TRUTH, SYNSETS = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"


class ListedSource:
    """Photographs of one folder, with their classes from a list.

    Args:
        files: The images in the order of their names.
        class_names: The classes of the training images.
        data: Folder of the data, where the list is.

    Raises:
        DataError: If there is no list, or an image or class in it is unknown or missing.
    """

    def __init__(self, files: Sequence[Path], *, class_names: Sequence[str], data: Path) -> None:
        self.class_names = tuple(class_names)
        names = [path.name for path in files]
        place, classes = _read_classes(data, names)
        missing = [name for name in names if name not in classes]
        if missing:
            raise DataError(
                f"{place} has no class for {len(missing)} of the {len(names)} images, such as "
                f"{missing[0]}. Complete the list, or remove the images."
            )
        unlisted = sorted(set(classes) - set(names))
        if unlisted:
            raise DataError(
                f"{place} lists {len(unlisted)} images that are not in {files[0].parent}, such as "
                f"{unlisted[0]}. Add the images, or shorten the list."
            )
        numbers = {name: number for number, name in enumerate(self.class_names)}
        numbers |= {str(number): number for number in range(len(self.class_names))}
        unknown = sorted(set(classes.values()) - set(numbers))
        if unknown:
            raise DataError(
                f"{place} has the class {unknown[0]}, but the {len(self.class_names)} training "
                f"classes are {', '.join(self.class_names[:3])}, ... Expected one of these names, "
                "or its number from 0."
            )
        self.paths = tuple(files)
        self.labels: npt.NDArray[np.int64] = np.array(
            [numbers[classes[name]] for name in names], dtype=np.int64
        )

    def __len__(self) -> int:
        """Count the images."""
        return len(self.paths)

    def read(self, index: int, *, draft_size: int | None = None) -> RgbImage:
        """Read one image; `draft_size` as in `read_image`."""
        return read_image(self.paths[index], draft_size=draft_size)

    def describe(self) -> str:
        """Describe the images in a line."""
        return (
            f"{len(self)} listed images of {len(self.class_names)} classes in "
            f"{self.paths[0].parent}"
        )


def _read_classes(data: Path, names: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """Find the list, and return it with the class of each file name."""
    for place in (data / name for name in LISTS):
        if place.is_file():
            return place, _read_list(place)
    for folder in (data / name for name in DEVKITS):
        if folder.is_dir():
            return folder / GROUND_TRUTH, _read_devkit(folder, names)
    raise DataError(
        f"{data} has validation images without class folders, and no list of their classes. Add "
        f"{' or '.join(LISTS)} with lines such as 'IMAGE.JPEG CLASS', or ImageNet's {DEVKITS[0]}/."
    )


def _read_list(place: Path) -> dict[str, str]:
    classes: dict[str, str] = {}
    for number, line in enumerate(_lines(place), start=1):
        words = line.split()
        if len(words) != 2 or words[0] in classes:
            raise DataError(
                f"{place}, line {number}: '{line}'. Expected a file name and a class, separated by "
                "a blank, and each file name once."
            )
        classes[words[0]] = words[1]
    return classes


def _read_devkit(folder: Path, names: Sequence[str]) -> dict[str, str]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    numbers = _lines(folder / GROUND_TRUTH)
    if len(numbers) != len(names):
        raise DataError(
            f"{folder / GROUND_TRUTH} has {len(numbers)} lines for {len(names)} validation images. "
            "Expected a line for each; complete the images, or write a val.txt."
        )
    try:
        synsets = loadmat(str(folder / SYNSETS), squeeze_me=True)["synsets"]
        of_number = {
            str(int(number)): str(name)
            for number, name in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)
        }
        return {name: of_number[number] for name, number in zip(names, numbers, strict=True)}
    except (OSError, ValueError, KeyError, IndexError, MatReadError) as error:
        raise DataError(
            f"{folder / SYNSETS} could not be read as the table of ImageNet's classes: {error!r}. "
            "Unpack the development kit anew, or write a val.txt."
        ) from error


def _lines(place: Path) -> list[str]:
    try:
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{place} could not be read: {error}. Check the file.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
