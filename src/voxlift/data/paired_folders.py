"""Volumes in one folder and their masks in another beside it.

The folders bear one of the names of `IMAGE_FOLDERS` and one of `LABEL_FOLDERS`, such as
`images/` and `labels/` or `imagesTr/` and `labelsTr/`. Which mask belongs to which image is told
by their names, see `voxlift.data.file_pairs`.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.data.file_pairs import pair_names, report_unpaired, volume_name
from voxlift.data.segmentation_cases import SegmentationCase
from voxlift.data.segmentation_listing import SegmentationListing
from voxlift.data.volumes import is_volume_path

_log = logging.getLogger(__name__)

IMAGE_FOLDERS = ("imagesTr", "images", "image", "imgs", "img", "volumes", "scans")
LABEL_FOLDERS = ("labelsTr", "labels", "label", "masks", "mask", "segmentations", "segs")


def find_pair(folder: Path) -> tuple[Path, Path] | None:
    """Find the folder of images and that of masks in a folder, if it has one of each.

    Raises:
        DataError: If the folder cannot be read, or several could be the one.
    """
    there = {path.name.lower(): path for path in visible_entries(folder) if path.is_dir()}
    pair = []
    for what, names in (("images", IMAGE_FOLDERS), ("masks", LABEL_FOLDERS)):
        found = [there[name.lower()] for name in names if name.lower() in there]
        if not found:
            return None
        if len(found) > 1:
            raise DataError(
                f"{folder} holds {' and '.join(path.name for path in found)}, which could each be "
                f"the folder of {what}. Leave one of them, or name both as IMAGES::MASKS."
            )
        pair.append(found[0])
    return pair[0], pair[1]


def read_paired_folders(
    images: str | Path, labels: str | Path, *, origin: str | None = None, skip_bad: bool = False
) -> SegmentationListing:
    """List the volumes of one folder with the masks of another.

    A volume is a file that `read_volume` knows, or the folder of a DICOM series. Each case stands
    for itself.

    Args:
        images: The folder of the volumes.
        labels: The folder of the masks.
        origin: What errors and logs call the data set; by default the folder of the volumes.
        skip_bad: List and skip volumes without a mask and masks without a volume.

    Raises:
        DataError: If a folder cannot be read or is empty, or a volume or mask stands alone.
    """
    return list_pairs(
        list_volumes(Path(images)),
        list_volumes(Path(labels)),
        origin=origin or str(images),
        skip_bad=skip_bad,
    )


def list_pairs(
    image_files: Mapping[str, Path],
    label_files: Mapping[str, Path],
    *,
    origin: str,
    skip_bad: bool = False,
) -> SegmentationListing:
    """List volumes with their masks, both by their names without suffix.

    Raises:
        DataError: If a volume or mask stands alone.
    """
    pairs = pair_names(image_files, label_files)
    report_unpaired(origin, image_files, label_files, pairs, skip_bad=skip_bad)
    return SegmentationListing(
        cases=tuple(
            SegmentationCase(
                id=name, images=(image_files[name],), label=label_files[label], group=name
            )
            for name, label in pairs.items()
        ),
        origin=origin,
    )


def list_volumes(folder: Path, *, ending: str | None = None) -> dict[str, Path]:
    """List the volumes in a folder by their names without suffix; hidden files are passed over.

    Args:
        folder: The folder.
        ending: How the names of volumes end; by default as `read_volume` knows them.

    Raises:
        DataError: If the folder cannot be read or holds none, or two have the same name.
    """
    entries = visible_entries(folder)
    files: dict[str, Path] = {}
    others = []
    for path in entries:
        if not is_volume_path(path) or not path.name.endswith(ending or ""):
            others.append(path.name)
            continue
        other = files.setdefault(volume_name(path), path)
        if other != path:
            raise DataError(
                f"{folder} holds {other.name} and {path.name}, which bear the same name. Leave one "
                "of them."
            )
    if not files:
        raise DataError(
            f"{folder} holds no volume that can be read{f' and ends in {ending}' if ending else ''}"
            f" ({len(others)} other entries). Put NIfTI, NRRD, MetaImage or NumPy files or DICOM "
            "folders there."
        )
    if others:
        _log.warning(
            "%s: %d entries are no volumes and are ignored, such as %s",
            folder,
            len(others),
            others[0],
        )
    return files


def visible_entries(folder: Path) -> list[Path]:
    """List what is in a folder, but for hidden files such as `._image.nii.gz` and `.DS_Store`.

    Raises:
        DataError: If the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"{folder} could not be read: {error.strerror or error}. Check the path and the right "
            "to read it."
        ) from error
