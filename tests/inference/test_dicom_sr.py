import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from voxlift.core.errors import DataError
from voxlift.data.orientation import to_canonical
from voxlift.data.volume import Volume
from voxlift.data.volumes import read_volume
from voxlift.inference.candidate_files import ModelIdentity
from voxlift.inference.candidate_places import PlacedCandidate, place_candidates
from voxlift.inference.candidates import Candidate, CandidateSlice
from voxlift.inference.dicom_objects import write_dicom
from voxlift.inference.dicom_sr import make_dicom_sr
from voxlift.weights.header import installed_version

highdicom = pytest.importorskip("highdicom")

WriteSeries = Callable[..., npt.NDArray[np.int16]]
NAMES = ("lung", "liver")
MODEL = ModelIdentity(name="model.safetensors", sha256="ab12")
# Axial, but aslant and seen from the head; and from the front.
ASLANT = (-0.8, 0.6, 0, 0.6, 0.8, 0)
CORONAL = (1, 0, 0, 0, 0, -1)
# In the array of the series, (slice, row, column): first and last voxel of each candidate.
BOXES = (((2, 1, 2), (2, 3, 5)), ((0, 0, 0), (1, 1, 2)))


def placed(scan: Volume, *, shift: float = 0.0) -> tuple[PlacedCandidate, ...]:
    """Candidates that hold these voxels, found on the canonical grid."""
    candidates = []
    for number, (first, last) in enumerate(BOXES):
        marked = np.zeros(scan.size_voxels)
        marked[tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))] = 1
        array = to_canonical(Volume(marked, direction=scan.direction)).array
        (d1, y1, x1), (d2, y2, x2) = (
            getattr(np.argwhere(array), name)(axis=0).tolist() for name in ("min", "max")
        )
        box = (float(x1), float(y1), float(x2 + 1), float(y2 + 1))
        score = 0.9 - number / 4
        part = CandidateSlice(d1 + shift, box, score)
        candidates.append(
            Candidate(score, 1 - number, box, d1 + shift, (d1 + shift, d2 + shift + 1), (part,))
        )
    return place_candidates(candidates, volume=scan, class_names=NAMES)


def groups_in(path: Path) -> list[Any]:
    report = highdicom.sr.srread(path)
    found: list[Any] = report.content.get_planar_roi_measurement_groups()
    return found


def numbers_of(group: Any) -> dict[str, tuple[float, str]]:
    return {
        each.name.meaning: (float(each.value), each.unit.value) for each in group.get_measurements()
    }


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), ASLANT])
def test_boxes_are_drawn_on_the_images_they_were_found_in(
    orientation: tuple[float, ...], write_dicom_series: WriteSeries, tmp_path: Path
) -> None:
    folder = tmp_path / "series"
    write_dicom_series(folder, orientation=orientation)
    scan = read_volume(folder)
    candidates = placed(scan)
    path = tmp_path / "out" / "a.sr.dcm"
    write_dicom(path, make_dicom_sr(candidates, volume=scan, folder=folder, model=MODEL))

    report = pydicom.dcmread(path)
    assert (report.Modality, report.CompletionFlag) == ("SR", "COMPLETE")
    assert report.SOPClassUID == pydicom.uid.ComprehensiveSRStorage
    groups = groups_in(path)
    assert len(groups) == len(candidates)
    slices = {pydicom.dcmread(each).SOPInstanceUID: each for each in folder.iterdir()}
    for group, candidate, (first, last) in zip(groups, candidates, BOXES, strict=True):
        region = group.roi
        points = region.value
        assert region.graphic_type.value == "POLYLINE"
        np.testing.assert_array_equal(points[0], points[-1])
        # Columns first, and a pixel spans a whole from its edge on.
        assert points.min(axis=0).tolist() == [first[2], first[1]]
        assert points.max(axis=0).tolist() == [last[2] + 1, last[1] + 1]
        (reference,) = region.ContentSequence[0].ReferencedSOPSequence
        header = pydicom.dcmread(slices[reference.ReferencedSOPInstanceUID])
        # An independent way from the image into the patient.
        to_space = highdicom.spatial.ImageToReferenceTransformer(
            image_position=header.ImagePositionPatient,
            image_orientation=header.ImageOrientationPatient,
            pixel_spacing=header.PixelSpacing,
        )
        corners = to_space(points[:4])
        index = int(candidate.key_index)
        centre = scan.affine[:3] @ [index, *np.array(candidate.centre_index[1:]), 1]
        np.testing.assert_allclose(corners.mean(axis=0), centre, atol=1e-4)
        edges = np.linalg.norm(np.diff(corners, axis=0), axis=1)[:2]
        numbers = numbers_of(group)
        for name, edge in (("Long axis", edges.max()), ("Short axis", edges.min())):
            value, unit = numbers[name]
            assert value == pytest.approx(edge, abs=1e-3)
            assert unit == "mm"


