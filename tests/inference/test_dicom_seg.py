from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme, Region
from voxlift.data.volumes import read_volume
from voxlift.inference.decided_mask import DecidedMask
from voxlift.inference.dicom_objects import write_dicom
from voxlift.inference.dicom_seg import make_dicom_seg

highdicom = pytest.importorskip("highdicom")

WriteSeries = Callable[..., npt.NDArray[np.int16]]
LABELS = LabelScheme(names=("background", "left kidney", "liver tumour"), values=(0, 3, 7))
# A scan whose slices run along another axis than the file names, seen from the front.
CORONAL = (1, 0, 0, 0, 0, -1)


def one_hot(classes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
    return np.stack([(classes == number).astype(np.float32) for number in range(3)], axis=1)


def decided(classes: npt.NDArray[np.integer[Any]]) -> DecidedMask:
    depth, height, width = classes.shape
    return DecidedMask.of_slices(
        one_hot(classes), labels=LABELS, size_voxels=(depth, height, width)
    )


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), CORONAL])
def test_the_object_holds_the_mask_in_its_place(
    orientation: tuple[int, ...], write_dicom_series: WriteSeries, tmp_path: Path
) -> None:
    folder = tmp_path / "series"
    write_dicom_series(folder, orientation=orientation)
    scan = read_volume(folder)
    classes = np.random.default_rng(0).integers(0, 3, scan.size_voxels)
    classes[1] = 0
    path = tmp_path / "a.seg.dcm"
    write_dicom(path, make_dicom_seg(decided(classes), scan, folder=folder))

    seg = pydicom.dcmread(path)
    assert seg.Modality == "SEG"
    (measures,) = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert list(measures.PixelSpacing) == [0.75, 0.5]
    assert measures.SpacingBetweenSlices == 2.5
    (axes,) = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    assert list(axes.ImageOrientationPatient) == list(orientation)
    # The empty slice takes no room.
    assert seg.NumberOfFrames == 2 * (len(classes) - 1)
    normal = np.cross(orientation[:3], orientation[3:])
    found = np.zeros(scan.size_voxels, np.int64)
    sources = {}
    for place, frame in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        position = place.PlanePositionSequence[0].ImagePositionPatient
        depth = round(float(np.subtract(position, scan.origin_mm) @ normal) / 2.5)
        np.testing.assert_allclose(position, scan.origin_mm + depth * 2.5 * normal)
        number = place.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[depth] += number * frame
        (source,) = place.DerivationImageSequence[0].SourceImageSequence
        sources[depth] = source.ReferencedSOPInstanceUID
    np.testing.assert_array_equal(found, classes)
    assert sources == {
        depth: pydicom.dcmread(folder / f"image{len(classes) - depth:03}.dcm").SOPInstanceUID
        for depth in range(len(classes))
        if depth != 1
    }


def test_segments_are_named_and_say_how_they_were_made(
    write_dicom_series: WriteSeries, tmp_path: Path
) -> None:
    write_dicom_series(tmp_path)
    scan = read_volume(tmp_path)
    classes = np.ones(scan.size_voxels, np.int64)
    seg = make_dicom_seg(decided(classes), scan, folder=tmp_path)
    kidney, tumour = seg.SegmentSequence
    assert kidney.SegmentLabel == "left kidney"
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Kidney"
    assert tumour.SegmentLabel == "liver tumour"
    category = tumour.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning
    assert category == "Morphologically Abnormal Structure"
    for segment in (kidney, tumour):
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "voxlift"
        assert algorithm.AlgorithmVersion
    source = pydicom.dcmread(next(tmp_path.iterdir()))
    assert seg.PatientID == source.PatientID
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    (series,) = seg.ReferencedSeriesSequence
    referred = {each.ReferencedSOPInstanceUID for each in series.ReferencedInstanceSequence}
    assert referred == {pydicom.dcmread(path).SOPInstanceUID for path in tmp_path.iterdir()}


def test_regions_overlap(write_dicom_series: WriteSeries, tmp_path: Path) -> None:
    write_dicom_series(tmp_path)
    scan = read_volume(tmp_path)
    labels = LabelScheme(
        names=("background", "oedema", "core"),
        values=(0, 1, 2),
        regions=(
            Region(name="whole", members=(1, 2), value=1),
            Region(name="core", members=(2,), value=2),
        ),
    )
    inside = np.random.default_rng(0).random((2, *scan.size_voxels)) < 0.5
    structures = DecidedMask.of_slices(
        inside.swapaxes(0, 1).astype(np.float32), labels=labels, size_voxels=scan.size_voxels
    )
    path = tmp_path / "out" / "a.seg.dcm"
    write_dicom(path, make_dicom_seg(structures, scan, folder=tmp_path))
    grid = highdicom.Volume(
        np.zeros(scan.size_voxels), affine=scan.affine, coordinate_system="PATIENT"
    )
    found = highdicom.seg.segread(path).get_volume().match_geometry(grid)
    np.testing.assert_array_equal(np.moveaxis(found.array, -1, 0), inside)


def test_an_empty_mask_is_an_object_too(write_dicom_series: WriteSeries, tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "series")
    scan = read_volume(tmp_path / "series")
    nothing = decided(np.zeros(scan.size_voxels, np.int64))
    path = tmp_path / "a.seg.dcm"
    write_dicom(path, make_dicom_seg(nothing, scan, folder=tmp_path / "series"))
    assert not highdicom.seg.segread(path).get_volume(combine_segments=True).array.any()


def test_anonymised_headers_are_completed(write_dicom_series: WriteSeries, tmp_path: Path) -> None:
    write_dicom_series(tmp_path, PatientName=None, PatientID=None)
    (tmp_path / "notes.txt").write_text("no DICOM")
    scan = read_volume(tmp_path)
    seg = make_dicom_seg(decided(np.ones(scan.size_voxels, int)), scan, folder=tmp_path)
    assert seg.PatientID == ""


def test_one_series_of_several_is_referred_to(
    write_dicom_series: WriteSeries, tmp_path: Path
) -> None:
    write_dicom_series(tmp_path, SeriesInstanceUID="1.2.3")
    write_dicom_series(tmp_path, prefix="other", SeriesInstanceUID="1.2.4")
    scan = read_volume(tmp_path, series_uid="1.2.4")
    structures = decided(np.ones(scan.size_voxels, int))
    seg = make_dicom_seg(structures, scan, folder=tmp_path, series_uid="1.2.4")
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.4"
    with pytest.raises(DataError, match="refers to one series"):
        make_dicom_seg(structures, scan, folder=tmp_path)


def test_headers_that_do_not_allow_it_are_told(
    write_dicom_series: WriteSeries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom_series(tmp_path / "a", FrameOfReferenceUID=None)
    scan = read_volume(tmp_path / "a")
    structures = decided(np.ones(scan.size_voxels, int))
    with pytest.raises(DataError, match=r"no FrameOfReferenceUID.*--dicom-seg"):
        make_dicom_seg(structures, scan, folder=tmp_path / "a")
    write_dicom_series(tmp_path / "b")

    def refuse(**_: object) -> None:
        raise ValueError("the name of a patient")

    monkeypatch.setattr(highdicom.seg, "Segmentation", refuse)
    with pytest.raises(DataError, match=r"no DICOM SEG object .*--dicom-seg") as told:
        make_dicom_seg(structures, scan, folder=tmp_path / "b")
    assert "patient" not in str(told.value)
    assert told.value.__cause__ is None
