"""Masks that bear the header of their scan."""

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from voxlift.core.errors import DataError
from voxlift.data import write_like as writing
from voxlift.data.nifti_header import read_nifti_header
from voxlift.data.volumes import read_channels, read_volume, write_volume
from voxlift.data.write_like import write_like

OBLIQUE = np.array([[0.8, -0.48, 0.36], [0.6, 0.64, -0.48], [0.0, 0.6, 0.8]])
KEPT = [
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
]


def save(
    path: Path,
    *,
    kind: Any = nibabel.Nifti1Image,
    forms: str = "both",
    order: str = "little",
    shape: tuple[int, ...] = (6, 5, 4),
    unit: str = "mm",
) -> Path:
    """Write a scan whose matrices hold numbers that no computation gives back bit by bit."""
    affine = np.eye(4)
    affine[:3, :3] = OBLIQUE * [1 / 3, 0.7, 2.1]
    affine[:3, 3] = [-100.1, 1 / 7, 33.3]
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    image = kind(np.random.default_rng(0).integers(0, 99, shape).astype(np.int16), affine, header)
    image.header.set_xyzt_units(unit, "sec")
    image.set_qform(affine, 1 if forms in ("both", "qform") else 0)
    image.set_sform(affine, 2 if forms in ("both", "sform") else 0)
    image.header["descrip"] = b"Doe^Jane"
    image.header["cal_max"] = 77
    image.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("forms", ["both", "qform", "sform", "neither"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(("suffix", "unit"), [(".nii", "mm"), (".nii.gz", "micron")])
def test_header_is_that_of_the_scan_bit_by_bit(
    tmp_path: Path, kind: Any, forms: str, order: str, suffix: str, unit: str
) -> None:
    source = save(tmp_path / "scan.nii.gz", kind=kind, forms=forms, order=order, unit=unit)
    volume = read_volume(source)
    mask = replace(volume, array=(volume.array > 0).astype(np.uint8))
    path = write_like(tmp_path / f"mask{suffix}", mask, source=source)

    old, new = nibabel.load(source).header, nibabel.load(path).header
    assert type(new) is type(old)
    assert new.endianness == old.endianness
    for name in KEPT:
        assert new[name].tobytes() == old[name].tobytes(), name
    np.testing.assert_array_equal(nibabel.load(path).affine, nibabel.load(source).affine)
    assert new.get_data_dtype().newbyteorder("=") == np.uint8
    assert new.get_slope_inter() in {(1.0, 0.0), (None, None)}
    assert (float(new["cal_max"]), bytes(new["descrip"]).strip(b"\0")) == (0.0, b"")
    # nibabel and we read the mask back on the grid of the scan.
    stored = np.asarray(nibabel.load(path).dataobj)
    np.testing.assert_array_equal(stored, mask.array.transpose(2, 1, 0))
    again = read_volume(path)
    np.testing.assert_array_equal(again.array, mask.array)
    assert (again.spacing_mm, again.origin_mm) == (volume.spacing_mm, volume.origin_mm)
    np.testing.assert_array_equal(again.direction, volume.direction)
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name, "scan.nii.gz"]


def test_simpleitk_reads_it_like_the_scan(tmp_path: Path) -> None:
    source = save(tmp_path / "scan.nii")
    path = write_like(tmp_path / "mask.nii.gz", read_volume(source), source=source)
    one, other = SimpleITK.ReadImage(str(source)), SimpleITK.ReadImage(str(path))
    assert one.GetSpacing() == other.GetSpacing()
    assert one.GetOrigin() == other.GetOrigin()
    assert one.GetDirection() == other.GetDirection()
    np.testing.assert_array_equal(*map(SimpleITK.GetArrayFromImage, (one, other)))


@pytest.mark.parametrize("dtype", [bool, np.uint16, np.int64, np.float16, np.float32])
def test_types(tmp_path: Path, dtype: type) -> None:
    source = save(tmp_path / "scan.nii", order="big")
    volume = read_volume(source)
    array: np.ndarray = np.arange(volume.array.size).reshape(volume.size_voxels).astype(dtype)
    path = write_like(tmp_path / "mask.nii.gz", replace(volume, array=array), source=source)
    np.testing.assert_array_equal(read_volume(path).array, array)


def test_mask_of_a_scan_of_several_channels(tmp_path: Path) -> None:
    source = save(tmp_path / "scan.nii.gz", shape=(6, 5, 4, 3))
    volume = read_channels(source)[0]
    path = write_like(tmp_path / "mask.nii.gz", volume, source=source)
    assert nibabel.load(path).shape == (6, 5, 4)
    np.testing.assert_array_equal(nibabel.load(path).affine, nibabel.load(source).affine)


def test_slightly_sheared_scan_keeps_its_matrix(tmp_path: Path) -> None:
    affine = np.diag([0.5, 0.75, 2.5, 1.0])
    affine[0, 1] = 0.75 * 8e-4
    source = tmp_path / "lean.nii"
    image = nibabel.Nifti1Image(np.zeros((100, 100, 9), np.int16), affine)
    image.set_qform(None, 0)
    nibabel.save(image, source)
    path = write_like(tmp_path / "mask.nii.gz", read_volume(source), source=source)
    np.testing.assert_array_equal(nibabel.load(path).affine, nibabel.load(source).affine)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".npz"])