def test_a_group_tells_what_was_found_and_by_what(
    write_dicom_series: WriteSeries, tmp_path: Path
) -> None:
    write_dicom_series(tmp_path / "series")
    scan = read_volume(tmp_path / "series")
    path = tmp_path / "a.sr.dcm"
    write_dicom(
        path, make_dicom_sr(placed(scan), volume=scan, folder=tmp_path / "series", model=MODEL)
    )
    first, second = groups_in(path)
    assert first.tracking_identifier == "1: liver"
    assert second.tracking_identifier == "2: lung"
    assert first.tracking_uid != second.tracking_uid
    assert (first.finding_type.value, first.finding_type.scheme_designator) == ("52988006", "SCT")
    assert first.finding_sites[0].topographical_modifier is None
    assert first.finding_sites[0].value.meaning == "Unknown"
    assert numbers_of(first)["Certainty of Finding"] == (90, "%")
    assert numbers_of(second)["Certainty of Finding"] == (65, "%")
    texts = [
        (each.ConceptNameCodeSequence[0].CodeMeaning, each.TextValue)
        for each in first[0].ContentSequence
        if each.ValueType == "TEXT"
    ]
    assert ("Algorithm Name", "voxlift") in texts
    assert ("Algorithm Version", installed_version()) in texts
    assert ("Algorithm Parameters", "model model.safetensors") in texts
    assert ("Algorithm Parameters", "sha256 ab12") in texts
    report = pydicom.dcmread(path)
    source = pydicom.dcmread(next((tmp_path / "series").iterdir()))
    assert report.PatientID == source.PatientID
    assert report.StudyInstanceUID == source.StudyInstanceUID
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99VOXLIFT"
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID


@pytest.mark.parametrize(
    ("modality", "meaning"),
    [
        ("CT", "CT unspecified body region"),
        ("PT", "PET unspecified body region"),
        ("MR", "MRI unspecified body region"),
    ],
)
def test_the_procedure_goes_by_the_modality(
    modality: str, meaning: str, write_dicom_series: WriteSeries, tmp_path: Path
) -> None:
    write_dicom_series(tmp_path, Modality=modality)
    scan = read_volume(tmp_path)
    report = make_dicom_sr((), volume=scan, folder=tmp_path, model=MODEL)
    (procedure,) = (
        each.ConceptCodeSequence[0].CodeMeaning
        for each in report.ContentSequence
        if each.ConceptNameCodeSequence[0].CodeValue == "121058"
    )
    assert meaning.lower() in procedure.lower()


