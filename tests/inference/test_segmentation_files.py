import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.label_scheme import LabelScheme, Region
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.volume import Volume
from voxlift.data.volumes import read_volume
from voxlift.inference import segmentation_files
from voxlift.inference.saved_model import SavedModel
from voxlift.inference.segmentation import Segmentation, SegmentOptions, segment
from voxlift.inference.segmentation_files import segment_files
from voxlift.inference.volume_table import VolumeTable

MakeSegmenter = Callable[..., SavedModel]
WriteSeries = Callable[..., npt.NDArray[np.int16]]
Intensities = Callable[..., npt.NDArray[np.float32]]
WriteScan = Callable[..., Path]
VOXEL_ML = 2.0 * 0.5 * 1.5 / 1000

pytestmark = pytest.mark.usefixtures("_quick_pictures")


def test_each_input_gets_a_mask_a_picture_and_a_row(
    scans: Path, tmp_path: Path, make_segmenter: MakeSegmenter, intensities: Intensities
) -> None:
    done: list[tuple[str, int, int]] = []
    windows: list[tuple[int, int]] = []
    out = tmp_path / "out"
    result = segment_files(
        make_segmenter(),
        [scans],
        out=out,
        on_case=lambda path, number, total: done.append((path.name, number, total)),
        on_window=lambda number, total: windows.append((number, total)),
    )
    assert sorted(path.name for path in out.iterdir()) == [
        "a.png",
        "a.seg.nii.gz",
        "b.png",
        "b.seg.nii.gz",
        "volumes.csv",
    ]
    assert done == [("a.nii.gz", 1, 2), ("b.nrrd", 2, 2)]
    assert windows[-1][0] == windows[-1][1]
    assert result.failures == {}
    lines = ["input,mask,liver_ml,tumour_ml"]
    for file, seed in zip(result.files, (1, 2), strict=True):
        expected = intensities(seed).round()
        scan, mask = read_volume(file.path), read_volume(file.mask)
        np.testing.assert_array_equal(mask.array, expected)
        assert mask.array.dtype == np.uint8
        assert mask.spacing_mm == pytest.approx(scan.spacing_mm)
        assert mask.origin_mm == pytest.approx(scan.origin_mm)
        np.testing.assert_allclose(mask.direction, scan.direction, atol=1e-6)
        liver, tumour = ((expected == number).sum() * VOXEL_ML for number in (1, 2))
        assert file.volumes_ml == pytest.approx({"liver": liver, "tumour": tumour})
        lines.append(f"{file.path},{file.mask.name},{liver:.4f},{tumour:.4f}")
        assert not file.resumed
    assert result.table.read_text().splitlines() == lines


def test_probability_maps_are_written_for_each_structure(
    scans: Path, tmp_path: Path, make_segmenter: MakeSegmenter, intensities: Intensities
) -> None:
    out = tmp_path / "out"
    segment_files(make_segmenter(), [scans / "a.nii.gz"], out=out, probabilities=True)
    logits = np.stack([-20 * (intensities(1) - number) ** 2 for number in range(3)])
    expected = np.exp(logits) / np.exp(logits).sum(0)
    for number, name in ((1, "liver"), (2, "tumour")):
        found = read_volume(out / f"a.{name}.prob.nii.gz")
        assert found.array.dtype == np.float32
        np.testing.assert_allclose(found.array, expected[number], atol=1e-3)
        assert found.origin_mm == pytest.approx((5.0, -7.0, 30.0))
    assert not list(out.glob("*background*"))


def test_names_of_structures_are_made_fit_for_files(
    scans: Path, tmp_path: Path, make_segmenter: MakeSegmenter
) -> None:
    names = ("background", "left kidney", "left/kidney", "größe")
    labels = LabelScheme(names=names, values=(0, 1, 2, 3))
    out = tmp_path / "out"
    segment_files(make_segmenter(labels), [scans / "a.nii.gz"], out=out, probabilities=True)
    assert sorted(path.name for path in out.glob("*.prob.nii.gz")) == [
        "a.größe.prob.nii.gz",
        "a.left-kidney-.prob.nii.gz",
        "a.left-kidney.prob.nii.gz",
    ]


