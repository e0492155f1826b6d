"""Candidates as a DICOM SR object, a report that viewers and archives show with its series.

Needs highdicom, an optional part of the installation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.core.extras import require_extra
from voxlift.data.dicom_enhanced import enhanced_frames, is_enhanced
from voxlift.data.dicom_frames import Frame, single_frame, stack_frames
from voxlift.data.dicom_series import choose_series
from voxlift.data.dicom_tags import damages
from voxlift.data.volume import Volume
from voxlift.inference.candidate_files import ModelIdentity
from voxlift.inference.candidate_places import Index, PlacedCandidate, to_patient
from voxlift.inference.dicom_objects import (
    complete_header,
    making,
    series_number,
)
from voxlift.weights.header import installed_version

if TYPE_CHECKING:
    from pydicom import Dataset

# Names of codes of CID 100.
_PROCEDURES = {
    "CT": "CTUnspecifiedBodyRegion",
    "MR": "MRIUnspecifiedBodyRegion",
    "PT": "PETUnspecifiedBodyRegion",
}
# Of codes that no standard has.
_SCHEME = "99VOXLIFT"
_MAX_TEXT_CHARACTERS = 64


def make_dicom_sr(
    candidates: Sequence[PlacedCandidate],
    *,
    volume: Volume,
    folder: Path,
    model: ModelIdentity,
    series_uid: str | None = None,
) -> "Dataset":
    """Make a DICOM SR object of the candidates in a DICOM series.

    It is a measurement report (TID 1500) with a group of measurements for each candidate: the box
    in the best slice, the detector's score and the edges of the box. Where that slice is one of the
    series, the box is drawn on its image; else, as between two slices or in a coronal series, in
    space. Without candidates it says that there are none. The object belongs to the patient and the
    study of the series.

    Args:
        candidates: From `place_candidates`.
        volume: The series as it was read, for its grid.
        folder: The DICOM series.
        model: Which model found them.
        series_uid: Which of several series.

    Raises:
        ConfigError: If highdicom is not installed.
        DataError: If the headers of the series do not allow it.
    """
    require_extra("dicom", "DICOM SR objects")
    import highdicom
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    frames, headers = _read_series(folder, series_uid)
    first = headers[frames[0].file.path]
    with making("SR", folder):
        regions = [_region(each, volume, frames, headers) for each in candidates]
        in_space = any(isinstance(each, highdicom.sr.ImageRegion3D) for each in regions)
        # More viewers know the plain kind.
        kind = highdicom.sr.Comprehensive3DSR if in_space else highdicom.sr.ComprehensiveSR
        return kind(
            evidence=list(headers.values()),
            content=_report(candidates, regions, model, str(first.get("Modality", ""))),
            series_instance_uid=highdicom.UID(),
            series_number=series_number(first),
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            is_complete=True,
            manufacturer="Voxlift",
            manufacturer_model_name="voxlift",
            software_versions=installed_version(),
            device_serial_number="0",
            series_description="Lesion candidates by voxlift",
            coding_schemes=[
                CodingSchemeIdentificationItem(
                    designator=_SCHEME, name="Voxlift", responsible_organization="Voxlift"
                )
            ],
        )


def _report(
    candidates: Sequence[PlacedCandidate],
    regions: Sequence[Any],
    model: ModelIdentity,
    modality: str,
) -> Any:
    from highdicom import UID, sr
    from pydicom.sr.codedict import codes

    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=UID(), name="voxlift", manufacturer_name="Voxlift", model_name=_text(model.name)
        ),
    )
    groups = [
        sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=region,
            tracking_identifier=sr.TrackingIdentifier(
                uid=UID(), identifier=_text(f"{candidate.rank}: {candidate.class_name}")
            ),
            finding_category=codes.SCT.MorphologicallyAbnormalStructure,
            finding_type=codes.SCT.Lesion,
            finding_sites=[sr.FindingSite(anatomic_location=codes.SCT.Unknown)],
            algorithm_id=_algorithm(model),
            measurements=_measurements(candidate),
        )
        for candidate, region in zip(candidates, regions, strict=True)
    ]
    procedure = getattr(codes.cid100, _PROCEDURES.get(modality, "ImagingProcedure"))
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=procedure,
        imaging_measurements=groups or [_nothing_found(model)],
    )


def _nothing_found(model: ModelIdentity) -> Any:
    """Say that there is no candidate, and not that there is no lesion."""
    from highdicom import UID, sr
    from pydicom.sr.codedict import codes

    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=UID(), identifier="no candidates"),
        algorithm_id=_algorithm(model),
        measurements=[
            sr.Measurement(
                name=sr.CodedConcept("NUM-CANDIDATES", _SCHEME, "Number of candidates"),
                value=0,
                unit=codes.UCUM.NoUnits,
            )
        ],
    )


def _algorithm(model: ModelIdentity) -> Any:
    from highdicom import sr

    parameters = [f"model {model.name}"]
    if model.sha256 is not None:
        parameters.append(f"sha256 {model.sha256}")
    return sr.AlgorithmIdentification(
        name="voxlift", version=installed_version(), parameters=parameters
    )


def _measurements(candidate: PlacedCandidate) -> list[Any]:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    score = sr.CodedConcept("SCORE", _SCHEME, "Score of the detector, not calibrated")
    edge = sr.CodedConcept("BOX-EDGE", _SCHEME, "Edge of the bounding box")
    long_mm, short_mm = candidate.key_size_mm
    return [
        sr.Measurement(
            name=codes.DCM.CertaintyOfFinding,
            value=round(100 * candidate.score, 4),
            unit=codes.UCUM.Percent,
            method=score,
        ),
        *(
            sr.Measurement(
                name=name, value=round(value, 3), unit=codes.UCUM.Millimeter, method=edge
            )
            for name, value in ((codes.SCT.LongAxis, long_mm), (codes.SCT.ShortAxis, short_mm))
        ),
    ]


def _region(
    candidate: PlacedCandidate,
    volume: Volume,
    frames: Sequence[Frame],
    headers: dict[Path, "Dataset"],
) -> Any:
    """Draw the box on the image that it was found in, or in space where there is no such image."""
    from highdicom import sr

    corners = _outline(candidate)
    if candidate.slice_axis == "slice" and candidate.key_index.is_integer():
        frame = frames[int(candidate.key_index)]
        source = sr.SourceImageForRegion.from_source_image(
            headers[frame.file.path],
            referenced_frame_numbers=[frame.index + 1] if is_enhanced(frame.file) else None,
        )
        # The upper left corner of the first pixel is 0, 0; columns come first.
        return sr.ImageRegion(
            graphic_type=sr.GraphicTypeValues.POLYLINE,
            graphic_data=corners[:, :0:-1] + 0.5,
            source_image=source,
        )
    return sr.ImageRegion3D(
        graphic_type=sr.GraphicTypeValues3D.POLYGON,
        graphic_data=to_patient(corners, volume=volume),
        frame_of_reference_uid=headers[frames[0].file.path].FrameOfReferenceUID,
    )


def _outline(candidate: PlacedCandidate) -> npt.NDArray[np.float64]:
    """Go round the box in the best slice and back to the first corner."""
    low, high = candidate.key_box
    one, other = (axis for axis in range(3) if axis != candidate.axis)
    corners: list[Index] = []
    for first, second in ((low, low), (low, high), (high, high), (high, low), (low, low)):
        corner = list(low)
        corner[one], corner[other] = first[one], second[other]
        corners.append((corner[0], corner[1], corner[2]))
    return np.array(corners)


def _text(text: str) -> str:
    return text[:_MAX_TEXT_CHARACTERS]


def _read_series(
    folder: Path, series_uid: str | None
) -> tuple[Sequence[Frame], dict[Path, "Dataset"]]:
    """Find the image of each slice, in the order of the volume, and the headers of their files."""
    frames: list[Frame] = []
    for file in choose_series(folder, series_uid):
        frames += enhanced_frames(file) if is_enhanced(file) else [single_frame(file)]
    ordered, _ = stack_frames(folder, frames)
    headers: dict[Path, Dataset] = {}
    for frame in ordered:
        path = frame.file.path
        if path not in headers:
            headers[path] = _read_header(path)
    return ordered, headers


def _read_header(path: Path) -> "Dataset":
    import pydicom

    try:
        with pydicom.config.disable_value_validation():
            header = pydicom.dcmread(path, stop_before_pixels=True)
    except damages() as error:
        raise DataError(
            f"{path}: its DICOM header is damaged ({type(error).__name__}). Copy the series again."
        ) from None
    complete_header(header, folder=path.parent, kind="SR")
    return header
