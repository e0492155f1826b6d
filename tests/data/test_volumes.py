"""Reading and writing files of volumes."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from voxlift.core.errors import DataError
from voxlift.data.volumes import (
    Volume,
    is_volume_path,
    read_channels,
    read_volume,
    write_volume,
)

SUFFIXES = [".nii.gz", ".nii", ".nrrd", ".mha"]


def oblique() -> np.ndarray:
    """A rotation about a skew axis (by Rodrigues' formula)."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.asarray(np.eye(3) + np.sin(0.7) * cross + (1 - np.cos(0.7)) * cross @ cross)


def some_volume(dtype: type = np.int16) -> Volume:
    numbers = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6))
    array: np.ndarray = numbers.astype(dtype)
    return Volume(array, (2.5, 0.5, 0.75), (-12.0, 34.5, 56.25), oblique())


def assert_same(found: Volume, expected: Volume) -> None:
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_allclose(found.spacing_mm, expected.spacing_mm, atol=1e-5)
    np.testing.assert_allclose(found.origin_mm, expected.origin_mm, atol=1e-5)
    np.testing.assert_allclose(found.direction, expected.direction, atol=1e-5)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".npz"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_round_trip(tmp_path: Path, suffix: str, dtype: type) -> None:
    volume = some_volume(dtype)
    path = write_volume(tmp_path / f"scan{suffix}", volume)
    found = read_volume(path)
    assert_same(found, volume)
    assert found.array.dtype == dtype
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".mhd", ".nhdr"])
def test_reads_what_simpleitk_writes(tmp_path: Path, suffix: str) -> None:
    volume = some_volume()
    image = SimpleITK.GetImageFromArray(volume.array)
    image.SetSpacing((0.75, 0.5, 2.5))
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(oblique().ravel().tolist())
    SimpleITK.WriteImage(image, str(tmp_path / f"scan{suffix}"))
    assert_same(read_volume(tmp_path / f"scan{suffix}"), volume)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_simpleitk_reads_what_we_write(tmp_path: Path, suffix: str) -> None:
    volume = some_volume()
    image = SimpleITK.ReadImage(str(write_volume(tmp_path / f"scan{suffix}", volume)))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), volume.array)
    np.testing.assert_allclose(image.GetSpacing(), (0.75, 0.5, 2.5), atol=1e-5)
    np.testing.assert_allclose(image.GetDirection(), oblique().ravel(), atol=1e-5)


def test_affine_agrees_with_nibabel(tmp_path: Path) -> None:
    volume = some_volume()
    path = write_volume(tmp_path / "scan.nii.gz", volume)
    index = np.array([3, 1, 4])
    ras = nibabel.load(path).affine @ [*index[::-1], 1]
    lps = volume.affine @ [*index, 1]
    np.testing.assert_allclose(lps[:3], ras[:3] * [-1, -1, 1], atol=1e-4)


def test_slope_and_intercept_of_nifti_are_applied(tmp_path: Path) -> None:
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(image, tmp_path / "scan.nii")
    expected = np.asarray(nibabel.load(tmp_path / "scan.nii").dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii").array, expected)


def test_singleton_time_axis_is_one_volume(tmp_path: Path) -> None:
    nibabel.save(
        nibabel.Nifti1Image(np.ones((4, 3, 2, 1), np.int16), np.eye(4)), tmp_path / "a.nii"
    )
    assert read_volume(tmp_path / "a.nii").size_voxels == (2, 3, 4)


def test_single_slice_is_a_volume(tmp_path: Path) -> None:
    volume = Volume(np.ones((1, 5, 6), np.int16), spacing_mm=(5.0, 1.0, 1.0))
    for suffix in SUFFIXES:
        assert_same(read_volume(write_volume(tmp_path / f"one{suffix}", volume)), volume)


@pytest.mark.parametrize("dtype", [bool, np.float16])
def test_types_without_a_place_in_the_format_have_an_exact_stand_in(
    tmp_path: Path, dtype: type
) -> None:
    array: np.ndarray = np.arange(24).reshape(2, 3, 4).astype(dtype)
    found = read_volume(write_volume(tmp_path / "mask.nii.gz", Volume(array)))
    np.testing.assert_array_equal(found.array, array.astype(np.float64))


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".npz"])
@pytest.mark.parametrize("name", ["größe 断層", "a" * 240, "断" * 80])
def test_non_ascii_and_very_long_paths(tmp_path: Path, suffix: str, name: str) -> None:
    # File systems take 255 bytes a name.
    folder = tmp_path.joinpath(*["öffnung " + "f" * 190] * 4)
    volume = some_volume()
    path = write_volume(folder / f"{name}{suffix}", volume)
    assert_same(read_volume(path), volume)
    assert [one.name for one in folder.iterdir()] == [path.name]


