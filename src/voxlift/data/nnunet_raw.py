"""Raw data sets of nnU-Net, version 1 and 2.

A folder with `imagesTr/CASE_0000.nii.gz`, `CASE_0001.nii.gz` and so on, one file a channel,
`labelsTr/CASE.nii.gz` and `dataset.json`, which names channels and classes, and perhaps regions and
what stands where nobody labelled. Without `dataset.json` these are numbered.

Source:
    The format of nnU-Net's `nnUNet_raw`, as its documentation describes it.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from voxlift.data.dataset_json import DatasetDescription
from voxlift.data.file_pairs import volume_name
from voxlift.data.listing_problems import report_problems
from voxlift.data.paired_folders import list_volumes, visible_entries
from voxlift.data.segmentation_cases import SegmentationCase
from voxlift.data.segmentation_listing import SegmentationListing

_NAME = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
IMAGES, LABELS = "imagesTr", "labelsTr"


def is_nnunet_raw(folder: Path) -> bool:
    """Tell whether the images bear numbers of channels that the masks do not bear.

    Raises:
        DataError: If the folders of images and masks cannot be read.
    """
    if not (folder / IMAGES).is_dir() or not (folder / LABELS).is_dir():
        return False
    images, labels = (
        {volume_name(path) for path in visible_entries(folder / name)} for name in (IMAGES, LABELS)
    )
    cases = [match["case"] for name in images if (match := _NAME.fullmatch(name))]
    return any(case in labels and case not in images for case in cases)


def read_nnunet_raw(
    folder: str | Path, description: DatasetDescription | None = None, *, skip_bad: bool = False
) -> SegmentationListing:
    """List the cases of a raw data set. Each case stands for itself.

    Args:
        folder: The folder.
        description: What its `dataset.json` says, if it has one.
        skip_bad: List and skip cases that lack a mask, a volume or a channel.

    Raises:
        DataError: If a folder cannot be read, or a case lacks a mask, a volume or a channel.
    """
    folder = Path(folder)
    ending = None if description is None else description.file_ending
    images, nameless = _group_channels(list_volumes(folder / IMAGES, ending=ending))
    labels = list_volumes(folder / LABELS, ending=ending)
    names = None if description is None else description.channel_names
    most = max((max(channels) for channels in images.values()), default=0)
    wanted = len(names) if names else most + 1
    complete = {name for name, channels in images.items() if sorted(channels) == [*range(wanted)]}
    report_problems(
        str(folder),
        {
            f"file of {IMAGES} without a channel number such as _0000": nameless,
            f"case whose channels are not 0 to {wanted - 1}": [
                f"{name} ({', '.join(map(str, sorted(channels)))})"
                for name, channels in images.items()
                if name not in complete
            ],
            "image without mask": [name for name in images if name not in labels],
            "mask without image": [name for name in labels if name not in images],
        },
        skip_bad=skip_bad,
        remedy="Add what is missing, or correct the names.",
    )
    return SegmentationListing(
        cases=tuple(
            SegmentationCase(
                id=name,
                images=tuple(channels[number] for number in range(wanted)),
                label=labels[name],
                group=name,
            )
            for name, channels in images.items()
            if name in complete and name in labels
        ),
        labels=None if description is None else description.labels,
        channel_names=names,
        origin=str(folder),
    )


def _group_channels(
    files: Mapping[str, Path],
) -> tuple[dict[str, dict[int, Path]], list[str]]:
    """Sort files by case and channel; those without a channel are returned apart."""
    cases: dict[str, dict[int, Path]] = {}
    nameless = []
    for name, path in files.items():
        match = _NAME.fullmatch(name)
        if match is None:
            nameless.append(path.name)
        else:
            cases.setdefault(match["case"], {})[int(match["channel"])] = path
    return cases, nameless
