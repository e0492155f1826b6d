"""NIfTI files as they are found: scaled, cut off, sheared, or with a header that lies."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from voxlift.core.errors import DataError
from voxlift.data.nifti import check_nifti, read_nifti

AXES = np.diag([0.5, 0.75, 2.5, 1.0])


def save(path: Path, array: np.ndarray, affine: Any = AXES, kind: type | None = None) -> Path:
    nibabel.save((kind or nibabel.Nifti1Image)(array, affine), path)
    return path


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (8, 7, 6)).astype(np.int16)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_versions_and_byte_orders(tmp_path: Path, kind: Any, order: str, suffix: str) -> None:
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    image = kind(noise(), AXES, header=header)
    nibabel.save(image, tmp_path / f"scan{suffix}")
    volume = read_nifti(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(volume.array, noise().transpose(2, 1, 0))
    assert volume.array.dtype == np.int16
    assert volume.array.dtype.isnative
    assert volume.spacing_mm == (2.5, 0.75, 0.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("scaling", [(1.0, 0.0), (2.0, -1024.0), (0.25, 3.5), (1.0, 7.0)])
def test_scaling_agrees_with_simpleitk(
    tmp_path: Path, dtype: type, scaling: tuple[float, float]
) -> None:
    image = nibabel.Nifti1Image(np.abs(noise()).astype(dtype), AXES)
    image.header.set_slope_inter(*scaling)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "scan.nii.gz")))
    found = read_nifti(tmp_path / "scan.nii.gz").array
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_array_can_be_written_to(tmp_path: Path) -> None:
    for suffix in (".nii", ".nii.gz"):
        array = read_nifti(save(tmp_path / f"scan{suffix}", noise())).array
        array += 1
        assert array.flags.c_contiguous


def test_extensions_of_the_header_are_skipped(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(noise(), AXES)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 1000))
    nibabel.save(image, tmp_path / "scan.nii.gz")
    volume = read_nifti(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(volume.array, noise().transpose(2, 1, 0))


def test_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    array = noise()[:3, :3, :3]
    for suffix in (".nii", ".nii.gz"):
        data = save(tmp_path / f"whole{suffix}", array).read_bytes()
        path = tmp_path / f"cut{suffix}"
        # Every byte where it is compressed; every seventh is enough where it is not.
        for length in range(0, len(data), 1 if suffix == ".nii.gz" else 7):
            path.write_bytes(data[:length])
            with pytest.raises(DataError, match=f"cut{suffix} is damaged or cut off"):
                read_nifti(path)
            with pytest.raises(DataError, match=f"cut{suffix} is damaged or cut off"):
                check_nifti(path)


def test_wrong_check_sum_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", noise())
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF
    path.write_bytes(data)
    for read in (read_nifti, check_nifti):
        with pytest.raises(DataError, match="decompressed to its end"):
            read(path)


def test_header_that_promises_more_than_the_stream_holds_is_refused(tmp_path: Path) -> None:
    data = save(tmp_path / "whole.nii", noise()).read_bytes()
    path = tmp_path / "short.nii.gz"
    path.write_bytes(gzip.compress(data[:-100]))
    for read in (read_nifti, check_nifti):
        with pytest.raises(DataError, match=r"holds 572 of the 672 bytes"):
            read(path)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_header_that_claims_an_impossible_size_is_refused(tmp_path: Path, kind: type) -> None:
    path = save(tmp_path / "huge.nii", noise(), kind=kind)
    data = bytearray(path.read_bytes())
    if kind is nibabel.Nifti2Image:
        data[24:48] = np.array([60000] * 3, "<i8").tobytes()
    else:
        data[42:48] = np.array([32000] * 3, "<i2").tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"000 x \d+ x \d+ voxels, more than"):
        read_nifti(path)


@pytest.mark.parametrize("size", [0, -3])
def test_header_without_extent_is_refused(tmp_path: Path, size: int) -> None:
    path = save(tmp_path / "none.nii", noise())
    data = bytearray(path.read_bytes())
    data[42:44] = np.array([size], "<i2").tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"none.nii.*(nothing to read|header cannot be read)"):
        read_nifti(path)


@pytest.mark.parametrize("spacing", [0.0, -1.0, np.nan])
def test_header_without_spacing_is_refused(tmp_path: Path, spacing: float) -> None:
    path = save(tmp_path / "flat.nii", noise())
    data = bytearray(path.read_bytes())
    data[80:84] = np.array([spacing], "<f4").tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"flat.nii: .*spacing .*positive"):
        read_nifti(path)


@pytest.mark.parametrize("with_qform", [True, False])
def test_sheared_axes_are_refused_even_beside_straight_ones(
    tmp_path: Path, with_qform: bool
) -> None:
    sheared = AXES.copy()
    sheared[0, 1] = 0.3
    image = nibabel.Nifti1Image(noise(), sheared)
    if with_qform:
        image.set_qform(AXES, 1)
    nibabel.save(image, tmp_path / "sheared.nii.gz")
    with pytest.raises(DataError, match=r"sheared.nii.gz.*right angles.*Resample"):
        read_nifti(tmp_path / "sheared.nii.gz")


def test_sform_without_axes_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "flat.nii", noise())
    data = bytearray(path.read_bytes())
    data[280:296] = bytes(16)
    path.write_bytes(data)
    with pytest.raises(DataError, match="no three axes"):
        read_nifti(path)


@pytest.mark.parametrize("form", ["sform", "qform", "neither"])
def test_either_form_gives_the_geometry_of_simpleitk(tmp_path: Path, form: str) -> None:
    affine = np.array([[0, -0.75, 0, 5], [0.5, 0, 0, 6], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(noise(), affine)
    if form != "sform":
        image.set_sform(None, 0)
    if form != "qform":
        image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "scan.nii")
    volume = read_nifti(tmp_path / "scan.nii")
    expected = SimpleITK.ReadImage(str(tmp_path / "scan.nii"))
    assert volume.spacing_mm == expected.GetSpacing()[::-1]
    assert volume.origin_mm == expected.GetOrigin()
    assert volume.direction.ravel().tolist() == list(expected.GetDirection())


@pytest.mark.parametrize("form", ["sform", "qform", "neither"])
@pytest.mark.parametrize("unit", ["mm", "meter", "micron"])
def test_version_2_has_the_geometry_of_version_1(tmp_path: Path, form: str, unit: str) -> None:
    affine = np.array([[0, -0.75, 0, 5], [0.5, 0, 0, 6], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
    found = []
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        image = kind(noise(), affine)
        image.header.set_xyzt_units(unit)
        if form != "sform":
            image.set_sform(None, 0)
        if form != "qform":
            image.set_qform(None, 0)
        nibabel.save(image, tmp_path / "scan.nii")
        found.append(read_nifti(tmp_path / "scan.nii"))
    first, second = found
    np.testing.assert_allclose(second.spacing_mm, first.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(second.origin_mm, first.origin_mm, rtol=1e-6)
    np.testing.assert_allclose(second.direction, first.direction, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_colours_and_complex_numbers_are_refused(tmp_path: Path, dtype: Any) -> None:
    path = save(tmp_path / "odd.nii", np.zeros((3, 4, 5), dtype))
    with pytest.raises(DataError, match=r"odd.nii: its voxels are of type"):
        read_nifti(path)


def test_analyze_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "old.nii", noise())
    data = bytearray(path.read_bytes())
    data[344:348] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(DataError, match="Analyze"):
        read_nifti(path)