def test_one_structure_has_one_plain_map(
    scans: Path, tmp_path: Path, make_segmenter: MakeSegmenter, intensities: Intensities
) -> None:
    labels = LabelScheme(
        names=("background", "liver"),
        values=(0, 1),
        regions=(Region(name="liver", members=(1,), value=1),),
    )
    out = tmp_path / "out"
    segment_files(make_segmenter(labels), [scans / "a.nii.gz"], out=out, probabilities=True)
    found = read_volume(out / "a.prob.nii.gz").array
    np.testing.assert_array_equal(found > 0.5, intensities(1) > 0.5)


def test_masks_come_in_the_format_of_the_input_if_wanted(
    scans: Path,
    tmp_path: Path,
    make_segmenter: MakeSegmenter,
    write_dicom_series: WriteSeries,
    intensities: Intensities,
    write_scan: WriteScan,
) -> None:
    np.savez(scans / "c.npz", volume=intensities(3))
    np.save(scans / "d.npy", intensities(3))
    write_scan(scans / "e.mha", intensities())
    write_scan(scans / "f.nii", intensities())
    write_dicom_series(scans / "g")
    out = tmp_path / "out"
    segment_files(make_segmenter(), [scans], out=out, own_format=True)
    assert sorted(path.name for path in out.glob("*.seg.*")) == [
        "a.seg.nii.gz",
        "b.seg.nrrd",
        "c.seg.npz",
        "d.seg.npz",
        "e.seg.mha",
        "f.seg.nii",
        "g.seg.nii.gz",
    ]
    np.testing.assert_array_equal(read_volume(out / "d.seg.npz").array, intensities(3).round())


def test_channels_in_several_files_and_in_one(
    tmp_path: Path, make_segmenter: MakeSegmenter, intensities: Intensities, write_scan: WriteScan
) -> None:
    write_scan(tmp_path / "scans" / "a_0000.nii.gz", intensities(1) / 2)
    write_scan(tmp_path / "scans" / "a_0001.nii.gz", intensities(1) / 2)
    model = make_segmenter(channel_names=("T1", "T2"))
    result = segment_files(model, [tmp_path / "scans"], out=tmp_path / "out")
    (file,) = result.files
    assert file.mask.name == "a.seg.nii.gz"
    np.testing.assert_array_equal(read_volume(file.mask).array, intensities(1).round())


def broken(folder: Path) -> dict[str, str]:
    """Write volumes that cannot be segmented; return what is said about each."""
    (folder / "cut.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes()[:-40])
    (folder / "empty.mha").touch()
    holes = read_volume(folder / "a.nii.gz").array.copy()
    holes[0, 0, 0] = np.nan
    np.save(folder / "holes.npy", holes)
    return {"cut.nii.gz": "cut off", "empty.mha": "empty", "holes.npy": "NaN"}


def test_a_broken_case_is_listed_and_does_not_stop_the_others(
    scans: Path, tmp_path: Path, make_segmenter: MakeSegmenter
) -> None:
    expected = broken(scans)
    done: list[int] = []
    result = segment_files(
        make_segmenter(), [scans], out=tmp_path / "out", on_case=lambda _, n, __: done.append(n)
    )
    assert [file.path.name for file in result.files] == ["a.nii.gz", "b.nrrd"]
    assert {path.name for path in result.failures} == set(expected)
    for path, reason in result.failures.items():
        assert expected[path.name] in reason
        assert str(path) in reason
    assert done == [1, 2, 3, 4, 5]
    assert len(result.table.read_text().splitlines()) == 3


def test_failures_alone_leave_an_empty_table(tmp_path: Path, make_segmenter: MakeSegmenter) -> None:
    (tmp_path / "empty.mha").touch()
    result = segment_files(make_segmenter(), [tmp_path / "empty.mha"], out=tmp_path / "out")
    assert result.files == ()
    assert result.table.read_text() == "input,mask,liver_ml,tumour_ml\n"


def test_a_case_is_let_go_before_the_next_one_is_read(
    scans: Path, tmp_path: Path, make_segmenter: MakeSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Volume]] = []
    real = segment

    def spy(model: SavedModel, channels: Sequence[Volume], **settings: Any) -> Segmentation:
        assert all(each() is None for each in alive)
        alive.append(weakref.ref(channels[0]))
        return real(model, channels, **settings)

    monkeypatch.setattr(segmentation_files, "segment", spy)
    segment_files(make_segmenter(), [scans], out=tmp_path / "out")
    assert len(alive) == 2


