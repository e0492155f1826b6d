"""DeepLesion's key slices in COCO's form, with `slice_no`, `slice_intv` and `noisy`."""

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from voxlift.core.errors import DataError
from voxlift.data.coco_annotations import CocoAnnotations, CocoImage, read_coco_annotations
from voxlift.data.lesion_images import LesionImage, parse_name
from voxlift.data.listing_problems import report_problems

_REMEDY = "Correct the file."


def read_lesion_annotations(
    path: Path, *, split: str, skip_bad: bool = False
) -> tuple[tuple[LesionImage, ...], tuple[str, ...], Counter[str]]:
    """Read the key slices of one annotation file.

    The sizes of lesions are not taken from `area`, which is not that of the box in the files that
    are about.

    Args:
        path: The file.
        split: What its images are for; empty if that is not known.
        skip_bad: List and leave out what cannot be used, instead of raising.

    Returns:
        The key slices in the order of the file, the names of the classes, and how often something
        had to be put right.

    Raises:
        DataError: If the file is not of this form, an image is not called after its scan and slice,
            or has no `slice_intv` above 0.
    """
    annotations = read_coco_annotations(path, skip_bad=skip_bad)
    problems: dict[str, list[str]] = {}
    images = []
    for image in annotations.images:
        try:
            images.append(_image(annotations, image, split))
        except _UnusableError as error:
            problems.setdefault(str(error), []).append(image.name)
    report_problems(str(path), problems, skip_bad=skip_bad, remedy=_REMEDY)
    if not images:
        raise DataError(f"{path} lists no key slices that can be used.")
    return tuple(images), tuple(annotations.categories.values()), annotations.counts


def is_lesion_annotations(entry: Mapping[str, Any]) -> bool:
    """Tell by the first image of a file in COCO's form whether it is of DeepLesion."""
    named = parse_name(str(entry.get("file_name", ""))) is not None
    return named and ("slice_no" in entry or "slice_intv" in entry)


class _UnusableError(Exception):
    """Why an image cannot be used."""


def _image(annotations: CocoAnnotations, image: CocoImage, split: str) -> LesionImage:
    parsed = parse_name(image.name)
    if parsed is None:
        raise _UnusableError("file_name that is not <patient>_<study>_<series>/<slice>.png")
    series, number = parsed
    if image.entry.get("slice_no", number) != number:
        raise _UnusableError("slice_no that is not the number in file_name")
    interval = _positive(image.entry.get("slice_intv"))
    if interval is None:
        raise _UnusableError("slice_intv missing, zero or no number")
    window = image.entry.get("windows")
    count = len(image.annotations)
    return LesionImage(
        series=series,
        number=number,
        split=split,
        spacing_mm=_positive(image.entry.get("spacing")),
        interval_mm=interval,
        corners=image.corners,
        labels=annotations.labels(image),
        noisy=np.array([bool(one.get("noisy", 0)) for one in image.annotations], dtype=np.bool_),
        crowd=image.crowd,
        lesion_types=(None,) * count,
        diameters_mm=(None,) * count,
        window_hu=_pair(window),
        sizes=() if image.size is None else (image.size,),
    )


def _positive(value: Any) -> float | None:
    return float(value) if _is_number(value) and value > 0 else None


def _pair(value: Any) -> tuple[float, float] | None:
    if isinstance(value, list) and len(value) == 2:
        low, high = value
        if _is_number(low) and _is_number(high):
            return float(low), float(high)
    return None


def _is_number(value: Any) -> TypeGuard[float]:
    # Whole numbers in JSON may be too large for a float.
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max
