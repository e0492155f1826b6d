"""LIDC-IDRI made up in its published form, DICOM and XML, becomes the LIDC layout."""

import csv
import logging
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.classification_source import open_classification
from voxlift.data.segmentation_source import open_segmentation

Script = dict[str, Any]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First and last slice, row and column of what a reader marked."""

SIZE = (24, 40, 44)
BIG: Box = ((6, 15), (10, 19), (12, 21))
SMALL: Box = ((8, 13), (12, 17), (14, 19))
SHIFTED: Box = ((6, 15), (12, 21), (12, 21))
ELSEWHERE: Box = ((3, 6), (30, 35), (30, 33))


@pytest.fixture(scope="module")
def script() -> Script:
    return runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "prepare_lidc.py"))


def write_ct(
    folder: Path, array: np.ndarray, *, uid: str, patient: str = "LIDC-1", slice_mm: float = 1.0
) -> None:
    """Write a series whose slices stand from z = -100 mm on, in falling order of their names."""
    folder.mkdir(parents=True)
    for number, pixels in enumerate(array):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[uid, str(number)])
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{len(array) - number:03d}.dcm"
        data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.PatientID, data.Modality, data.SeriesInstanceUID = patient, "CT", uid
        data.ImagePositionPatient = [-50, -60, -100 + slice_mm * number]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = [1, 1] if slice_mm == 1 else [0.5, 0.5]
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelRepresentation = 0
        data.PixelData = (pixels + 1024).astype(np.uint16).tobytes()
        data.save_as(path, enforce_file_format=True)


def roi(z_mm: float, points: Sequence[tuple[int, int]], *, inclusion: str = "TRUE") -> str:
    edges = "".join(
        f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for y, x in points
    )
    return (
        f"<roi><imageZposition>{z_mm} </imageZposition><imageSOP_UID>1.2</imageSOP_UID>"
        f"<inclusion>{inclusion}</inclusion>{edges}</roi>"
    )


def drawn(box: Box, *, slice_mm: float = 1.0, inclusion: str = "TRUE") -> str:
    """Draw around a box: the first ring of pixels outside of it, in each slice."""
    (first, last), (top, bottom), (left, right) = box
    corners = [(top - 1, left - 1), (top - 1, right + 1), (bottom + 1, right + 1)]
    corners += [(bottom + 1, left - 1), corners[0]]
    return "".join(
        roi(-100 + slice_mm * number, corners, inclusion=inclusion)
        for number in range(first, last + 1)
    )


def nodule(rois: str, malignancy: int | None) -> str:
    rating = f"<malignancy>{malignancy}</malignancy>" if malignancy is not None else ""
    traits = f"<characteristics><subtlety>3</subtlety>{rating}</characteristics>"
    return f"<unblindedReadNodule><noduleID>n</noduleID>{traits}{rois}</unblindedReadNodule>"


POINT = (
    "<unblindedReadNodule><noduleID>p</noduleID>"
    + roi(-99, [(5, 5)])
    + "</unblindedReadNodule><nonNodule><nonNoduleID>x</nonNoduleID></nonNodule>"
)


def write_xml(path: Path, sessions: Sequence[str], *, uid: str) -> None:
    body = "".join(f"<readingSession>{session}</readingSession>" for session in sessions)
    path.write_text(
        '<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov"><ResponseHeader>'
        f"<SeriesInstanceUid>{uid}</SeriesInstanceUid></ResponseHeader>{body}</LidcReadMessage>"
    )


def inside(box: Box) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[tuple(slice(first, last + 1) for first, last in box)] = True
    return mask


def ct() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 800, SIZE)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One scan with two nodules: one that three readers marked, one that the fourth marked alone.

    A second patient has one nodule, which nobody rated; beside the scans is a radiograph's file.
    """
    one, other = tmp_path / "data" / "a" / "ct", tmp_path / "data" / "b" / "ct"
    write_ct(one, ct(), uid="1.2.3")
    hole: Box = ((8, 9), (13, 14), (15, 16))
    sessions = [
        nodule(drawn(BIG) + drawn(hole, inclusion="FALSE"), 5) + POINT,
        nodule(drawn(SMALL), 4),
        POINT + nodule(drawn(SHIFTED), 4),
        nodule(drawn(ELSEWHERE), 2),
    ]
    write_xml(one / "1.xml", sessions, uid="1.2.3")
    write_ct(other, ct()[:12], uid="1.2.4", patient="LIDC-2")
    write_xml(other / "2.xml", [nodule(drawn(((3, 4), (8, 9), (8, 9))), None)], uid="1.2.4")
    (tmp_path / "data" / "cr.xml").write_text("<IdriReadMessage xmlns='http://www.nih.gov/idri'/>")
    return tmp_path / "data"


def prepare(script: Script, data: Path, **options: Any) -> tuple[Path, list[dict[str, str]]]:
    out = data.parent / "lidc"
    script["prepare"](script["Command"](data=data, out=out, **{"size": 20, **options}))
    with (out / "nodules.csv").open(newline="") as file:
        return out, list(csv.DictReader(file))