def test_other_kinds_are_written_with_their_geometry(tmp_path: Path, suffix: str) -> None:
    volume = read_volume(save(tmp_path / "scan.nii"))
    source = write_volume(tmp_path / f"scan{suffix}", volume)
    for name in (f"mask{suffix}", "mask.nii.gz"):
        found = read_volume(write_like(tmp_path / name, volume, source=source))
        np.testing.assert_array_equal(found.array, volume.array)
        np.testing.assert_allclose(found.affine, volume.affine, atol=1e-5)
    found = read_volume(
        write_like(tmp_path / f"other{suffix}", volume, source=tmp_path / "scan.nii")
    )
    np.testing.assert_allclose(found.affine, volume.affine, atol=1e-5)


def test_volume_beside_the_scan_is_refused(tmp_path: Path) -> None:
    source = save(tmp_path / "scan.nii")
    volume = read_volume(source)
    x, y, z = volume.origin_mm
    with pytest.raises(DataError, match=r"scan\.nii lies up to 0\.94 voxels beside"):
        write_like(tmp_path / "mask.nii", replace(volume, origin_mm=(x, y, z + 1.0)), source=source)
    with pytest.raises(DataError, match=r"has \(4, 5, 6\) voxels .* has \(4, 5, 5\)"):
        write_like(
            tmp_path / "mask.nii", replace(volume, array=volume.array[..., :5]), source=source
        )
    assert [one.name for one in tmp_path.iterdir()] == ["scan.nii"]


def test_nothing_is_written_over_unless_asked(tmp_path: Path) -> None:
    source = save(tmp_path / "scan.nii")
    before = source.read_bytes()
    with pytest.raises(DataError, match="is there already"):
        write_like(source, read_volume(source), source=source)
    assert source.read_bytes() == before
    write_like(source, read_volume(source), source=source, overwrite=True)
    assert read_nifti_header(source).slope == 1


def test_missing_scan_and_unknown_suffix_are_refused(tmp_path: Path) -> None:
    source = save(tmp_path / "scan.nii")
    volume = read_volume(source)
    with pytest.raises(DataError, match=r"gone\.nii could not be read"):
        write_like(tmp_path / "mask.nii", volume, source=tmp_path / "gone.nii")
    with pytest.raises(DataError, match=r"written as \.nii\.gz"):
        write_like(tmp_path / "mask.png", volume, source=source)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_file_cut_off_by_a_full_disk_never_bears_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    source = save(tmp_path / "scan.nii")
    write = writing._write

    def cut_off(path: Path, *rest: Any) -> None:
        write(path, *rest)
        path.write_bytes(path.read_bytes()[:-20])

    monkeypatch.setattr(writing, "_write", cut_off)
    with pytest.raises(DataError, match="cut off"):
        write_like(tmp_path / f"mask{suffix}", read_volume(source), source=source)
    assert [one.name for one in tmp_path.iterdir()] == ["scan.nii"]


def test_same_mask_makes_the_same_file(tmp_path: Path) -> None:
    source = save(tmp_path / "scan.nii")
    paths = [
        write_like(tmp_path / name, read_volume(source), source=source)
        for name in ("a.nii.gz", "b.nii.gz")
    ]
    one, other = (path.read_bytes() for path in paths)
    assert one == other
    assert b"nii" not in one[:20]
    assert len(gzip.decompress(one)) == 352 + 6 * 5 * 4 * 4