def test_an_output_folder_that_cannot_be_written_is_told_beforehand(
    scans: Path, tmp_path: Path, make_segmenter: MakeSegmenter
) -> None:
    (tmp_path / "file").touch()
    windows: list[int] = []
    with pytest.raises(DataError, match=r"file.*cannot be written.*--out"):
        segment_files(
            make_segmenter(),
            [scans],
            out=tmp_path / "file" / "out",
            on_window=lambda number, _: windows.append(number),
        )
    assert windows == []


def test_names_that_are_too_long_are_told_beforehand(
    tmp_path: Path, make_segmenter: MakeSegmenter, intensities: Intensities, write_scan: WriteScan
) -> None:
    name = "ä" * 118
    write_scan(tmp_path / "scans" / f"{name}.nii", intensities())
    with pytest.raises(DataError, match=r"bytes too long.*shorter name"):
        segment_files(make_segmenter(), [tmp_path / "scans"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_long_paths_and_names_of_any_script(
    tmp_path: Path, make_segmenter: MakeSegmenter, intensities: Intensities, write_scan: WriteScan
) -> None:
    folder = tmp_path / ("лёгкое" * 10) / ("肝臓" * 20) / "Müller, Jürgen [2]"
    path = write_scan(folder / "скан №1.nii.gz", intensities(1))
    out = tmp_path / ("ø" * 100)
    result = segment_files(make_segmenter(), [folder], out=out)
    assert result.failures == {}
    assert result.files[0].mask == out / "скан №1.seg.nii.gz"
    np.testing.assert_array_equal(read_volume(result.files[0].mask).array, intensities(1).round())
    assert VolumeTable.read(result.table).row(path) is not None


def test_a_dicom_series_gets_a_mask_and_a_dicom_object(
    tmp_path: Path,
    make_segmenter: MakeSegmenter,
    write_dicom_series: WriteSeries,
    intensities: Intensities,
    write_scan: WriteScan,
) -> None:
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    values = write_dicom_series(tmp_path / "scans" / "ct")
    write_scan(tmp_path / "scans" / "a.nii.gz", intensities())
    contract = Preprocessing(unit="HU", intensity="window", window=(-1000, 1000), std=0.5)
    out = tmp_path / "out"
    result = segment_files(
        make_segmenter(preprocessing=contract), [tmp_path / "scans"], out=out, dicom_seg=True
    )
    assert result.failures == {}
    assert sorted(path.name for path in out.glob("*.seg.*")) == [
        "a.seg.nii.gz",
        "ct.seg.dcm",
        "ct.seg.nii.gz",
    ]
    expected = ((values + 1000) / 1000).clip(0, 2).round()
    mask = read_volume(out / "ct.seg.nii.gz")
    np.testing.assert_array_equal(mask.array, expected)
    assert mask.spacing_mm == pytest.approx((2.5, 0.75, 0.5))
    seg = pydicom.dcmread(out / "ct.seg.dcm")
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["liver", "tumour"]
    # A series without what the object needs is a broken case.
    write_dicom_series(tmp_path / "scans" / "ct", FrameOfReferenceUID=None)
    result = segment_files(
        make_segmenter(preprocessing=contract),
        [tmp_path / "scans"],
        out=tmp_path / "again",
        dicom_seg=True,
    )
    assert [path.name for path in result.failures] == ["ct"]
    assert [file.path.name for file in result.files] == ["a.nii.gz"]


def test_dicom_objects_of_other_inputs_and_among_slices_are_refused(
    tmp_path: Path,
    make_segmenter: MakeSegmenter,
    write_dicom_series: WriteSeries,
    intensities: Intensities,
    write_scan: WriteScan,
) -> None:
    write_scan(tmp_path / "a.nii.gz", intensities())
    with pytest.raises(ConfigError, match=r"no input is one.*--dicom-seg"):
        segment_files(
            make_segmenter(), [tmp_path / "a.nii.gz"], out=tmp_path / "out", dicom_seg=True
        )
    write_dicom_series(tmp_path / "ct")
    with pytest.raises(DataError, match=r"among its slices.*--out"):
        segment_files(make_segmenter(), [tmp_path / "ct"], out=tmp_path / "ct")


def test_options_are_checked_before_anything_is_read(
    make_model: Callable[..., SavedModel], make_segmenter: MakeSegmenter, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="trained to classify"):
        segment_files(make_model(), ["nowhere"], out=tmp_path / "out")
    options = SegmentOptions(mirror=True)
    with pytest.raises(ConfigError, match="--mirror"):
        segment_files(make_segmenter(), ["nowhere"], out=tmp_path / "out", options=options)
