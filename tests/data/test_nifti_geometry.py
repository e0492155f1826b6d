"""The place in the patient that a NIfTI header states, against SimpleITK and nibabel."""

import logging
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from voxlift.core.errors import DataError
from voxlift.data.nifti import read_nifti
from voxlift.data.volume import Volume

AXES = np.diag([0.5, 0.75, 2.5, 1.0])


def save(path: Path, array: np.ndarray, affine: Any = AXES, kind: type | None = None) -> Path:
    nibabel.save((kind or nibabel.Nifti1Image)(array, affine), path)
    return path


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (8, 7, 6)).astype(np.int16)


def turned(axis: int, angle: float) -> np.ndarray:
    """A rotation about one axis."""
    rotation = np.eye(3)
    first, second = [one for one in range(3) if one != axis]
    rotation[first, first] = rotation[second, second] = np.cos(angle)
    rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
    return rotation


def affine_of(rotation: np.ndarray, origin: Any = (1.0, 2.0, 3.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = rotation * [0.5, 0.75, 2.5]
    affine[:3, 3] = origin
    return affine


def save_forms(
    path: Path,
    *,
    qform: np.ndarray | None = None,
    sform: np.ndarray | None = None,
    codes: tuple[int, int] = (1, 1),
    kind: Any = nibabel.Nifti1Image,
    size: tuple[int, int, int] = (8, 7, 6),
) -> Path:
    """Write a file with just these forms, and the spacing of `affine_of`."""
    image = kind(np.zeros(size, np.int16), None)
    image.header.set_zooms((0.5, 0.75, 2.5))
    if qform is not None:
        image.header.set_qform(qform, codes[0])
    if sform is not None:
        image.header.set_sform(sform, codes[1])
    nibabel.save(image, path)
    return path


def ras(volume: Volume) -> np.ndarray:
    """The affine from the file's index to RAS, as nibabel has it."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    affine[:3, :3] = affine[:3, 2::-1]
    return np.asarray(affine)


def simpleitk_affine(path: Path) -> np.ndarray:
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


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


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("codes", list(product((0, 1, 2, 4), repeat=2)))
@pytest.mark.parametrize("what", ["same", "turned", "moved", "slightly sheared"])
def test_choice_between_two_forms_is_that_of_simpleitk(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: Any,
    codes: tuple[int, int],
    what: str,
) -> None:
    qform = affine_of(turned(0, 0.3))
    sform = {
        "same": qform,
        "turned": affine_of(turned(2, 0.4)),
        "moved": affine_of(turned(0, 0.3), (1.0, 2.0, 9.0)),
        "slightly sheared": qform + 0.75 * 4e-4 * np.eye(4)[[0]].T @ np.eye(4)[[1]],
    }[what]
    path = save_forms(tmp_path / "a.nii", qform=qform, sform=sform, codes=codes)
    if what == "slightly sheared" and codes[0] == 0 and codes[1] > 0:
        with pytest.raises(RuntimeError, match="orthonormal"):
            SimpleITK.ReadImage(str(path))
        expected = sform
    else:
        expected = simpleitk_affine(path)
    save_forms(path, qform=qform, sform=sform, codes=codes, kind=kind)
    with caplog.at_level(logging.WARNING):
        found = ras(read_nifti(path))
    np.testing.assert_allclose(found, expected, atol=2e-3 if "sheared" in what else 2e-6)
    told = "disagree" in caplog.text
    assert told == (min(codes) > 0 and what in ("turned", "moved"))
    if told:
        taken = "sform" if np.allclose(found, sform, atol=1e-5) else "qform"
        assert f"The {taken} is taken" in caplog.text


@pytest.mark.parametrize("shear", [3e-4, 9e-4])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_slightly_sheared_sform_is_straightened_and_the_log_says_how_far(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shear: float, kind: Any
) -> None:
    rotation = turned(0, 0.3)
    axes = rotation.copy()
    # The height axis leans towards the width axis.
    axes[:, 1] = np.cos(shear) * rotation[:, 1] + np.sin(shear) * rotation[:, 0]
    path = save_forms(tmp_path / "lean.nii", sform=affine_of(axes), kind=kind, size=(101, 101, 3))
    with caplog.at_level(logging.WARNING):
        volume = read_nifti(path)
    np.testing.assert_allclose(volume.direction.T @ volume.direction, np.eye(3), atol=1e-12)
    assert volume.spacing_mm == pytest.approx((2.5, 0.75, 0.5), rel=1e-6)
    # Each of the two axes gives way by half: over 100 voxels of 0.75 and 0.5 mm.
    half = np.eye(3)
    half[:2, :2] = [[np.cos(shear / 2), np.sin(shear / 2)], [-np.sin(shear / 2), np.cos(shear / 2)]]
    found = ras(volume)[:3, :3] / [0.5, 0.75, 2.5]
    np.testing.assert_allclose(found, rotation @ half, atol=1e-6)
    moved = np.hypot(100 * 0.75 * shear / 2 / 0.5, 100 * 0.5 * shear / 2 / 0.75)
    assert "lean.nii: the axes of its sform are not quite at right angles" in caplog.text
    assert f"farthest corner by {moved:.2f} voxels" in caplog.text


@pytest.mark.parametrize("shear", [1.2e-3, 0.3, 2.0])
def test_shear_beyond_rounding_is_refused_with_the_remedy(tmp_path: Path, shear: float) -> None:
    axes = np.eye(3)
    axes[0, 1] = shear
    path = save_forms(tmp_path / "lean.nii", sform=affine_of(axes))
    with pytest.raises(DataError, match=r"lean.nii.*sheared, by .*resample_to_output"):
        read_nifti(path)


def test_sform_alone_gives_the_spacing_even_where_the_header_has_another(tmp_path: Path) -> None:
    rotation = turned(1, 0.2)
    affine = np.eye(4)
    affine[:3, :3] = rotation * [0.6, 0.9, 3.0]
    path = save_forms(tmp_path / "a.nii", sform=affine)
    np.testing.assert_allclose(ras(read_nifti(path)), affine, atol=1e-6)
    np.testing.assert_allclose(nibabel.load(path).affine, affine, atol=1e-6)


def test_sform_of_another_spacing_stands_back_behind_the_qform(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sform = affine_of(turned(1, 0.2))
    sform[:3, :3] *= 1.2
    path = save_forms(tmp_path / "a.nii", qform=affine_of(turned(1, 0.2)), sform=sform)
    with caplog.at_level(logging.WARNING):
        found = ras(read_nifti(path))
    np.testing.assert_allclose(found, affine_of(turned(1, 0.2)), atol=1e-6)
    np.testing.assert_allclose(found, simpleitk_affine(path), atol=1e-6)
    assert "The qform is taken" in caplog.text


@pytest.mark.parametrize("handed", [-1.0, 0.0, 1.0])
def test_left_handed_qform(tmp_path: Path, handed: float) -> None:
    path = save_forms(tmp_path / "a.nii", qform=affine_of(turned(0, 0.3)))
    data = bytearray(path.read_bytes())
    data[76:80] = np.array([handed], "<f4").tobytes()
    path.write_bytes(data)
    np.testing.assert_allclose(ras(read_nifti(path)), simpleitk_affine(path), atol=1e-6)


@pytest.mark.parametrize("number", [np.nan, 1.5])
def test_impossible_qform_matters_only_if_it_is_needed(tmp_path: Path, number: float) -> None:
    both = save_forms(tmp_path / "both.nii", qform=affine_of(np.eye(3)), sform=AXES)
    alone = save_forms(tmp_path / "alone.nii", qform=affine_of(np.eye(3)))
    for path in (both, alone):
        data = bytearray(path.read_bytes())
        data[256:260] = np.array([number], "<f4").tobytes()
        path.write_bytes(data)
    np.testing.assert_array_equal(ras(read_nifti(both)), AXES)
    with pytest.raises(DataError, match=r"alone.nii: its qform has the quaternion"):
        read_nifti(alone)


def test_origin_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = save_forms(tmp_path / "lost.nii", sform=affine_of(np.eye(3), (0, np.nan, 0)))
    with pytest.raises(DataError, match=r"lost.nii: its sform matrix .* an origin"):
        read_nifti(path)


def test_no_form_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read_nifti(save_forms(tmp_path / "bare.nii"))
    assert "bare.nii states no place in the patient" in caplog.text


def test_rounded_matrices_are_taken_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    affine = affine_of(turned(0, 0.3) @ turned(2, 1.1))
    with caplog.at_level(logging.INFO):
        read_nifti(save_forms(tmp_path / "a.nii", qform=affine, sform=affine, size=(512, 512, 99)))
    assert not caplog.text
