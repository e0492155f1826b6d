"""Enhanced DICOM, written here frame by frame: CT and MR of many images in one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from voxlift.core.errors import DataError
from voxlift.data.dicom_series import list_series
from voxlift.data.volumes import read_channels, read_volume

PIXELS = np.random.default_rng(0).integers(0, 3000, (5, 40, 48)).astype(np.uint16)
SYNTAXES = [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless]


def item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def frame(position: Sequence[float], **groups: Dataset) -> Dataset:
    """The groups of one image."""
    place = item(PlanePositionSequence=[item(ImagePositionPatient=list(position))])
    for name, group in groups.items():
        setattr(place, name, [group])
    return place


def write_enhanced(
    path: Path,
    frames: Sequence[Dataset],
    *,
    pixels: np.ndarray = PIXELS,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    scaling: tuple[float, float] | None = (1, -1024),
    syntax: UID = ExplicitVRLittleEndian,
    kind: UID = EnhancedCTImageStorage,
    **tags: Any,
) -> None:
    data = item(
        SOPClassUID=kind,
        SOPInstanceUID=generate_uid(entropy_srcs=[str(path)]),
        PatientName="Doe^Jane",
        PatientID="secret-7",
        Modality="MR" if kind == EnhancedMRImageStorage else "CT",
        SeriesInstanceUID="1.2.3",
        StudyInstanceUID="1.2.4",
        NumberOfFrames=len(pixels),
        Rows=pixels.shape[1],
        Columns=pixels.shape[2],
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=int(pixels.dtype.kind == "i"),
        PixelData=pixels.tobytes(),
        PerFrameFunctionalGroupsSequence=list(frames),
    )
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.75, 0.5], SliceThickness=2.5)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(orientation))],
    )
    if scaling is not None:
        shared.PixelValueTransformationSequence = [rescale(*scaling)]
    data.SharedFunctionalGroupsSequence = [shared]
    for name, value in tags.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax in (RLELossless, JPEGLSLossless):
        data.compress(syntax, generate_instance_uid=False)
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, enforce_file_format=True)


def rescale(slope: float, intercept: float) -> Dataset:
    return item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")


def at(heights: Sequence[float]) -> list[Dataset]:
    return [frame((-10, -20, height)) for height in heights]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_frames_are_sorted_by_position_and_scaled(tmp_path: Path, syntax: UID) -> None:
    heights = [5.0, 0.0, 10.0, 2.5, 7.5]
    write_enhanced(tmp_path / "a.dcm", at(heights), syntax=syntax)
    volume = read_volume(tmp_path)
    # pydicom's own decoder is the reference.
    stored = pydicom.dcmread(tmp_path / "a.dcm").pixel_array
    expected = stored[np.argsort(heights)].astype(np.int32) - 1024
    np.testing.assert_array_equal(volume.array, expected)
    assert volume.array.dtype == np.int32
    assert volume.spacing_mm == (2.5, 0.75, 0.5)
    assert volume.origin_mm == (-10.0, -20.0, 0.0)
    np.testing.assert_array_equal(volume.direction, np.eye(3))
    (channel,) = read_channels(tmp_path)
    np.testing.assert_array_equal(channel.array, expected)


def test_slope_of_each_frame_counts(tmp_path: Path) -> None:
    slopes = [1.0, 0.5, 0.25, 2.0, 1.5]
    frames = [
        frame((0, 0, 3 * number), PixelValueTransformationSequence=rescale(slope, 7))
        for number, slope in enumerate(slopes)
    ]
    write_enhanced(tmp_path / "a.dcm", frames, kind=EnhancedMRImageStorage)
    found = read_volume(tmp_path).array
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, PIXELS * np.array(slopes)[:, None, None] + 7, rtol=1e-6)


def test_signed_pixels_without_scaling(tmp_path: Path) -> None:
    pixels = PIXELS.astype(np.int16) - 1500
    write_enhanced(
        tmp_path / "a.dcm",
        at([0, 1, 2, 3, 4]),
        pixels=pixels,
        scaling=None,
        kind=EnhancedMRImageStorage,
    )
    found = read_volume(tmp_path).array
    np.testing.assert_array_equal(found, pixels)
    assert found.dtype == np.int16


def test_sagittal_frames_keep_their_direction(tmp_path: Path) -> None:
    frames = [frame((50 - 3 * number, 0, 0)) for number in range(5)]
    write_enhanced(tmp_path / "a.dcm", frames, orientation=(0, 1, 0, 0, 0, -1))
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.direction, [[0, 0, -1], [1, 0, 0], [0, -1, 0]])
    np.testing.assert_allclose((volume.affine @ [2, 0, 0, 1])[:3], [44, 0, 0])


def test_several_files_make_one_volume(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "a.dcm", at([0, 4]), pixels=PIXELS[:2])
    write_enhanced(tmp_path / "b.dcm", at([6, 2, 8]), pixels=PIXELS[2:])
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, PIXELS[[0, 3, 1, 2, 4]].astype(np.int32) - 1024)
    (summary,) = list_series(tmp_path)
    assert (summary.num_files, summary.size_voxels) == (2, (5, 40, 48))


def test_single_frame_has_its_place_in_its_groups(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "a.dcm", at([7]), pixels=PIXELS[:1])
    volume = read_volume(tmp_path)
    assert volume.spacing_mm == (2.5, 0.75, 0.5)
    assert volume.origin_mm[2] == 7


@pytest.mark.parametrize(
    ("tag", "kind", "message"),
    [
        ("StackID", str, "belong to 2 stacks"),
        ("TemporalPositionIndex", int, "belong to 2 points in time"),
    ],
)
def test_several_stacks_or_points_in_time_are_refused(
    tmp_path: Path, tag: str, kind: type, message: str
) -> None:
    frames = [
        frame((0, 0, height), FrameContentSequence=item(**{tag: kind(number)}))
        for height, number in ((0, 1), (1, 1), (2, 1), (0, 2), (1, 2))
    ]
    write_enhanced(tmp_path / "a.dcm", frames)
    with pytest.raises(DataError, match=rf"a\.dcm: .*{message}.*dcm2niix"):
        read_volume(tmp_path)


def test_frames_that_make_no_stack_are_refused(tmp_path: Path) -> None:
    for name, frames, message in (
        ("twice", at([0, 1, 1, 2, 3]), r"same place.*a\.dcm, frame 2 and a\.dcm, frame 3"),
        ("missing", at([0, 1, 2, 3, 6]), "slices are missing"),
        ("tilted", [frame((0, number, 3 * number)) for number in range(5)], "tilted gantry"),
        ("few", at([0, 1, 2]), "place in the patient for 3"),
        ("none", [], "place in the patient for 0"),
        ("nowhere", [item() for _ in range(5)], r"a\.dcm, frame 1: its tag ImagePositionPatient"),
        (
            "turned",
            [
                *at([0, 1, 2, 3]),
                frame(
                    (0, 0, 4),
                    PlaneOrientationSequence=item(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
                ),
            ],
            r"a\.dcm, frame 5: it is not parallel",
        ),
    ):
        (tmp_path / name).mkdir()
        write_enhanced(tmp_path / name / "a.dcm", frames)
        with pytest.raises(DataError, match=message) as caught:
            read_volume(tmp_path / name)
        assert "secret" not in str(caught.value)
        assert "Jane" not in str(caught.value)


def test_inverted_frames_are_refused(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "a.dcm", at([0, 1, 2, 3, 4]), PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(DataError, match="MONOCHROME1; expected"):
        read_volume(tmp_path)


@pytest.mark.filterwarnings("ignore:End of file reached")
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_cut_file_is_refused(tmp_path: Path, syntax: UID) -> None:
    path = tmp_path / "a.dcm"
    write_enhanced(path, at([0, 1, 2, 3, 4]), syntax=syntax)
    data = path.read_bytes()
    # The last eight bytes of compressed pixels say that there are no more.
    for length in (*range(140, len(data), len(data) // 30), len(data) - 20, len(data) - 9):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"a\.dcm"):
            read_volume(tmp_path)
    if syntax == ExplicitVRLittleEndian:
        path.write_bytes(data[:-1])
        with pytest.raises(DataError, match=r"a\.dcm"):
            read_volume(tmp_path)


@pytest.mark.parametrize("kind", [b"US", b"LO", b"FD"])
@pytest.mark.parametrize(
    "tag", [b"\x20\x00\x13\x91", b"\x28\x00\x10\x91", b"\x00\x52\x30\x92", b"\x00\x52\x29\x92"]
)
def test_groups_that_hold_something_else_are_refused(
    tmp_path: Path, tag: bytes, kind: bytes
) -> None:
    path = tmp_path / "a.dcm"
    write_enhanced(path, at([0.0, 2.5, 5.0, 7.5, 10.0]))
    data = path.read_bytes()
    place = data.index(tag + b"SQ")
    path.write_bytes(data[:place] + tag + kind + (4).to_bytes(2, "little") + data[place + 8 :])
    with pytest.raises(DataError, match=r"a\.dcm"):
        read_volume(tmp_path)
