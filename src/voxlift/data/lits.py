"""Data sets in the layout of LiTS: volumes and their masks side by side in one folder.

`volume-N.nii` is the CT and `segmentation-N.nii` its mask (both also `.nii.gz`), with the values 0
background, 1 liver, 2 tumour. Other files in the folder are ignored with a warning.

Source:
    Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), arXiv 1901.04056.
"""

import logging
import re
from dataclasses import replace
from pathlib import Path

from voxlift.core.label_scheme import BACKGROUND, LabelScheme
from voxlift.data.paired_folders import list_pairs, list_volumes, visible_entries
from voxlift.data.segmentation_listing import SegmentationListing

_log = logging.getLogger(__name__)

_FILE = re.compile(r"(volume|segmentation)-\d+\.nii(\.gz)?")


def is_lits(folder: Path) -> bool:
    """Whether a folder holds a file that is named as in LiTS."""
    return any(_FILE.fullmatch(path.name) for path in visible_entries(folder))


def read_lits(folder: Path, *, skip_bad: bool = False) -> SegmentationListing:
    """List the volumes with their masks. Each case stands for itself.

    Args:
        folder: The folder.
        skip_bad: List and skip volumes without a mask and masks without a volume.

    Raises:
        DataError: If a volume or mask stands alone, or is there as `.nii` and as `.nii.gz`.
    """
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    others: list[str] = []
    for name, path in list_volumes(folder).items():
        if _FILE.fullmatch(path.name):
            (images if name.startswith("volume") else masks)[name] = path
        else:
            others.append(path.name)
    if others:
        _log.warning("%s: %d other volumes are ignored, such as %s", folder, len(others), others[0])
    listing = list_pairs(images, masks, origin=str(folder), skip_bad=skip_bad)
    labels = LabelScheme(names=(BACKGROUND, "liver", "tumour"), values=(0, 1, 2))
    return replace(listing, labels=labels)
