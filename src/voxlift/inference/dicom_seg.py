"""A segmentation as a DICOM SEG object, which viewers and archives show with its series.

Needs highdicom, an optional part of the installation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.core.extras import require_extra
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.volume import Volume
from voxlift.inference.decided_mask import DecidedMask
from voxlift.inference.dicom_objects import (
    complete_header,
    making,
    series_number,
)
from voxlift.weights.header import installed_version

if TYPE_CHECKING:
    from pydicom import Dataset

# Names of disease, in any structure's name, with the SNOMED code's keyword.
_ABNORMAL = {
    "tumour": "Tumor",
    "tumor": "Tumor",
    "cancer": "Neoplasm",
    "neoplasm": "Neoplasm",
    "lesion": "Lesion",
    "nodule": "Nodule",
    "mass": "Mass",
    "edema": "Edema",
    "oedema": "Edema",
}
_SIDES = ("left", "right")
_MAX_LABEL_CHARACTERS = 64


def make_dicom_seg(
    structures: DecidedMask, mask: Volume, *, folder: Path, series_uid: str | None = None
) -> "Dataset":
    """Make a DICOM SEG object of what was found in a DICOM series.

    Each structure is a segment of its own, named as in the model; segments of regions overlap as
    the regions do. The object belongs to the patient and the study of the series, and its frames
    refer to the slices that they cover.

    Args:
        structures: What was found, on the grid of the series.
        mask: The same, for its grid.
        folder: The DICOM series.
        series_uid: Which of several.

    Raises:
        ConfigError: If highdicom is not installed.
        DataError: If the headers of the series do not allow it.
    """
    require_extra("dicom", "DICOM SEG objects")
    import highdicom

    sources = _read_headers(folder, series_uid)
    labels, version = structures.labels, installed_version()
    with making("SEG", folder):
        return highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=_frames(structures, mask, str(sources[0].FrameOfReferenceUID)),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_describe(labels, version),
            series_instance_uid=highdicom.UID(),
            series_number=series_number(sources[0]),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="Voxlift",
            manufacturer_model_name="voxlift",
            software_versions=version,
            device_serial_number="0",
            series_description="Segmentation by voxlift",
            content_label="SEGMENTATION",
        )


def _frames(structures: DecidedMask, mask: Volume, frame_of_reference: str) -> Any:
    import highdicom

    labels = structures.labels
    array: npt.NDArray[np.uint8] = np.zeros(mask.size_voxels, dtype=np.uint8)
    numbers = range(len(labels.structures))
    channels: dict[Any, Any] | None = None
    if labels.is_overlapping:
        channels = {"SegmentNumber": [number + 1 for number in numbers]}
        array = np.stack([structures.structure(number) for number in numbers], axis=-1).view(
            np.uint8
        )
    else:
        for number in numbers:
            array[structures.structure(number)] = number + 1
    return highdicom.Volume(
        array,
        affine=mask.affine,
        coordinate_system="PATIENT",
        frame_of_reference_uid=frame_of_reference,
        channels=channels,
    )


def _describe(labels: LabelScheme, version: str) -> list[Any]:
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="voxlift", version=version, family=codes.DCM.ArtificialIntelligence
    )
    descriptions = []
    for number, name in enumerate(labels.structures, start=1):
        category, kind = _codes(name)
        descriptions.append(
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=name[:_MAX_LABEL_CHARACTERS],
                segmented_property_category=category,
                segmented_property_type=kind,
                algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
            )
        )
    return descriptions


def _codes(name: str) -> tuple[Any, Any]:
    """Find the SNOMED codes of a structure: a disease or an organ by its name, or a structure."""
    from pydicom.sr.codedict import codes

    words = name.lower().replace("_", " ").split()
    for word in words:
        if word in _ABNORMAL:
            kind = getattr(codes.SCT, _ABNORMAL[word])
            return codes.SCT.MorphologicallyAbnormalStructure, kind
    keyword = "".join(word.capitalize() for word in words if word not in _SIDES)
    organ = getattr(codes.SCT, keyword, None) if keyword.isalpha() else None
    return codes.SCT.AnatomicalStructure, organ or codes.SCT.AnatomicalStructure


def _read_headers(folder: Path, series_uid: str | None) -> Sequence["Dataset"]:
    """Read the headers of all slices of a series, without their pixels."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    headers = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        if "Rows" in header and series_uid in (None, header.get("SeriesInstanceUID")):
            headers.append(header)
    if len({header.get("SeriesInstanceUID") for header in headers}) != 1:
        raise DataError(
            f"{folder}: a DICOM SEG object refers to one series; say which by series_uid, or give "
            "it a folder of its own."
        )
    for header in headers:
        complete_header(header, folder=folder, kind="SEG")
    return headers
