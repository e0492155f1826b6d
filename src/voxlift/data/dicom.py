"""DICOM series: many slices, each a file or a frame of one, put into one volume by their place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.data.dicom_enhanced import enhanced_frames, is_enhanced
from voxlift.data.dicom_frames import Frame, single_frame, stack_frames
from voxlift.data.dicom_pixels import read_pixels
from voxlift.data.dicom_series import DicomFile, choose_series
from voxlift.data.dicom_tags import number
from voxlift.data.volume import Volume
from voxlift.data.volume_integrity import check_size

_MODALITIES = ("CT", "MR", "PT", "NM", "OT")


def read_dicom_series(folder: Path, *, series_uid: str | None = None) -> Volume:
    """Read a DICOM series in a folder, of one slice a file or of enhanced, multi-frame files.

    Args:
        folder: Holds the files under any name; others are passed over and logged.
        series_uid: SeriesInstanceUID of the series to read; None if there is only one.

    Returns:
        The volume in the units of the rescale slope and intercept (HU for CT). The depth grows
        along the cross product of the row and column direction.

    Raises:
        DataError: If there is no series, more than one, or it is no even, straight stack of
            greyscale slices.
    """
    files = choose_series(folder, series_uid)
    frames: list[Frame] = []
    for file in files:
        _check_kind(file)
        frames += enhanced_frames(file) if is_enhanced(file) else [single_frame(file)]
    check_size(folder, (len(frames), *files[0].size))
    frames, geometry = stack_frames(folder, frames)
    return Volume(_read_pixels(frames), *geometry)


def _check_kind(file: DicomFile) -> None:
    """Refuse what is no greyscale scan."""
    if file.modality not in _MODALITIES:
        raise DataError(
            f"{file.path}: its modality is {file.modality}; volumes are read from "
            f"{', '.join(_MODALITIES)}, not from masks, contours or reports. Take it out of the "
            "folder, or choose another series."
        )
    if not file.num_frames:
        raise DataError(
            f"{file.path}: it has no tag Rows or Columns, so it holds no image. "
            "Take it out of the folder."
        )
    photometric = str(file.tags.get("PhotometricInterpretation") or "missing")[:16]
    if photometric != "MONOCHROME2" or number(file.path, file.tags, "SamplesPerPixel") not in (
        1,
        None,
    ):
        raise DataError(
            f"{file.path}: its pixels are {photometric}; expected greyscale that grows with "
            "brightness (MONOCHROME2). Take it out of the folder, or convert it."
        )


def _read_pixels(frames: Sequence[Frame]) -> npt.NDArray[Any]:
    """Read the slices, each with its own rescale slope and intercept."""
    by_file: dict[Path, list[int]] = {}
    for place, one in enumerate(frames):
        by_file.setdefault(one.file.path, []).append(place)
    pixels: npt.NDArray[Any] | None = None
    for places in by_file.values():
        part = read_pixels([frames[place] for place in places])
        if pixels is None:
            pixels = np.empty((len(frames), *part.shape[1:]), part.dtype)
        # Slopes of a half in one slice and of 1 in another make real and whole numbers.
        pixels = pixels.astype(np.promote_types(pixels.dtype, part.dtype), copy=False)
        pixels[places] = part
    assert pixels is not None
    return pixels
