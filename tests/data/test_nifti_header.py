"""NIfTI headers that lie, or state what is not read."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.nifti import read_nifti

AXES = np.diag([0.5, 0.75, 2.5, 1.0])


def save(path: Path, array: np.ndarray, affine: Any = AXES, kind: type | None = None) -> Path:
    nibabel.save((kind or nibabel.Nifti1Image)(array, affine), path)
    return path


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (8, 7, 6)).astype(np.int16)


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


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("offset", [1e30, np.nan, np.inf, 1e6])
def test_voxels_that_begin_beyond_the_file_are_refused(
    tmp_path: Path, suffix: str, offset: float
) -> None:
    data = bytearray(save(tmp_path / "whole.nii", noise()).read_bytes())
    data[108:112] = np.array([offset], "<f4").tobytes()
    path = tmp_path / f"far{suffix}"
    path.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
    with pytest.raises(DataError, match=r"far.nii.* is damaged"):
        read_nifti(path)


def test_unknown_type_of_voxels_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "odd.nii", noise())
    data = bytearray(path.read_bytes())
    data[70:72] = (1000).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"odd\.nii is damaged.*header cannot be read"):
        read_nifti(path)


@pytest.mark.parametrize("spacing", [5e-315, 1e300])
def test_spacing_that_cannot_be_computed_with_is_refused(tmp_path: Path, spacing: float) -> None:
    path = save(tmp_path / "tiny.nii", noise(), kind=nibabel.Nifti2Image)
    data = bytearray(path.read_bytes())
    data[112:136] = np.array([spacing] * 3, "<f8").tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"voxel spacing .* expected positive"):
        read_nifti(path)