@pytest.mark.parametrize("shape", [(5, 6, 7, 3), (5, 6, 7, 1, 3), (5, 6, 7, 3, 1)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_channels_of_nifti(tmp_path: Path, shape: tuple[int, ...], suffix: str, kind: Any) -> None:
    array = np.random.default_rng(0).integers(0, 999, shape).astype(np.int16)
    affine = np.diag([0.5, 0.75, 2.5, 1.0])
    image = kind(array, affine)
    image.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(image, tmp_path / f"many{suffix}")
    # nibabel is the reference, for scaling too.
    expected = np.asarray(nibabel.load(tmp_path / f"many{suffix}").dataobj).reshape(5, 6, 7, 3)
    channels = read_channels(tmp_path / f"many{suffix}")
    assert len(channels) == 3
    for number, channel in enumerate(channels):
        np.testing.assert_array_equal(channel.array, expected[..., number].transpose(2, 1, 0))
        assert channel.spacing_mm == (2.5, 0.75, 0.5)
        np.testing.assert_array_equal(channel.direction, np.diag([-1, -1, 1]))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("as_vectors", [True, False])
def test_channels_of_nrrd_and_meta_image(tmp_path: Path, suffix: str, as_vectors: bool) -> None:
    array = np.random.default_rng(0).integers(0, 999, (3, 4, 5, 6)).astype(np.int16)
    if as_vectors:
        image = SimpleITK.GetImageFromArray(np.moveaxis(array, 0, -1), isVector=True)
        image.SetSpacing((0.75, 0.5, 2.5))
        image.SetOrigin((1, 2, 3))
        image.SetDirection(oblique().ravel().tolist())
    else:
        image = SimpleITK.GetImageFromArray(array, isVector=False)
        image.SetSpacing((0.75, 0.5, 2.5, 1))
        image.SetOrigin((1, 2, 3, 0))
        direction = np.eye(4)
        direction[:3, :3] = oblique()
        image.SetDirection(direction.ravel().tolist())
    SimpleITK.WriteImage(image, str(tmp_path / f"many{suffix}"), True)
    channels = read_channels(tmp_path / f"many{suffix}")
    assert len(channels) == 3
    for channel, expected in zip(channels, array, strict=True):
        assert_same(channel, Volume(expected, (2.5, 0.5, 0.75), (1, 2, 3), oblique()))
    with pytest.raises(DataError, match=rf"many{suffix}: .*3 channels.*read_channels"):
        read_volume(tmp_path / f"many{suffix}")


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".npz"])
def test_volume_is_one_channel(tmp_path: Path, suffix: str) -> None:
    (channel,) = read_channels(write_volume(tmp_path / f"scan{suffix}", some_volume()))
    assert_same(channel, some_volume())


def test_nan_in_the_last_channel_is_refused(tmp_path: Path) -> None:
    array = np.zeros((4, 3, 2, 2), np.float32)
    array[0, 0, 0, 1] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "hole.nii.gz")
    with pytest.raises(DataError, match=r"hole.nii.gz: 1 of 24 voxels are NaN"):
        read_channels(tmp_path / "hole.nii.gz")
    assert len(read_channels(tmp_path / "hole.nii.gz", check_finite=False)) == 2


def test_nifti_with_channels_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.nii.gz"
    noise = np.random.default_rng(0).integers(0, 99, (2, 2, 2, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"many.nii.gz is (damaged|empty)"):
            read_channels(path)


def test_nifti_with_several_channels_is_no_volume(tmp_path: Path) -> None:
    path = tmp_path / "bold.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 6, 3, 2), np.int16), np.eye(4)), path)
    with pytest.raises(DataError, match=r"bold.nii.gz: .*2 channels.*three dim.*read_channels"):
        read_volume(path)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 3, 2, 2)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_of_other_dimensions_is_refused(
    tmp_path: Path, shape: tuple[int, ...], suffix: str
) -> None:
    path = tmp_path / f"other{suffix}"
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), path)
    with pytest.raises(DataError, match=rf"other{suffix}.* dimensions.*three"):
        read_channels(path)
    with pytest.raises(DataError, match=rf"other{suffix}.* dimensions.*three"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("shape", [(5, 6), (2, 2, 3, 4, 5)])
def test_images_of_other_dimensions_are_refused(
    tmp_path: Path, suffix: str, shape: tuple[int, ...]
) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros(shape, np.int16), isVector=False)
    SimpleITK.WriteImage(image, str(tmp_path / f"other{suffix}"))
    for read in (read_volume, read_channels):
        with pytest.raises(DataError, match=rf"other{suffix}.*expected three dimensions"):
            read(tmp_path / f"other{suffix}")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_fourth_axis_turned_into_space_is_refused(tmp_path: Path, suffix: str) -> None:
    image = SimpleITK.GetImageFromArray(np.zeros((2, 3, 4, 5), np.int16), isVector=False)
    direction = np.eye(4)
    direction[2:, 2:] = [[0.8, -0.6], [0.6, 0.8]]
    image.SetDirection(direction.ravel().tolist())
    SimpleITK.WriteImage(image, str(tmp_path / f"turned{suffix}"))
    with pytest.raises(DataError, match=r"turned.*holds no channels"):
        read_channels(tmp_path / f"turned{suffix}")


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".npz"])
def test_nan_is_refused_with_the_file_unless_asked(tmp_path: Path, suffix: str) -> None:
    array = np.zeros((2, 3, 4), np.float32)
    array[0, 0, 1] = np.nan
    path = write_volume(tmp_path / f"hole{suffix}", Volume(array))
    with pytest.raises(DataError, match=rf"hole{suffix}: 1 of 24 voxels are NaN"):
        read_volume(path)
    assert np.isnan(read_volume(path, check_finite=False).array).sum() == 1


