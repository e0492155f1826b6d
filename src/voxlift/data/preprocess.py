"""Apply a preprocessing contract to a volume, and say so when the volume breaks it."""

import warnings

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from voxlift.core.errors import DataError
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.types import Triple
from voxlift.data.intensity import find_scale
from voxlift.data.orientation import to_canonical
from voxlift.data.resample import resample
from voxlift.data.volume import Volume

NetworkInput = Float32[np.ndarray, "channels _ _ _"]


class PreprocessingWarning(UserWarning):
    """A volume that can be processed, but does not look like those of the training."""


def preprocess(
    volume: Volume | npt.NDArray[np.generic],
    preprocessing: Preprocessing,
    *,
    name: str = "the volume",
    margin_voxels: int = 0,
) -> NetworkInput:
    """Turn a volume into what the network is fed, by the contract saved with it.

    Where the volume ends, padding has its lowest value: air in CT, the dark background in MR.

    Args:
        volume: A volume, or an array without voxel size and direction.
        preprocessing: The contract.
        name: What error messages and warnings call the volume.
        margin_voxels: Keep so many more voxels on every side, for random shifts.

    Shape:
        `(depth, height, width)`, or `(channels, depth, height, width)` for networks of several
        channels -> `(channels, *size_voxels)`.

    Raises:
        DataError: If the volume has the wrong number of dimensions or channels, holds NaN or Inf,
            or has no voxel size although the contract asks for one.

    Warns:
        PreprocessingWarning: If the numbers do not look like the unit of the training.
    """
    made = preprocess_quietly(volume, preprocessing, name=name, margin_voxels=margin_voxels)
    complaint = unit_complaint(volume, preprocessing, name=name)
    if complaint is not None:
        warnings.warn(complaint, PreprocessingWarning, stacklevel=2)
    return made


def preprocess_quietly(
    volume: Volume | npt.NDArray[np.generic],
    preprocessing: Preprocessing,
    *,
    name: str = "the volume",
    margin_voxels: int = 0,
) -> NetworkInput:
    """Do as `preprocess`, but leave the unit of the numbers to the caller to check."""
    array = volume.array if isinstance(volume, Volume) else np.asarray(volume)
    _check_array(array, preprocessing.in_channels, name=name)
    if isinstance(volume, Volume):
        if preprocessing.orientation == "canonical":
            volume = to_canonical(volume)
        if preprocessing.spacing_mm is not None:
            volume = resample(volume, preprocessing.spacing_for(volume.spacing_mm))
        array = volume.array
    elif preprocessing.spacing_mm is not None:
        raise DataError(
            f"{name} is an array without a voxel size, but has to be resampled to "
            f"{preprocessing.spacing_mm} mm. Give a Volume with its spacing_mm."
        )
    channels = array[None] if array.ndim == 3 else array
    scales = [find_scale(channel, preprocessing) for channel in channels]
    normalised = np.stack(
        [scale.apply(channel) for scale, channel in zip(scales, channels, strict=True)]
    )
    lowest = min(scale.lowest for scale in scales)
    size = preprocessing.size_voxels or normalised.shape[1:]
    wide = (size[0] + 2 * margin_voxels, size[1] + 2 * margin_voxels, size[2] + 2 * margin_voxels)
    return crop_or_pad(normalised, wide, fill=lowest)


def unit_complaint(
    volume: Volume | npt.NDArray[np.generic], preprocessing: Preprocessing, *, name: str
) -> str | None:
    """Say what is odd about the numbers of a volume for the unit of the training, if anything."""
    array = volume.array if isinstance(volume, Volume) else np.asarray(volume)
    if preprocessing.unit == "raw" or array.size == 0:
        return None
    low, high = float(array.min()), float(array.max())
    eight_bit = low >= 0 and high <= 255
    if preprocessing.unit == "HU" and eight_bit:
        return (
            f"{name} holds values from {low:g} to {high:g}, as 8-bit images do, but the network "
            "was trained on Hounsfield units, where air is near -1000. Its answer will likely be "
            "wrong. Give the volume in Hounsfield units, or train with unit '0-255'."
        )
    if preprocessing.unit == "0-255" and not eight_bit:
        return (
            f"{name} holds values from {low:g} to {high:g}, but the network was trained on 8-bit "
            "values from 0 to 255. Its answer will likely be wrong. Scale the volume as the "
            "training data were, or train with the unit that it has."
        )
    return None


def crop_or_pad(array: NetworkInput, size_voxels: Triple, *, fill: float) -> NetworkInput:
    """Crop or pad each axis about its centre.

    Shape:
        `(channels, depth, height, width)` -> `(channels, *size_voxels)`.
    """
    cropped, before_after = [slice(None)], [(0, 0)]
    for length, wanted in zip(array.shape[1:], size_voxels, strict=True):
        start = max(length - wanted, 0) // 2
        cropped.append(slice(start, start + min(wanted, length)))
        lacking = max(wanted - length, 0)
        before_after.append((lacking // 2, lacking - lacking // 2))
    return np.pad(
        np.ascontiguousarray(array[tuple(cropped)]), before_after, constant_values=np.float32(fill)
    )


def _check_array(array: npt.NDArray[np.generic], in_channels: int, *, name: str) -> None:
    expected = "(depth, height, width)"
    remedy = "Give one volume, such as one point in time, one series or one channel."
    if array.ndim < 3:
        remedy = "Give the whole volume, not a slice of it."
    if in_channels > 1:
        expected = f"({in_channels}, depth, height, width)"
        remedy = f"The network was trained on {in_channels} channels: stack them in front."
    wrong_channels = in_channels > 1 and array.ndim == 4 and array.shape[0] != in_channels
    if array.ndim != (3 if in_channels == 1 else 4) or wrong_channels:
        raise DataError(
            f"{name} has {array.ndim} dimension(s), of size {array.shape}; expected {expected}. "
            f"{remedy}"
        )
    if array.size == 0:
        raise DataError(f"{name} is empty: its size is {array.shape}. Leave it out.")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} holds {array.dtype}; expected real numbers.")
    with np.errstate(over="ignore"):
        bad = 0 if array.dtype.kind != "f" else int((~np.isfinite(array.astype(np.float32))).sum())
    if bad:
        raise DataError(
            f"{name} holds NaN or Inf in {bad} of {array.size} voxels. Replace them in the file, "
            "or leave it out with --skip-bad."
        )
