"""NIfTI files as they are found: scaled, cut off, sheared, or with a header that lies."""

import gzip
import tracemalloc
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


def test_flipped_bit_is_refused_or_harmless(tmp_path: Path) -> None:
    whole = read_nifti(save(tmp_path / "whole.nii.gz", noise()[:3, :3, :3]))
    data = (tmp_path / "whole.nii.gz").read_bytes()
    path = tmp_path / "flipped.nii.gz"
    num_harmless = 0
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = read_nifti(path)
        except DataError:
            continue
        # The header of gzip holds a time and a name, which may be anything.
        num_harmless += 1
        np.testing.assert_array_equal(found.array, whole.array)
        assert found.spacing_mm == whole.spacing_mm
    assert num_harmless < 25


def test_bytes_after_the_stream_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "scan.nii.gz", noise())
    path.write_bytes(path.read_bytes() + b"more")
    for read in (read_nifti, check_nifti):
        with pytest.raises(DataError, match="decompressed to its end"):
            read(path)


def test_claims_take_no_memory(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path / "whole.nii", noise()).read_bytes())
    # 2 billion voxels of 8 bytes.
    data[42:48] = np.array([1290, 1290, 1290], "<i2").tobytes()
    data[70:74] = np.array([64, 64], "<i2").tobytes()
    for path, written in (
        (tmp_path / "huge.nii", bytes(data)),
        (tmp_path / "huge.nii.gz", gzip.compress(data)),
    ):
        path.write_bytes(written)
        tracemalloc.start()
        with pytest.raises(DataError, match=r"holds 672 of the 17173512000 bytes"):
            read_nifti(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 2**24


def test_scaling_needs_no_doubles_of_the_whole(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((32, 32, 256), np.int16), AXES)
    image.header.set_slope_inter(1.0, -1024.0)
    nibabel.save(image, tmp_path / "scan.nii")
    tracemalloc.start()
    array = read_nifti(tmp_path / "scan.nii").array
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert array.dtype == np.float32
    assert array.mean() == -1023
    assert peak_bytes < 2 * array.nbytes
