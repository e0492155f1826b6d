"""Open whatever holds volumes with masks, deciding by what it is.

- A folder of the Medical Segmentation Decathlon, see `voxlift.data.msd`.
- A raw data set of nnU-Net, see `voxlift.data.nnunet_raw`.
- A folder with one folder of volumes and one of masks, see `voxlift.data.paired_folders`; or two
  folders anywhere, named as `IMAGES::MASKS`.
- A folder with `volume-N.nii` and `segmentation-N.nii` side by side, see `voxlift.data.lits`.
- A folder of LIDC nodules, see `voxlift.data.lidc`.
- A manifest (.csv), see `voxlift.data.segmentation_manifest`.

A table beside the folders may tell whose each case is, see `voxlift.data.case_table`.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.core.types import PublishedSplit
from voxlift.data.case_table import apply_case_table
from voxlift.data.dataset_json import FILE_NAME, read_dataset_json
from voxlift.data.lidc import is_lidc, read_lidc_masks
from voxlift.data.lits import is_lits, read_lits
from voxlift.data.msd import read_msd
from voxlift.data.nnunet_raw import is_nnunet_raw, read_nnunet_raw
from voxlift.data.paired_folders import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    find_pair,
    read_paired_folders,
)
from voxlift.data.segmentation_cases import SegmentationCases
from voxlift.data.segmentation_checks import check_segmentation
from voxlift.data.segmentation_listing import SegmentationListing
from voxlift.data.segmentation_manifest import read_segmentation_manifest

_log = logging.getLogger(__name__)

_BETWEEN = "::"
_UNLABELLED = ("imagesTs", "imagesVal")


def open_segmentation(
    data: str | Path,
    *,
    skip_bad: bool = False,
    ignore_value: int | None = None,
    class_names: Sequence[str] = (),
    regions: Mapping[str, Sequence[int]] | None = None,
    labels: LabelScheme | None = None,
    published_split: PublishedSplit | None = None,
) -> SegmentationCases:
    """Open volumes with masks, deciding by what `data` is, and check every one of them.

    Args:
        data: A folder in one of the layouts named above, its `dataset.json` if that has another
            name, a manifest (.csv), or `IMAGES::MASKS`.
        skip_bad: List and skip what cannot be used, instead of raising.
        ignore_value: What stands in the masks where nobody labelled.
        class_names: Names of the classes in the order of their values, without the background;
            by default as the data set names them, else `class 1` and so on.
        regions: Overlapping regions to be found instead of the classes, by name, as the values of
            their classes in the masks, the larger ones first.
        labels: What the values in the masks mean by a trained model. It is taken where the data
            states nothing else: no classes, or the same values without regions. The options above
            do not go with it.
        published_split: Of the LIDC layout: `keep` its split although it divides patients, or
            `ignore` it; None refuses a split that divides patients.

    Returns:
        The cases, in the splits that the data set came with, if any (complete them by
        `with_splits`), with the `facts` that the one reading found.

    Raises:
        DataError: If `data` is none of these, a case cannot be used, or the splits leak.
    """
    listing = _list(data, skip_bad=skip_bad, published_split=published_split)
    stated = listing.labels
    if labels is not None and (
        stated is None or (stated.values == labels.values and not stated.regions)
    ):
        listing = replace(listing, labels=labels)
    cases = check_segmentation(
        listing,
        skip_bad=skip_bad,
        ignore_value=ignore_value,
        class_names=class_names,
        regions=regions,
    )
    _log.info("%s: %s", cases.origin, cases.describe())
    return cases


def _list(
    data: str | Path, *, skip_bad: bool, published_split: PublishedSplit | None
) -> SegmentationListing:
    path = Path(data).expanduser()
    if not path.exists():
        if _BETWEEN in str(data):
            return _list_pair(str(data), skip_bad=skip_bad)
        raise DataError(f"{path} is not there. Check --data.")
    if path.is_dir():
        listing = _list_folder(path, skip_bad=skip_bad)
        if listing is not None:
            return apply_case_table(listing, path, skip_bad=skip_bad)
        if is_lidc(path):
            return read_lidc_masks(path, published_split=published_split, skip_bad=skip_bad)
    elif path.suffix.lower() == ".csv":
        return read_segmentation_manifest(path, skip_bad=skip_bad)
    elif path.suffix.lower() == ".json":
        listing = read_msd(read_dataset_json(path), skip_bad=skip_bad)
        return apply_case_table(listing, path.parent, skip_bad=skip_bad)
    raise DataError(
        f"{path} is no data set for segmentation. Expected a folder of the Medical Segmentation "
        "Decathlon or of nnU-Net, a folder with the volumes in one of "
        f"{', '.join(IMAGE_FOLDERS)} and their masks in one of {', '.join(LABEL_FOLDERS)}, one "
        "with volume-N.nii and segmentation-N.nii, one of LIDC nodules, two folders as "
        "IMAGES::MASKS, or a manifest (.csv with image,label[,id][,group][,split])."
    )


def _list_pair(data: str, *, skip_bad: bool) -> SegmentationListing:
    folders = [Path(part).expanduser() for part in data.split(_BETWEEN)]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing or len(folders) != 2:
        raise DataError(
            f"{data} does not name two folders, that of the volumes and that of the masks"
            f"{f': {missing[0]} is none' if missing else ''}. Check --data."
        )
    return read_paired_folders(*folders, skip_bad=skip_bad)


def _list_folder(folder: Path, *, skip_bad: bool) -> SegmentationListing | None:
    described = (folder / FILE_NAME).is_file()
    description = read_dataset_json(folder / FILE_NAME) if described else None
    for name in _UNLABELLED:
        if (folder / name).is_dir():
            _log.info("%s: the volumes of %s have no masks and are left out", folder, name)
    if is_nnunet_raw(folder):
        return read_nnunet_raw(folder, description, skip_bad=skip_bad)
    if description is not None and description.cases:
        return read_msd(description, skip_bad=skip_bad)
    pair = find_pair(folder)
    if pair is None:
        return read_lits(folder, skip_bad=skip_bad) if is_lits(folder) else None
    listing = read_paired_folders(*pair, origin=str(folder), skip_bad=skip_bad)
    if description is None:
        return listing
    return replace(listing, labels=description.labels, channel_names=description.channel_names)
