"""Data sets in the layout of the Medical Segmentation Decathlon.

A folder with `dataset.json`, which names the classes (`labels`) and the channels (`modality`) and
lists the cases (`training`, and in some variants `validation` with masks); volumes of several
channels are four-dimensional files. `imagesTs` has no masks and is left out. The same folder
without `dataset.json`, or where that lists no case, is read as two parallel folders.

Source:
    Antonelli et al., The Medical Segmentation Decathlon, arXiv 2106.05735.
"""

import logging
from pathlib import Path

from voxlift.data.dataset_json import DatasetDescription, ListedCase
from voxlift.data.file_pairs import volume_name
from voxlift.data.listing_problems import report_problems
from voxlift.data.manifest_rows import is_there
from voxlift.data.paired_folders import visible_entries
from voxlift.data.segmentation_cases import SegmentationCase
from voxlift.data.segmentation_listing import SegmentationListing

_log = logging.getLogger(__name__)


def read_msd(description: DatasetDescription, *, skip_bad: bool = False) -> SegmentationListing:
    """List the cases that `dataset.json` lists. Each case stands for itself.

    Args:
        description: What `dataset.json` says.
        skip_bad: List and skip cases whose files are not there.

    Raises:
        DataError: If a file is not there, no case is listed, or one twice.
    """
    folder = description.path.parent
    problems: dict[str, list[str]] = {"image that is not there": [], "mask that is not there": []}
    cases = []
    for listed in description.cases:
        missing_images = [name for name in listed.images if not is_there(folder / name)]
        problems["image that is not there"] += missing_images
        has_mask = is_there(folder / listed.label)
        if not has_mask:
            problems["mask that is not there"].append(listed.label)
        if has_mask and not missing_images:
            cases.append(_case(folder, listed))
    report_problems(
        str(folder),
        problems,
        skip_bad=skip_bad,
        remedy=f"Add what is missing, or correct {description.path.name}.",
    )
    _warn_of_unlisted(folder, description)
    return SegmentationListing(
        cases=tuple(cases),
        labels=description.labels,
        channel_names=description.channel_names,
        origin=str(folder),
    )


def _case(folder: Path, listed: ListedCase) -> SegmentationCase:
    name = listed.name or volume_name(folder / listed.images[0])
    return SegmentationCase(
        id=name,
        images=tuple(folder / image for image in listed.images),
        label=folder / listed.label,
        group=name,
        split=listed.split,
    )


def _warn_of_unlisted(folder: Path, description: DatasetDescription) -> None:
    """Say so if the folders of the masks hold more than is listed."""
    masks = {(folder / listed.label).absolute() for listed in description.cases}
    there = {
        path
        for parent in {mask.parent for mask in masks}
        if parent.is_dir()
        for path in visible_entries(parent)
    }
    unlisted = sorted(path.name for path in there - masks)
    if unlisted:
        _log.warning(
            "%s does not list %d of the masks that are there, such as %s; they are ignored",
            description.path,
            len(unlisted),
            unlisted[0],
        )
