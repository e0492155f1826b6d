"""NIfTI, NRRD and MetaImage files, written through SimpleITK."""

from pathlib import Path

import numpy as np

from voxlift.data.volume import Volume


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
