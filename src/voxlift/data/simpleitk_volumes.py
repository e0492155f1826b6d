"""NRRD and MetaImage files, read through SimpleITK; NIfTI too is written through it."""

from pathlib import Path

import numpy as np

from voxlift.core.errors import DataError
from voxlift.data.volume import Volume
from voxlift.data.volume_integrity import check_size


def read_simpleitk_channels(path: Path) -> tuple[Volume, ...]:
    """Read a file that SimpleITK knows, a volume for each channel.

    Channels are several values a voxel, or a fourth dimension.

    Raises:
        DataError: If it cannot be read, or has another number of dimensions.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        dimensions, components = reader.GetDimension(), reader.GetNumberOfComponents()
        check_size(path, (*reader.GetSize(), components))
        if dimensions not in (3, 4) or (dimensions == 4 and components > 1):
            raise DataError(
                f"{path}: it has {dimensions} dimensions of size {reader.GetSize()[::-1]} with "
                f"{components} values a voxel; expected three dimensions (depth, height, width), "
                "or four with the channels. Save one channel or one point in time as a file of "
                "its own, a single slice as (1, height, width)."
            )
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise DataError(
            f"{path} could not be read: {reason} Copy it again, or leave it out (--skip-bad)."
        ) from error
    array = SimpleITK.GetArrayFromImage(image)
    if components > 1:
        array = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    elif dimensions == 3:
        array = array[None]
    direction = np.array(image.GetDirection()).reshape(dimensions, dimensions)
    if np.abs(direction[3:, :3]).sum() + np.abs(direction[:3, 3:]).sum() > 0:
        raise DataError(
            f"{path}: its fourth axis is turned into space, so it holds no channels. "
            "Save each channel as a file of its own."
        )
    width, height, depth = image.GetSpacing()[:3]
    x, y, z = image.GetOrigin()[:3]
    return tuple(
        Volume(channel, (depth, height, width), (x, y, z), direction[:3, :3]) for channel in array
    )


def write_simpleitk(path: Path, volume: Volume) -> None:
    """Write a volume; the suffix of the path chooses the format.

    Raises:
        OSError: If it cannot be written.
    """
    import SimpleITK

    image = SimpleITK.GetImageFromArray(writable(volume.array))
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    try:
        SimpleITK.WriteImage(image, str(path), useCompression=not path.name.endswith(".nii"))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise OSError(reason) from error


def writable(array: np.ndarray) -> np.ndarray:
    """Booleans and half precision are not in the formats; both have an exact stand-in."""
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