@pytest.mark.parametrize(("orientation", "shift"), [((1, 0, 0, 0, 1, 0), 0.5), (CORONAL, 0.0)])
def test_boxes_between_or_across_images_are_drawn_in_space(
    orientation: tuple[float, ...],
    shift: float,
    write_dicom_series: WriteSeries,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "series"
    write_dicom_series(folder, orientation=orientation)
    scan = read_volume(folder)
    candidates = placed(scan, shift=shift)
    path = tmp_path / "a.sr.dcm"
    write_dicom(path, make_dicom_sr(candidates, volume=scan, folder=folder, model=MODEL))
    assert pydicom.dcmread(path).SOPClassUID == pydicom.uid.Comprehensive3DSRStorage
    header = pydicom.dcmread(next(folder.iterdir()))
    canonical = to_canonical(scan)
    for group, candidate in zip(groups_in(path), candidates, strict=True):
        region = group.roi
        assert region.graphic_type.value == "POLYGON"
        assert region.frame_of_reference_uid == header.FrameOfReferenceUID
        # Seen on the canonical grid it is flat along the depth.
        inverse = np.linalg.inv(canonical.affine)
        points = region.value @ inverse[:3, :3].T + inverse[:3, 3]
        np.testing.assert_allclose(np.ptp(points, axis=0)[0], 0, atol=1e-4)
        depth = points[0, 0]
        axis = candidate.axis
        size = scan.size_voxels[axis]
        assert min(
            abs(depth - candidate.key_index), abs(size - 1 - depth - candidate.key_index)
        ) == pytest.approx(0, abs=1e-3)
        lengths = np.ptp(points, axis=0)[1:] * canonical.spacing_mm[1:]
        np.testing.assert_allclose(sorted(lengths)[::-1], candidate.key_size_mm, atol=1e-3)


def test_frames_of_one_file_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    heights = [4.0, 0.0, 2.0]
    write_enhanced(folder / "a.dcm", heights)
    scan = read_volume(folder)
    assert scan.size_voxels == (3, 6, 7)
    path = tmp_path / "a.sr.dcm"
    write_dicom(path, make_dicom_sr(placed(scan), volume=scan, folder=folder, model=MODEL))
    numbers = [
        group.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber
        for group in groups_in(path)
    ]
    # Frames count from 1 in the order of the file; the best slices are the last and the first.
    assert numbers == [heights.index(4.0) + 1, heights.index(0.0) + 1]


def test_no_candidates_are_a_report_too(write_dicom_series: WriteSeries, tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "series")
    scan = read_volume(tmp_path / "series")
    path = tmp_path / "a.sr.dcm"
    write_dicom(path, make_dicom_sr((), volume=scan, folder=tmp_path / "series", model=MODEL))
    assert groups_in(path) == []
    (group,) = highdicom.sr.srread(path).content.get_image_measurement_groups()
    assert group.tracking_identifier == "no candidates"
    assert numbers_of(group) == {"Number of candidates": (0, "1")}


def test_names_that_are_no_names_are_not_told(
    write_dicom_series: WriteSeries, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_dicom_series(tmp_path, PatientName="Doe", PatientSex="FEMALE", PatientID=None)
    (tmp_path / "notes.txt").write_text("no DICOM", encoding="utf-8")
    scan = read_volume(tmp_path)
    with warnings.catch_warnings(record=True) as told, caplog.at_level(logging.DEBUG):
        report = make_dicom_sr(placed(scan), volume=scan, folder=tmp_path, model=MODEL)
    assert told == []
    assert "Doe" not in caplog.text
    assert (report.PatientName, report.PatientID, report.PatientSex) == ("Doe", "", "")


def test_one_series_of_several_is_referred_to(
    write_dicom_series: WriteSeries, tmp_path: Path
) -> None:
    write_dicom_series(tmp_path, SeriesInstanceUID="1.2.3")
    write_dicom_series(tmp_path, prefix="other", SeriesInstanceUID="1.2.4", SeriesNumber=7)
    scan = read_volume(tmp_path, series_uid="1.2.4")
    report = make_dicom_sr(
        placed(scan), volume=scan, folder=tmp_path, model=MODEL, series_uid="1.2.4"
    )
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert [each.SeriesInstanceUID for each in study.ReferencedSeriesSequence] == ["1.2.4"]
    assert report.SeriesNumber == 1007
    with pytest.raises(DataError, match="holds 2 series"):
        make_dicom_sr(placed(scan), volume=scan, folder=tmp_path, model=MODEL)


def test_headers_that_do_not_allow_it_are_told(
    write_dicom_series: WriteSeries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom_series(tmp_path / "a", FrameOfReferenceUID=None)
    scan = read_volume(tmp_path / "a")
    with pytest.raises(DataError, match=r"no FrameOfReferenceUID.*--dicom-sr"):
        make_dicom_sr(placed(scan), volume=scan, folder=tmp_path / "a", model=MODEL)
    write_dicom_series(tmp_path / "b")

    def refuse(**_: object) -> None:
        raise ValueError("Doe^Jane will not do")

    monkeypatch.setattr(highdicom.sr, "ComprehensiveSR", refuse)
    with pytest.raises(DataError, match=r"no DICOM SR object .*ValueError.*--dicom-sr") as told:
        make_dicom_sr(placed(scan), volume=scan, folder=tmp_path / "b", model=MODEL)
    assert "Doe" not in str(told.value)


def write_enhanced(path: Path, heights: Sequence[float]) -> None:
    pixels = np.zeros((len(heights), 6, 7), dtype=np.uint16)

    def item(**tags: Any) -> Dataset:
        dataset = Dataset()
        for name, value in tags.items():
            setattr(dataset, name, value)
        return dataset

    data = item(
        SOPClassUID=EnhancedCTImageStorage,
        SOPInstanceUID=generate_uid(entropy_srcs=[path.name]),
        PatientID="secret-7",
        Modality="CT",
        SeriesInstanceUID="1.2.3",
        StudyInstanceUID="1.2.4",
        FrameOfReferenceUID="1.2.5",
        NumberOfFrames=len(pixels),
        Rows=pixels.shape[1],
        Columns=pixels.shape[2],
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=0,
        PixelData=pixels.tobytes(),
        SharedFunctionalGroupsSequence=[
            item(
                PixelMeasuresSequence=[item(PixelSpacing=[0.75, 0.5], SliceThickness=2.0)],
                PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            )
        ],
        PerFrameFunctionalGroupsSequence=[
            item(PlanePositionSequence=[item(ImagePositionPatient=[-10, -20, height])])
            for height in heights
        ],
    )
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True)
    data.save_as(path, enforce_file_format=True)
