from dataclasses import replace

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.core.preprocessing import Preprocessing
from voxlift.data.orientation import to_canonical
from voxlift.data.prepared_image import prepare_image, to_network_grid
from voxlift.data.preprocess import preprocess
from voxlift.data.resample import resample
from voxlift.data.segmentation_cases import grid_difference
from voxlift.data.volume import Volume

# Sagittal, its slices from left to right.
DIRECTION = np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
VOLUME = Volume(
    np.random.default_rng(0).normal(size=(5, 8, 9)).astype(np.float32),
    (3.0, 1.0, 1.5),
    (10.0, 20.0, 30.0),
    DIRECTION,
)
PREPROCESSING = Preprocessing(
    spacing_mm=(2.0, 1.0, 1.0), intensity="percentiles", percentiles=(5, 95), mean=0.5, std=0.2
)


def test_it_is_what_preprocessing_gives() -> None:
    prepared = prepare_image([VOLUME], PREPROCESSING)
    whole = prepared.read_all()
    np.testing.assert_allclose(whole, preprocess(VOLUME, PREPROCESSING), atol=1e-6)
    assert prepared.size_voxels == whole.shape[1:]
    assert prepared.lowest == pytest.approx((-2.5,))


def test_any_part_is_the_part_of_the_whole() -> None:
    prepared = prepare_image([VOLUME], PREPROCESSING)
    region = (slice(1, 3), slice(0, 2), slice(2, 9))
    np.testing.assert_array_equal(
        prepared.read(region), prepared.read_all()[(slice(None), *region)]
    )


def test_each_channel_has_a_scale_of_its_own() -> None:
    other = replace(VOLUME, array=VOLUME.array * 100 + 7)
    preprocessing = PREPROCESSING.model_copy(update={"in_channels": 2})
    first, second = prepare_image([VOLUME, other], preprocessing).read_all()
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_masks_keep_their_values_on_the_network_grid() -> None:
    mask = replace(VOLUME, array=(VOLUME.array > 0).astype(np.uint8) * 5)
    found = to_network_grid(mask, PREPROCESSING, method="nearest")
    expected = resample(to_canonical(mask), (2.0, 1.0, 1.0), method="nearest")
    assert found.array.dtype == np.uint8
    np.testing.assert_array_equal(found.array, expected.array)
    assert grid_difference(found, prepare_image([VOLUME], PREPROCESSING).channels[0]) is None


def test_stored_axes_are_left_alone() -> None:
    preprocessing = Preprocessing(orientation="stored")
    assert to_network_grid(VOLUME, preprocessing) is VOLUME


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(DataError, match=r"case x has 2 channel\(s\).*trained on 1"):
        prepare_image([VOLUME, VOLUME], PREPROCESSING, name="case x")