def test_missing_unknown_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.nii.*not there"):
        read_volume(tmp_path / "gone.nii")
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"photo.png.*\.nii\.gz"):
        read_volume(tmp_path / "photo.png")
    (tmp_path / "void.nii.gz").touch()
    with pytest.raises(DataError, match=r"void.nii.gz is empty"):
        read_volume(tmp_path / "void.nii.gz")


def test_overlong_name_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"could not be read|not there"):
        read_volume(tmp_path / ("a" * 300 + ".nii"))
    with pytest.raises(DataError, match=r"could not be written: File name too long"):
        write_volume(tmp_path / ("a" * 300 + ".nii"), some_volume())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".npy", ".npz"])
def test_text_under_a_false_name_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"text{suffix}").write_text("this is no volume\n" * 50)
    with pytest.raises(DataError, match=f"text{suffix}"):
        read_volume(tmp_path / f"text{suffix}")


def test_nothing_is_written_over_unless_asked(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "mask.nii.gz", Volume(np.zeros((1, 2, 3), np.uint8)))
    before = path.read_bytes()
    with pytest.raises(DataError, match="is there already"):
        write_volume(path, Volume(np.ones((1, 2, 3), np.uint8)))
    assert path.read_bytes() == before
    write_volume(path, Volume(np.ones((1, 2, 3), np.uint8)), overwrite=True)
    assert read_volume(path).array.min() == 1


@pytest.mark.parametrize("name", ["mask.mhd", "mask.npy", "mask.png", "mask"])
def test_unknown_format_is_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"written as \.nii\.gz"):
        write_volume(tmp_path / name, Volume(np.zeros((1, 2, 3), np.uint8)))
    assert not list(tmp_path.iterdir())


def test_failure_of_the_writer_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(image: SimpleITK.Image, path: str, *, useCompression: bool) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("ITK ERROR: no space left")

    monkeypatch.setattr(SimpleITK, "WriteImage", cut_off)
    with pytest.raises(DataError, match=r"mask.nii.gz could not be written.*no space left"):
        write_volume(tmp_path / "mask.nii.gz", Volume(np.zeros((1, 2, 3), np.uint8)))
    assert not list(tmp_path.iterdir())


def test_file_cut_off_by_a_full_disk_never_bears_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = SimpleITK.WriteImage

    def cut_off(image: SimpleITK.Image, path: str, *, useCompression: bool) -> None:
        write(image, path, useCompression=useCompression)
        data = Path(path).read_bytes()
        Path(path).write_bytes(data[: len(data) // 2])

    monkeypatch.setattr(SimpleITK, "WriteImage", cut_off)
    with pytest.raises(DataError, match=r"mask.nii.gz could not be written.*cut off.*space"):
        write_volume(tmp_path / "mask.nii.gz", some_volume())
    assert not list(tmp_path.iterdir())


def test_is_volume_path(tmp_path: Path) -> None:
    for name in ("a.nii", "a.NII.GZ", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.npy", "a.npz"):
        (tmp_path / name).touch()
        assert is_volume_path(tmp_path / name)
    (tmp_path / "a.png").touch()
    assert not is_volume_path(tmp_path / "a.png")
    assert not is_volume_path(tmp_path / "missing.nii")
    assert not is_volume_path(tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("folder", ["lidc-nodules/images", "hippocampus/imagesTr"])
def test_real_files_agree_with_simpleitk(data_folder: Path, folder: str) -> None:
    paths = sorted((data_folder / folder).glob("[!.]*.nii.gz"))[::20]
    assert paths
    for path in paths:
        volume = read_volume(path)
        image = SimpleITK.ReadImage(str(path))
        np.testing.assert_array_equal(volume.array, SimpleITK.GetArrayFromImage(image))
        assert volume.spacing_mm == image.GetSpacing()[::-1]
        assert volume.origin_mm == image.GetOrigin()
        np.testing.assert_array_equal(volume.direction.ravel(), image.GetDirection())