def test_marks_become_nodules_with_their_consensus(script: Script, data: Path) -> None:
    out, rows = prepare(script, data)
    assert [tuple(row.values())[1:] for row in rows] == [
        ("LIDC-1", "4", "4 4 5", "3"),
        ("LIDC-1", "2", "2", "1"),
        ("LIDC-2", "0", "", "1"),
    ]
    hole = inside(((8, 9), (13, 14), (15, 16)))
    votes = (inside(BIG) & ~hole).astype(int) + inside(SMALL) + inside(SHIFTED)
    agreed = votes >= 1.5
    # Even edges about the middle: the cube is cut between voxels.
    there = np.argwhere(agreed)
    start = (there.min(0) + there.max(0) + 1) // 2 - 10
    cut = tuple(slice(begin, begin + 20) for begin in start)
    assert all(begin >= 0 for begin in start)
    with np.load(out / "nodule" / f"{rows[0]['index']}.npz") as stored:
        assert stored["voxel"].dtype == stored["answer1"].dtype == np.uint8
        np.testing.assert_array_equal(stored["answer1"], agreed[cut])
        expected = np.round((ct()[cut].clip(-1000, 400) + 1000) / 1400 * 255)
        # A half may be rounded either way.
        assert np.abs(stored["voxel"].astype(int) - expected).max() <= 1
        assert (stored["voxel"] == expected).mean() > 0.99
    # The second lies near the border of the scan: beyond it is air.
    with np.load(out / "nodule" / f"{rows[1]['index']}.npz") as stored:
        assert stored["answer1"].sum() == inside(ELSEWHERE).sum()
        assert not stored["voxel"][:4].any()


def test_the_layout_is_read_back(script: Script, data: Path) -> None:
    out, rows = prepare(script, data)
    masks = open_segmentation(out)
    found = {case.id: case.group for case in masks.cases}
    assert found == {row["index"]: row["uid"] for row in rows}
    labels = {case.id: case.label for case in open_classification(out).cases}
    assert labels == {rows[0]["index"]: 1, rows[1]["index"]: 0}
    assert "LIDC-1" not in " ".join(row["index"] for row in rows)


def test_thick_slices_are_resampled_to_1_mm(script: Script, tmp_path: Path) -> None:
    box: Box = ((4, 9), (10, 29), (10, 29))
    array = np.where(inside(box), 400, -1000)
    write_ct(tmp_path / "data" / "ct", array, uid="1.2.3", slice_mm=2.0)
    sessions = [nodule(drawn(box, slice_mm=2.0), 1)]
    write_xml(tmp_path / "data" / "1.xml", sessions, uid="1.2.3")
    out, (row,) = prepare(script, tmp_path / "data")
    with np.load(out / "nodule" / f"{row['index']}.npz") as stored:
        there = np.argwhere(stored["answer1"])
        # 6 slices of 2 mm, 20 pixels of 0.5 mm.
        np.testing.assert_allclose(np.ptp(there, axis=0) + 1, (12, 10, 10), atol=1)
        np.testing.assert_allclose((there.min(0) + there.max(0)) / 2, 9.5)
        inner = tuple(slice(a + 1, b) for a, b in zip(there.min(0), there.max(0), strict=True))
        assert (stored["voxel"][inner] == 255).all()
        assert not stored["voxel"][:3].any()


def test_nodules_of_too_few_readers_are_left_out(script: Script, data: Path) -> None:
    _, rows = prepare(script, data, min_readers=3)
    assert [row["num_readers"] for row in rows] == ["3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("<LidcReadMessage", "<"), "could not be read as annotations of LIDC-IDRI"),
        (("-92.0 ", "-92.5 "), "a contour at z = -92.5 mm lies on no slice"),
        (("-92.0 ", "900 "), "a contour at z = 900 mm lies on no slice"),
        (("-92.0 ", ""), "<imageZposition> is missing or empty"),
        (("<xCoord>22</xCoord>", "<xCoord>44</xCoord>"), "outside of it"),
        (("<malignancy>5<", "<malignancy>high<"), "could not be read as annotations"),
        ((">1.2.3<", ">1.2.9<"), r"its series 1\.2\.9 is not among the DICOM files"),
        (("<readingSession>", "<readingSession/><readingSession>"), "holds 8 reading sessions"),
    ],
)
def test_annotations_that_do_not_fit_are_refused_or_skipped(
    script: Script,
    data: Path,
    caplog: pytest.LogCaptureFixture,
    change: tuple[str, str],
    message: str,
) -> None:
    path = data / "a" / "ct" / "1.xml"
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(DataError, match=message):
        prepare(script, data)
    with caplog.at_level(logging.WARNING):
        _, rows = prepare(script, data, skip_bad=True)
    assert [row["uid"] for row in rows] == ["LIDC-2"]
    assert "skipped" in caplog.text


def test_a_series_is_annotated_once(script: Script, data: Path) -> None:
    (data / "a" / "copy.xml").write_text((data / "a" / "ct" / "1.xml").read_text())
    with pytest.raises(DataError, match="has other annotations, too"):
        prepare(script, data)


def test_nothing_is_written_over_and_nothing_found_is_an_error(script: Script, data: Path) -> None:
    with pytest.raises(ConfigError, match="low has to be below high"):
        prepare(script, data, window=(400.0, 400.0))
    prepare(script, data)
    with pytest.raises(DataError, match="is not empty"):
        prepare(script, data)
    with pytest.raises(DataError, match="there is no annotated nodule"):
        script["prepare"](script["Command"](data=data.parent / "lidc", out=data.parent / "x"))
