"""MedMNIST in three dimensions: one .npz file with images and labels of some splits."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.data.classification_cases import ClassificationCase, ClassificationCases
from voxlift.data.npz import npz_names, read_npz
from voxlift.data.splits import SPLITS


def is_medmnist(path: Path) -> bool:
    """Tell whether an .npz file has the arrays of MedMNIST, without reading them.

    Raises:
        DataError: If it cannot be read as .npz.
    """
    names = npz_names(path)
    return any(f"{split}_images" in names for split in SPLITS)


def read_medmnist(path: str | Path) -> ClassificationCases:
    """Read a MedMNIST-3D file, with whatever splits it has.

    MedMNIST does not say which volumes are of one patient: each stands for itself. It states no
    voxel size either: 1 mm is taken.

    Args:
        path: An .npz file with `{train,val,test}_images` of `(cases, depth, height, width)` and
            `{train,val,test}_labels` of `(cases,)` or `(cases, 1)`.

    Raises:
        DataError: If arrays are missing, of another shape, or there is one class only.
    """
    path = Path(path)
    names = npz_names(path)
    splits = [split for split in SPLITS if f"{split}_images" in names]
    if not splits:
        raise DataError(
            f"{path} holds {', '.join(names) or 'no arrays'}; expected those of MedMNIST: "
            f"{', '.join(f'{split}_images and {split}_labels' for split in SPLITS)}, or some of "
            "them. A single volume is listed in a manifest (.csv) instead."
        )
    images, labels = {}, {}
    for split in splits:
        keys = (f"{split}_images", f"{split}_labels")
        arrays = read_npz(path, keys)
        images[split] = _check_images(path, keys[0], arrays[keys[0]])
        labels[split] = _check_labels(path, keys[1], arrays[keys[1]], len(images[split]))
    classes = np.unique(np.concatenate(list(labels.values())))
    return ClassificationCases(
        cases=tuple(
            ClassificationCase(
                id=f"{split}-{index:05d}",
                image=image,
                label=int(np.searchsorted(classes, label)),
                group=f"{split}-{index:05d}",
                split=split,
            )
            for split in splits
            for index, (image, label) in enumerate(zip(images[split], labels[split], strict=True))
        ),
        class_names=tuple(str(name) for name in classes),
        origin=str(path),
    )


def _check_images(
    path: Path, name: str, images: npt.NDArray[np.generic]
) -> npt.NDArray[np.generic]:
    if images.ndim != 4:
        raise DataError(
            f"{path}: {name} has {images.ndim} dimensions {images.shape}; expected volumes as "
            "(cases, depth, height, width). The two-dimensional sets of MedMNIST are for "
            "photographs, not for volumes."
        )
    if len(images) == 0:
        raise DataError(f"{path}: {name} holds no volume. Leave the split out of the file.")
    return images


def _check_labels(
    path: Path, name: str, labels: npt.NDArray[np.generic], count: int
) -> npt.NDArray[np.int64]:
    if labels.shape not in ((count,), (count, 1)):
        raise DataError(
            f"{path}: {name} has the shape {labels.shape} for {count} volumes; expected one label "
            "a volume. Sets with several labels at once are not for classification."
        )
    if labels.dtype.kind not in "biuf":
        raise DataError(f"{path}: {name} holds {labels.dtype}; expected whole numbers.")
    numbers = labels.ravel().astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers != np.round(numbers)))
    if len(wrong):
        raise DataError(
            f"{path}: {name} has the label {numbers[wrong[0]]} at {wrong[0]} (counted from 0); "
            "expected whole numbers. Repair it, or list the volumes in a manifest (.csv)."
        )
    return numbers.astype(np.int64)
