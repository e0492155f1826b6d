"""The cases that files and folders on the command line stand for, with a name for each."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.data.file_pairs import volume_name
from voxlift.data.segmentation_cases import grid_difference
from voxlift.data.volume import Volume
from voxlift.data.volumes import read_channels
from voxlift.inference.volumes import find_volumes

logger = logging.getLogger(__name__)

# What segmentation itself writes is not segmented again.
OUTPUT_ENDINGS = (".seg", ".prob")
_CHANNEL_NAME = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class SegmentationInput:
    """One case to predict on.

    Attributes:
        name: What its outputs are called; no other case of the run has it.
        paths: One file or DICOM folder, or a file for each channel.
    """

    name: str
    paths: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """What the case is called in tables and messages: its first file."""
        return self.paths[0]

    def read(
        self, channel_names: Sequence[str], *, series_uid: str | None = None
    ) -> tuple[Volume, ...]:
        """Read all channels.

        Args:
            channel_names: The channels that the model was trained on.
            series_uid: Which series to read from a DICOM folder that holds several.

        Raises:
            DataError: If the channels cannot be read, are too many or too few, or lie on different
                grids.
        """
        channels = [
            channel
            for path in self.paths
            for channel in read_channels(path, series_uid=series_uid if path.is_dir() else None)
        ]
        if len(channels) != len(channel_names):
            remedy = "Give one channel, or one point in time."
            if len(channel_names) > 1:
                remedy = (
                    "Give them as one 4D file, or as a file for each, named NAME_0000, NAME_0001 "
                    "and so on in this order."
                )
            raise DataError(
                f"{self.path}: found {len(channels)} channel(s) in {len(self.paths)} file(s), but "
                f"the model was trained on {len(channel_names)} ({', '.join(channel_names)}). "
                f"{remedy}"
            )
        for name, channel in zip(channel_names[1:], channels[1:], strict=True):
            difference = grid_difference(channel, channels[0])
            if difference:
                raise DataError(
                    f"{self.path}: the channel '{name}' is not on the grid of "
                    f"'{channel_names[0]}': {difference}. Resample it to that grid first."
                )
        return tuple(channels)


def find_segmentation_inputs(
    inputs: Sequence[str | Path], *, num_channels: int, out: Path
) -> list[SegmentationInput]:
    """List the cases that files, DICOM series folders and folders of volumes stand for.

    Files `NAME_0000`, `NAME_0001` and so on are the channels of one case. Cases of equal names are
    told apart by the names of their folders. What segmentation wrote is passed over in folders.

    Args:
        inputs: Files and folders.
        num_channels: Channels that the model was trained on.
        out: Folder of the outputs.

    Raises:
        DataError: If there is nothing to predict on, an input is missing, two cases cannot be told
            apart, or outputs would be written among the slices of an input.
    """
    if not inputs:
        raise DataError("There is nothing to predict on. Give files or folders of volumes.")
    paths: dict[Path, Path] = {}
    for each in inputs:
        for path in _find(Path(each), out):
            paths.setdefault(path.resolve(), path)
    if out.resolve() in paths and out.is_dir():
        raise DataError(
            f"{out} holds a DICOM series that is an input; files among its slices would break it. "
            " Choose another folder with --out."
        )
    groups = _group_channels(list(paths.values()), num_channels)
    names = _distinct_names([group[0] for group in groups], [len(group) > 1 for group in groups])
    return [
        SegmentationInput(name, tuple(group)) for name, group in zip(names, groups, strict=True)
    ]


def _find(given: Path, out: Path) -> list[Path]:
    found = find_volumes([given])
    if found == [given]:
        return found
    folder = out.resolve()
    is_within = given.resolve() in folder.parents
    kept = [
        path
        for path in found
        if not volume_name(path).endswith(OUTPUT_ENDINGS)
        and not (is_within and folder in (path.resolve(), *path.resolve().parents))
    ]
    if not kept:
        raise DataError(
            f"{given} holds only masks and probability maps, and no scan to predict on."
        )
    if len(kept) < len(found):
        logger.info("%s: %d outputs are passed over.", given, len(found) - len(kept))
    return kept


def _group_channels(paths: Sequence[Path], num_channels: int) -> list[list[Path]]:
    """Put the files of the channels of one case together, in the place of the first."""
    groups: dict[object, dict[int, Path]] = {}
    for path in paths:
        match = _CHANNEL_NAME.fullmatch(volume_name(path))
        number = int(match[2]) if match else num_channels
        if match and num_channels > 1 and path.is_file() and number < num_channels:
            groups.setdefault((path.parent, match[1]), {})[number] = path
        else:
            groups[path] = {0: path}
    return [[group[number] for number in sorted(group)] for group in groups.values()]


def _distinct_names(paths: Sequence[Path], are_grouped: Sequence[bool]) -> list[str]:
    """Name cases by their files, with as many folders in front as it takes to tell them apart."""
    own = []
    for path, is_grouped in zip(paths, are_grouped, strict=True):
        match = _CHANNEL_NAME.fullmatch(volume_name(path)) if is_grouped else None
        own.append(match[1] if match else volume_name(path))
    names = list(own)
    most_folders = max(len(path.resolve().parts) for path in paths)
    for num_folders in range(1, most_folders):
        # Names that differ in case alone are one file on some systems.
        counts = Counter(name.casefold() for name in names)
        twice = [position for position, name in enumerate(names) if counts[name.casefold()] > 1]
        if not twice:
            return names
        for position in twice:
            folders = paths[position].resolve().parts[1:-1][-num_folders:]
            names[position] = "_".join([*folders, own[position]])
    raise DataError(
        "These inputs have the same name, and so would their outputs: "
        f"{', '.join(str(paths[position]) for position in twice[:4])}. Rename one, or "
        "predict on them into different folders."
    )
