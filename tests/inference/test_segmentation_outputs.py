from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from voxlift.core.label_scheme import LabelScheme
from voxlift.data.volume import Volume
from voxlift.data.volumes import read_volume
from voxlift.inference import segmentation_outputs
from voxlift.inference.saved_model import SavedModel
from voxlift.inference.segmentation import segment
from voxlift.inference.segmentation_inputs import SegmentationInput
from voxlift.inference.segmentation_outputs import SegmentationOutputs, SegmentedCase

LABELS = LabelScheme(names=("background", "liver", "tumour"), values=(0, 1, 2))
# The depth grows to the left, the height to the front, the width to the feet.
DIRECTION = np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]]).astype(np.float64)


def scan() -> Volume:
    array = np.random.default_rng(0).uniform(-0.4, 2.4, (5, 6, 7)).astype(np.float32)
    return Volume(array, spacing_mm=(2.0, 0.5, 1.5), direction=DIRECTION)


def test_the_picture_shows_the_case_in_the_canonical_order(
    tmp_path: Path, make_segmenter: Callable[..., SavedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, ...]] = []

    def spy(image: Any, mask: Any, path: Path, **settings: Any) -> None:
        drawn.append((image, mask, path, settings))

    image = scan()
    found = segment(make_segmenter(LABELS), [image])
    outputs = SegmentationOutputs(tmp_path, LABELS)
    case = SegmentationInput("scan 1", (Path("scan 1.nrrd"),))
    with monkeypatch.context() as patch:
        patch.setattr(segmentation_outputs, "plot_overview", spy)
        outputs.write(case, SegmentedCase(image, found), window=(-1.0, 2.0))
    ((shown, mask, path, settings),) = drawn
    expected = image.array.transpose(2, 1, 0)[::-1, ::-1]
    np.testing.assert_array_equal(shown, expected)
    np.testing.assert_array_equal(mask, expected.round())
    assert path == tmp_path / "scan 1.png"
    assert settings == {
        "structures": {"liver": (1,), "tumour": (2,)},
        "spacing_mm": (1.5, 0.5, 2.0),
        "window": (-1.0, 2.0),
        "title": "scan 1",
    }


def test_all_files_of_a_case_are_listed_and_written(
    tmp_path: Path, make_segmenter: Callable[..., SavedModel]
) -> None:
    image = scan()
    found = segment(make_segmenter(LABELS), [image], probabilities=True)
    outputs = SegmentationOutputs(tmp_path / "out", LABELS, probabilities=True)
    case = SegmentationInput("scan", (Path("scan.nrrd"),))
    for _ in range(2):
        outputs.write(case, SegmentedCase(image, found), window=None)
        assert sorted(outputs.paths(case)) == sorted((tmp_path / "out").iterdir())
    np.testing.assert_array_equal(read_volume(outputs.mask(case)).array, found.mask.array)
    with Image.open(tmp_path / "out" / "scan.png") as picture:
        assert min(picture.size) > 100


def test_masks_and_maps_have_the_very_header_of_the_scan(
    tmp_path: Path, make_segmenter: Callable[..., SavedModel]
) -> None:
    affine = np.array([[0, 0.31, 0, 5], [-0.47, 0, 0, 7.3], [0, 0, 2.1, -90], [0, 0, 0, 1]])
    nifti = nibabel.Nifti1Image(scan().array.transpose(2, 1, 0), affine)
    nifti.header.set_sform(affine, code=4)
    nifti.header.set_qform(affine, code=2)
    nifti.header["descrip"] = "somebody's name"
    nibabel.save(nifti, tmp_path / "scan.nii.gz")
    image = read_volume(tmp_path / "scan.nii.gz")
    found = segment(make_segmenter(LABELS), [image], probabilities=True)
    outputs = SegmentationOutputs(tmp_path / "out", LABELS, probabilities=True)
    case = SegmentationInput("scan", (tmp_path / "scan.nii.gz",))
    outputs.write(case, SegmentedCase(image, found), window=None)
    for path in (outputs.mask(case), *outputs.probability_maps(case).values()):
        header = nibabel.load(path).header
        for name in ("pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "quatern_b"):
            np.testing.assert_array_equal(header[name], nifti.header[name])
        assert b"somebody" not in header.binaryblock
