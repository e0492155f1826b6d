"""Open whatever holds volumes with masks, deciding by what it is."""

import logging
from collections.abc import Sequence
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.data.paired_folders import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    find_pair,
    read_paired_folders,
)
from voxlift.data.segmentation_cases import SegmentationCases
from voxlift.data.segmentation_checks import check_segmentation
from voxlift.data.segmentation_listing import SegmentationListing

_log = logging.getLogger(__name__)


def open_segmentation(
    data: str | Path,
    *,
    skip_bad: bool = False,
    ignore_value: int | None = None,
    class_names: Sequence[str] = (),
) -> SegmentationCases:
    """Open volumes with masks, deciding by what `data` is, and check every one of them.

    Args:
        data: A folder with one folder of volumes and one of masks.
        skip_bad: List and skip what cannot be used, instead of raising.
        ignore_value: What stands in the masks where nobody labelled.
        class_names: Names of the classes in the order of their values, without the background.

    Returns:
        The cases, in the splits that the data set came with, if any (complete them by
        `with_splits`), with the `facts` that the one reading found.

    Raises:
        DataError: If `data` is none of these, a case cannot be used, or the splits leak.
    """
    listing = _list(data, skip_bad=skip_bad)
    cases = check_segmentation(
        listing, skip_bad=skip_bad, ignore_value=ignore_value, class_names=class_names
    )
    _log.info("%s: %s", cases.origin, cases.describe())
    return cases


def _list(data: str | Path, *, skip_bad: bool) -> SegmentationListing:
    path = Path(data).expanduser()
    if not path.exists():
        raise DataError(f"{path} is not there. Check --data.")
    if path.is_dir():
        pair = find_pair(path)
        if pair is not None:
            return read_paired_folders(*pair, origin=str(path), skip_bad=skip_bad)
    raise DataError(
        f"{path} is no data set for segmentation. Expected a folder with the volumes in one of "
        f"{', '.join(IMAGE_FOLDERS)} and their masks in one of {', '.join(LABEL_FOLDERS)}."
    )
