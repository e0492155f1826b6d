"""The pixels of a DICOM file, compressed or not, scaled by the slope and intercept of each image.

They are read by SimpleITK, which knows all compressions in use. Where a file holds fewer pixels
than it promises, SimpleITK fills up with whatever is in memory; so that is checked first.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.data.dicom_enhanced import is_enhanced
from voxlift.data.dicom_frames import Frame
from voxlift.data.dicom_tags import BoundedReader, damages

if TYPE_CHECKING:
    from pydicom import Dataset

# What has to be known to read stored values, and nothing that names or scales them.
_PIXEL_TAGS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
)


def read_pixels(frames: Sequence[Frame]) -> npt.NDArray[Any]:
    """Read images of one file.

    Shape:
        `(frames, rows, columns)`, in the order asked for.

    Raises:
        DataError: If the file is cut, or compressed in a way that is not read.
    """
    import pydicom
    import SimpleITK
    from pydicom.uid import UncompressedTransferSyntaxes

    file = frames[0].file
    damage: tuple[type[Exception], ...] = (RuntimeError, *damages())
    try:
        with pydicom.config.disable_value_validation(), BoundedReader(file.path) as stream:
            source = pydicom.dcmread(stream, specific_tags=list(_PIXEL_TAGS))
        _check_length(source, file.num_frames)
        if is_enhanced(file):
            return scale_frames(_read_stored_values(source), frames)
        image = SimpleITK.ReadImage(str(file.path))
    except damage as error:
        # Only SimpleITK and the checks here are quoted; see `dicom_tags`.
        reason = type(error).__name__
        if isinstance(error, (RuntimeError, EOFError)):
            reason = str(error).strip().splitlines()[-1].strip()
        syntax = file.syntax
        if syntax is None or syntax in UncompressedTransferSyntaxes:
            remedy = "Copy the series again."
        else:
            remedy = (
                f"They are compressed as {syntax.name}: copy the series again, or decompress it "
                "first, for instance with `gdcmconv --raw` or in the archive that it comes from."
            )
        raise DataError(f"{file.path}: its pixels cannot be read ({reason}). {remedy}") from None
    array: npt.NDArray[Any] = SimpleITK.GetArrayFromImage(image)
    return array


def _check_length(source: "Dataset", num_frames: int) -> None:
    from pydicom.uid import UncompressedTransferSyntaxes

    if "PixelData" not in source:
        raise EOFError("it ends before them")
    if source.file_meta.TransferSyntaxUID in UncompressedTransferSyntaxes:
        promised = num_frames * source.Rows * source.Columns * source.BitsAllocated // 8
        if len(source.PixelData) < promised:
            raise EOFError(f"it holds {len(source.PixelData)} of {promised} bytes")


def _read_stored_values(source: "Dataset") -> npt.NDArray[Any]:
    """Read the images of a file as they are stored, without scaling."""
    import pydicom
    import SimpleITK
    from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage

    # SimpleITK would scale all frames like the first. So it is given the pixels under another
    # name, as plain pictures.
    plain = pydicom.Dataset()
    for name in _PIXEL_TAGS:
        if name in source:
            plain[name] = source[name]
    plain.file_meta = pydicom.dataset.FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
    plain.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    plain.SOPInstanceUID = pydicom.uid.generate_uid()
    with tempfile.TemporaryDirectory() as folder:
        stripped = Path(folder) / "pixels.dcm"
        plain.save_as(stripped, enforce_file_format=True)
        array: npt.NDArray[Any] = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(stripped)))
    return array


def scale_frames(stored: npt.NDArray[Any], frames: Sequence[Frame]) -> npt.NDArray[Any]:
    """Choose images of a file and scale each by its own slope and intercept.

    Whole numbers stay whole where the scaling is. Else the result is in 32 bits where these hold
    every stored value.
    """
    scaling = np.array([(one.slope, one.intercept) for one in frames])
    if (scaling == (1, 0)).all():
        dtype: Any = stored.dtype
    elif (scaling == scaling.round()).all():
        dtype = np.int32 if stored.dtype.itemsize <= 2 else np.int64
    else:
        dtype = np.float32 if stored.dtype.itemsize <= 2 else np.float64
    scaled = np.empty((len(frames), *stored.shape[1:]), dtype)
    for place, one in enumerate(frames):
        scaled[place] = stored[one.index].astype(np.float64) * one.slope + one.intercept
    return scaled
