"""Enhanced DICOM: many images in one file, the place and the scaling of each in groups of tags.

A group stands once for all images ("shared") or once for each of them.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.data.dicom_frames import Frame
from voxlift.data.dicom_series import DicomFile, numbers

if TYPE_CHECKING:
    from pydicom import Dataset

_CLASSES = (
    "EnhancedCTImageStorage",
    "EnhancedMRImageStorage",
    "EnhancedPETImageStorage",
    "LegacyConvertedEnhancedCTImageStorage",
    "LegacyConvertedEnhancedMRImageStorage",
    "LegacyConvertedEnhancedPETImageStorage",
)
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


def is_enhanced(file: DicomFile) -> bool:
    """Tell whether the places of a file's images stand in groups of tags."""
    from pydicom import uid

    classes = {getattr(uid, name) for name in _CLASSES}
    return file.num_frames > 1 or file.tags.get("SOPClassUID") in classes


def enhanced_frames(file: DicomFile) -> list[Frame]:
    """Read the places of the images of a file.

    Raises:
        DataError: If they have none, or belong to several stacks or points in time.
    """
    import pydicom

    try:
        tags = pydicom.dcmread(
            file.path,
            stop_before_pixels=True,
            specific_tags=["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"],
        )
        groups = list(tags.get("PerFrameFunctionalGroupsSequence") or [])
    except (EOFError, ValueError) as error:
        raise DataError(
            f"{file.path}: its DICOM header cannot be read ({error}). Copy the series again."
        ) from error
    if len(groups) != file.num_frames:
        raise DataError(
            f"{file.path}: it holds {file.num_frames} frames in one file, but groups of tags that "
            f"give their place in the patient for {len(groups)}. Convert it to NIfTI, or to one "
            "file a slice."
        )
    shared = next(iter(tags.get("SharedFunctionalGroupsSequence") or []), None)
    for name, what in (("StackID", "stacks"), ("TemporalPositionIndex", "points in time")):
        found = {str(_group(one, shared, "FrameContentSequence").get(name, "")) for one in groups}
        if len(found) > 1:
            raise DataError(
                f"{file.path}: its frames belong to {len(found)} {what}, where a volume has one. "
                "Convert it to one NIfTI file for each, for instance with dcm2niix."
            )
    return [_frame(file, index, one, shared) for index, one in enumerate(groups)]


def read_stored_values(path: Path) -> npt.NDArray[Any]:
    """Read the images of a file as they are stored, without scaling, whatever compresses them.

    Shape:
        `(frames, rows, columns)`.

    Raises:
        RuntimeError: If they cannot be read.
    """
    import pydicom
    import SimpleITK
    from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage

    # SimpleITK knows all compressions, but scales all frames like the first. So it is given the
    # pixels under another name, as plain pictures.
    source = pydicom.dcmread(path)
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
        del source, plain
        array: npt.NDArray[Any] = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(stripped)))
    if array.ndim != 3:
        raise RuntimeError(f"the pixels are an array of {array.shape}")
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


def _group(own: "Dataset", shared: "Dataset | None", name: str) -> "Dataset":
    """Find a group of tags, of the image itself or of all; empty where there is none."""
    from pydicom import Dataset

    for item in (own, shared):
        if item is not None and item.get(name):
            found: Dataset = item[name][0]
            return found
    return Dataset()


def _frame(file: DicomFile, index: int, own: "Dataset", shared: "Dataset | None") -> Frame:
    where = file.path.with_name(f"{file.path.name}, frame {index + 1}")
    measures = _group(own, shared, "PixelMeasuresSequence")
    thickness = None
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = measures.get(name)
        if thickness is None and value is not None and float(value) > 0:
            thickness = float(value)
    transformation = _group(own, shared, "PixelValueTransformationSequence")
    scaling = []
    for name, neutral in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        value = transformation.get(name)
        scaling.append(neutral if value is None else float(value))
    if not np.isfinite(scaling).all():
        raise DataError(
            f"{where}: its rescale slope and intercept are {scaling}; expected numbers. "
            "Export the series again."
        )
    orientation = _group(own, shared, "PlaneOrientationSequence")
    position = _group(own, shared, "PlanePositionSequence")
    return Frame(
        file=file,
        index=index,
        orientation=numbers(where, orientation, "ImageOrientationPatient", 6),
        position_mm=numbers(where, position, "ImagePositionPatient", 3),
        spacing_mm=numbers(where, measures, "PixelSpacing", 2),
        thickness_mm=thickness,
        slope=scaling[0],
        intercept=scaling[1],
    )
