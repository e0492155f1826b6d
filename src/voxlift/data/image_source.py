"""Sets of labelled photographs: where the images, labels and class names come from."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.randomness import numpy_generator
from voxlift.data.images import IMAGE_SUFFIXES, RgbImage, read_image
from voxlift.data.listed_images import ListedSource
from voxlift.data.photographs import PhotographSource
from voxlift.data.torchvision_source import PUBLIC_SETS, TorchvisionSource

logger = logging.getLogger(__name__)

Split = Literal["train", "val"]

# The folders that hold a validation split, the first that exists counts.
VALIDATION_FOLDERS = ("val", "validation", "valid", "test")
_NUM_THREADS = 4


class ImageSource(Protocol):
    """Labelled photographs, read one at a time by their index."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """One class number an image."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' names, by their numbers."""
        ...

    def __len__(self) -> int: ...

    def read(self, index: int, *, draft_size: int | None = None) -> RgbImage:
        """Read one image; `draft_size` as in `read_image`."""
        ...

    def describe(self) -> str:
        """Say in a line what these images are."""
        ...


class FolderSource:
    """Photographs in a tree with one folder for each class.

    Classes are numbered in the order of their sorted names. Files that end in .jpg, .jpeg, .png or
    .webp count, in deeper folders too; hidden ones and others are passed over.

    Args:
        folder: The folder that holds the class folders.
        class_names: The classes, where another split has set them already; else all that are here.
        skip_bad: Whether to read every file first, and to list and leave out unreadable ones.

    Raises:
        DataError: If there are fewer than two classes, a class without images, a class that
            `class_names` does not have, or a folder that cannot be read.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        class_names: Sequence[str] | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.folder = Path(folder)
        found = _class_folders(self.folder)
        if len(found) < 2:
            raise DataError(
                f"{folder} has {len(found)} class folder(s) ({', '.join(found) or 'none'}); "
                "two or more are needed, each with the images of one class: "
                f"{Path(folder) / 'CLASS' / 'IMAGE.jpg'}."
            )
        self.class_names = tuple(found if class_names is None else class_names)
        if unknown := sorted(set(found) - set(self.class_names)):
            raise DataError(
                f"{folder} has class folders that the training images do not have: "
                f"{', '.join(unknown)}. Remove them, or add them to the training images."
            )
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self.class_names):
            files = _image_files(self.folder / name) if name in found else []
            if skip_bad:
                files = _readable(files)
            if not files and name in found:
                raise DataError(
                    f"{self.folder / name} holds no readable image "
                    f"({', '.join(IMAGE_SUFFIXES)}). Add images, or remove the folder."
                )
            paths += files
            labels += [label] * len(files)
        self.paths = tuple(paths)
        self.labels: npt.NDArray[np.int64] = np.array(labels, dtype=np.int64)

    def __len__(self) -> int:
        """Count the images."""
        return len(self.paths)

    def read(self, index: int, *, draft_size: int | None = None) -> RgbImage:
        """Read one image; `draft_size` as in `read_image`."""
        return read_image(self.paths[index], draft_size=draft_size)

    def describe(self) -> str:
        """Say in a line what these images are."""
        return f"{len(self)} images of {len(self.class_names)} classes in {self.folder}"


class SubsetSource:
    """Some of the images of another source.

    Args:
        source: All images.
        indices: Those that count, by their index in `source`.
    """

    def __init__(self, source: ImageSource, *, indices: npt.NDArray[np.int64]) -> None:
        self._source = source
        self._indices = indices
        self.labels = source.labels[indices]
        self.class_names = source.class_names

    def __len__(self) -> int:
        """Count the images."""
        return len(self._indices)

    def read(self, index: int, *, draft_size: int | None = None) -> RgbImage:
        """Read one image; `draft_size` as in `read_image`."""
        return self._source.read(int(self._indices[index]), draft_size=draft_size)

    def describe(self) -> str:
        """Say in a line what these images are."""
        return f"{len(self)} of {self._source.describe()}"


def open_images(
    data: str | Path,
    *,
    split: Split,
    seed: int = 0,
    val_fraction: float = 0.1,
    download: bool = False,
    skip_bad: bool = False,
) -> ImageSource:
    """Open the training or the validation part of a set of labelled photographs.

    Args:
        data: A name in `NAMED_SETS`; or a folder with one subfolder a class, or with `train/` and
            `val/` (or `test/`) in that form; `val/` may also hold the images themselves, with their
            classes in a list (see `voxlift.data.listed_images`). Where a folder has no validation
            part, a share of each class is held out. `./NAME` is a folder, whatever its name.
        split: Which part.
        seed: Chooses the images that are held out, and the crops of `photographs`.
        val_fraction: The share of each class that is held out, at least one image of each.
        download: Whether to download a named set that is not there yet.
        skip_bad: Whether to read every file of a folder first, and to list and leave out
            unreadable ones.

    Raises:
        ConfigError: If `val_fraction` is not between 0 and 1.
        DataError: If the images cannot be found or read.
    """
    if not 0 < val_fraction < 1:
        raise ConfigError(f"val_fraction is {val_fraction}; it must lie between 0 and 1.")
    # A path drops the leading "./" by which a folder can be told from a name.
    if isinstance(data, str) and data in NAMED_SETS:
        return NAMED_SETS[data](split=split, seed=seed, download=download)
    folder = Path(data)
    if not folder.is_dir():
        raise DataError(
            f"{data} is neither a folder nor the name of a data set. "
            f"The names are: {', '.join(sorted(NAMED_SETS))}."
        )
    return _open_folder(
        folder, split=split, seed=seed, val_fraction=val_fraction, skip_bad=skip_bad
    )


def _open_photographs(*, split: Split, seed: int, download: bool) -> ImageSource:
    del download
    return PhotographSource(split, num_crops=8000 if split == "train" else 1000, seed=seed)


def _open_public(name: str, *, split: Split, seed: int, download: bool) -> ImageSource:
    del seed
    return TorchvisionSource(name, split=split, download=download)


NAMED_SETS: dict[str, Callable[..., ImageSource]] = {
    "photographs": _open_photographs,
    **{name: partial(_open_public, name) for name in PUBLIC_SETS},
}


def _open_folder(
    folder: Path, *, split: Split, seed: int, val_fraction: float, skip_bad: bool
) -> ImageSource:
    train = folder / "train"
    # A class may be called "train" too: a split holds folders, a class holds files.
    if not train.is_dir() or not _class_folders(train):
        train = folder
    validation = next(
        (folder / name for name in VALIDATION_FOLDERS if (folder / name).is_dir()), None
    )
    if train == folder or validation is None:
        source = FolderSource(train, skip_bad=skip_bad)
        indices = _held_out(source, split=split, seed=seed, val_fraction=val_fraction)
        return SubsetSource(source, indices=indices)
    if split == "train":
        return FolderSource(train, skip_bad=skip_bad)
    classes = _class_folders(train)
    if not _class_folders(validation) and (files := _image_files(validation)):
        listed = ListedSource(files, class_names=classes, data=folder)
        if not skip_bad:
            return listed
        good = set(_readable(files))
        return SubsetSource(listed, indices=np.flatnonzero([path in good for path in listed.paths]))
    return FolderSource(validation, class_names=classes, skip_bad=skip_bad)


def _held_out(
    source: ImageSource, *, split: Split, seed: int, val_fraction: float
) -> npt.NDArray[np.int64]:
    """Choose the images of one split, the same share of each class."""
    chosen = np.zeros(len(source), dtype=bool)
    for label, name in enumerate(source.class_names):
        members = np.flatnonzero(source.labels == label)
        if len(members) < 2:
            raise DataError(
                f"The class {name} has one image only, so none can be held out for validation. "
                "Add images, or put a train/ and a val/ folder with class folders into the data."
            )
        count = min(max(1, round(len(members) * val_fraction)), len(members) - 1)
        order = numpy_generator(seed, "hold-out", label).permutation(len(members))
        chosen[members[order[:count]]] = True
    return np.flatnonzero(chosen if split == "val" else ~chosen)


def _class_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise _unreadable(folder, error) from error


def _image_files(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise _unreadable(Path(error.filename or folder), error) from error

    files: list[Path] = []
    for parent, _, names in os.walk(folder, onerror=refuse):
        files += [
            Path(parent, name)
            for name in names
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(files)


def _unreadable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{folder} cannot be read as a folder: {error.strerror or error}. "
        "Check the path and its permissions."
    )


def _readable(files: list[Path]) -> list[Path]:
    """Read every file, and log and leave out those that cannot be."""
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        problems = list(threads.map(_problem, files))
    for problem in filter(None, problems):
        logger.warning("Skipped: %s", problem)
    return [path for path, problem in zip(files, problems, strict=True) if problem is None]


def _problem(path: Path) -> str | None:
    try:
        read_image(path, draft_size=32)
    except DataError as error:
        return str(error)
    return None
