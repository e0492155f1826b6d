"""Enhanced DICOM: many images in one file, the place and the scaling of each in groups of tags.

A group stands once for all images ("shared") or once for each of them.
"""

from typing import TYPE_CHECKING

from voxlift.core.errors import DataError
from voxlift.data.dicom_frames import Frame, thickness_mm
from voxlift.data.dicom_series import DicomFile
from voxlift.data.dicom_tags import damages, number, numbers, read_tags

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


def is_enhanced(file: DicomFile) -> bool:
    """Tell whether the places of a file's images stand in groups of tags."""
    from pydicom import uid

    classes = {getattr(uid, name) for name in _CLASSES}
    return file.num_frames > 1 or str(file.tags.get("SOPClassUID")) in classes


def enhanced_frames(file: DicomFile) -> list[Frame]:
    """Read the places of the images of a file.

    Raises:
        DataError: If they have none, or belong to several stacks or points in time.
    """
    tags = read_tags(
        file.path, ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    )
    groups = _items(tags, "PerFrameFunctionalGroupsSequence")
    if len(groups) != file.num_frames:
        raise DataError(
            f"{file.path}: it holds {file.num_frames} frames in one file, but groups of tags that "
            f"give their place in the patient for {len(groups)}. Convert it to NIfTI, or to one "
            "file a slice."
        )
    shared = next(iter(_items(tags, "SharedFunctionalGroupsSequence")), None)
    for name, what in (("StackID", "stacks"), ("TemporalPositionIndex", "points in time")):
        found = {str(_group(one, shared, "FrameContentSequence").get(name, "")) for one in groups}
        if len(found) > 1:
            raise DataError(
                f"{file.path}: its frames belong to {len(found)} {what}, where a volume has one. "
                "Convert it to one NIfTI file for each, for instance with dcm2niix."
            )
    return [_frame(file, index, one, shared) for index, one in enumerate(groups)]


def _group(own: "Dataset", shared: "Dataset | None", name: str) -> "Dataset":
    """Find a group of tags, of the image itself or of all; empty where there is none."""
    from pydicom import Dataset

    for item in (own, shared):
        if item is not None and (found := _items(item, name)):
            return found[0]
    return Dataset()


def _items(tags: "Dataset", name: str) -> list["Dataset"]:
    """List the groups of tags in a tag; none where it is damaged and holds something else."""
    from pydicom import Dataset

    try:
        found = list(tags.get(name) or [])
    except damages():
        return []
    return [one for one in found if isinstance(one, Dataset)]


def _frame(file: DicomFile, index: int, own: "Dataset", shared: "Dataset | None") -> Frame:
    where = file.path.with_name(f"{file.path.name}, frame {index + 1}")
    measures = _group(own, shared, "PixelMeasuresSequence")
    transformation = _group(own, shared, "PixelValueTransformationSequence")
    slope = number(where, transformation, "RescaleSlope")
    orientation = _group(own, shared, "PlaneOrientationSequence")
    position = _group(own, shared, "PlanePositionSequence")
    return Frame(
        file=file,
        index=index,
        orientation=numbers(where, orientation, "ImageOrientationPatient", 6),
        position_mm=numbers(where, position, "ImagePositionPatient", 3),
        spacing_mm=numbers(where, measures, "PixelSpacing", 2),
        thickness_mm=thickness_mm(where, measures),
        slope=1.0 if slope is None else slope,
        intercept=number(where, transformation, "RescaleIntercept") or 0.0,
    )
