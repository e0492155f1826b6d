import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydantic import ValidationError

from voxlift.data.epoch_order import sample_uniforms
from voxlift.data.image_augmentation import (
    NUM_DRAWS,
    Box,
    ImageAugmentation,
    crop_box,
    draft_size,
    flips,
    recolour,
    resize_crop,
    shift_indices,
)

Draws = npt.NDArray[np.float64]


@pytest.fixture
def draws() -> Draws:
    return sample_uniforms(0, epoch=0, indices=np.arange(4000), num_draws=NUM_DRAWS)


@pytest.mark.parametrize(
    "options",
    [
        {"area": (0.0, 1.0)},
        {"area": (0.9, 0.2)},
        {"ratio": (2.0, 1.0)},
        {"flip_probability": 1.5},
        {"pad_pixels": -1},
        {"center_fraction": 0.0},
        {"crop": "zoom"},
        {"unknown": 1},
    ],
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ImageAugmentation.model_validate(options)


@pytest.mark.parametrize(("height", "width"), [(300, 400), (50, 50), (100, 900)])
def test_random_crops_lie_inside_and_keep_their_bounds(
    draws: Draws, height: int, width: int
) -> None:
    augmentation = ImageAugmentation()
    boxes = [crop_box(augmentation, numbers, height, width) for numbers in draws]
    tops, lefts, heights, widths = np.array([(b.top, b.left, b.height, b.width) for b in boxes]).T
    tolerance = 1e-9
    assert (tops >= 0).all()
    assert (lefts >= 0).all()
    assert (tops + heights <= height + tolerance).all()
    assert (lefts + widths <= width + tolerance).all()
    ratios = widths / heights
    assert (ratios >= 3 / 4 - tolerance).all()
    assert (ratios <= 4 / 3 + tolerance).all()
    areas = heights * widths / (height * width)
    assert (areas <= 1 + tolerance).all()
    assert areas.min() >= 0.08 - tolerance
    if width / height < 1.5:
        # Most crops fit, and their area is then uniform between 0.08 and 1.
        assert areas.mean() == pytest.approx(0.54, abs=0.05)
        assert np.log(ratios).mean() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize(("height", "width"), [(300, 400), (900, 250)])
def test_draft_is_never_coarser_than_the_crop_needs(draws: Draws, height: int, width: int) -> None:
    augmentation = ImageAugmentation()
    for numbers in draws[:500]:
        needed = draft_size(augmentation, numbers, 64)
        assert needed is not None
        box = crop_box(augmentation, numbers, height, width)
        scale = needed / min(height, width)
        assert min(box.height, box.width) * scale >= 64 - 1e-6
    assert draft_size(ImageAugmentation(crop="none", center_fraction=0.5), draws[0], 64) == 128
    assert draft_size(ImageAugmentation(crop="pad"), draws[0], 64) is None


def test_centre_crop(draws: Draws) -> None:
    augmentation = ImageAugmentation.for_evaluation(center_fraction=0.5)
    assert crop_box(augmentation, draws[0], 100, 60) == Box(35.0, 15.0, 30.0, 30.0)
    assert not flips(augmentation, draws).any()


def test_shifts_are_those_of_a_mirrored_border(draws: Draws) -> None:
    augmentation = ImageAugmentation(crop="pad", pad_pixels=3)
    rows, columns = shift_indices(augmentation, draws, 6, 8)
    image = np.arange(48).reshape(6, 8)
    padded = np.pad(image, 3, mode="reflect")
    windows = {
        padded[top : top + 6, left : left + 8].tobytes(): 0 for top in range(7) for left in range(7)
    }
    for row, column in zip(rows, columns, strict=True):
        windows[image[row[:, None], column].tobytes()] += 1
    # 4000 draws over 49 equally likely shifts.
    assert min(windows.values()) > 40
    assert max(windows.values()) < 130


def test_shift_larger_than_the_image(draws: Draws) -> None:
    augmentation = ImageAugmentation(crop="pad", pad_pixels=9)
    rows, columns = shift_indices(augmentation, draws, 4, 1)
    reference = np.pad(np.arange(4), 9, mode="reflect")
    windows = {tuple(reference[start : start + 4]) for start in range(19)}
    assert {tuple(row) for row in rows.tolist()} == windows
    assert (columns == 0).all()


def test_flips_come_as_often_as_asked(draws: Draws) -> None:
    assert flips(ImageAugmentation(), draws).mean() == pytest.approx(0.5, abs=0.03)
    assert flips(ImageAugmentation(flip_probability=1), draws).all()


def test_resize_averages_and_keeps_what_fits() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_crop(image, Box(0, 0, 32, 32), 32), image)
    np.testing.assert_array_equal(resize_crop(image, Box(4, 6, 8, 8), 8), image[4:12, 6:14])
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, axis=0)
    small = resize_crop(np.repeat(ramp, 3, axis=2), Box(0, 0, 64, 64), 16)
    blocks = ramp[0, :, 0].reshape(16, 4).mean(axis=1)
    np.testing.assert_allclose(small[5, 2:-2, 0], blocks[2:-2], atol=1.5)


def test_colour_is_left_alone_by_default(draws: Draws) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    assert recolour(images, ImageAugmentation(), draws[:5]) is images


def test_brightness_and_saturation(draws: Draws) -> None:
    images = np.random.default_rng(0).integers(0, 100, (50, 8, 8, 3), dtype=np.uint8)
    bright = recolour(images, ImageAugmentation(brightness=0.5), draws[:50])
    factors = bright.mean(axis=(1, 2, 3)) / images.mean(axis=(1, 2, 3))
    assert factors.min() > 0.49
    assert factors.max() < 1.51
    assert factors.std() == pytest.approx(1 / np.sqrt(12), abs=0.06)

    pale = recolour(images, ImageAugmentation(saturation=0.9), draws[:50])
    grey = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(pale @ grey, images @ grey, atol=25)
    spread = np.ptp(pale.astype(float), axis=3).mean() / np.ptp(images.astype(float), axis=3).mean()
    assert 0.5 < spread < 1.3


def test_contrast_keeps_the_mean_grey(draws: Draws) -> None:
    images = np.random.default_rng(0).integers(80, 160, (20, 8, 8, 3), dtype=np.uint8)
    changed = recolour(images, ImageAugmentation(contrast=0.5), draws[:20])
    grey = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(
        (changed @ grey).mean(axis=(1, 2)), (images @ grey).mean(axis=(1, 2)), atol=0.6
    )
    factors = changed.std(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3))
    assert factors.min() > 0.45
    assert factors.max() < 1.55


def test_erasing_blanks_a_square_in_a_copy(draws: Draws) -> None:
    images = np.full((200, 20, 20, 3), 7, dtype=np.uint8)
    erased = recolour(images, ImageAugmentation(erase_probability=0.5), draws[:200])
    assert (images == 7).all()
    shares = (erased[..., 0] != 7).mean(axis=(1, 2))
    assert (shares > 0).mean() == pytest.approx(0.5, abs=0.1)
    assert shares.max() <= 0.37
    assert set(np.unique(erased)) == {7, 114}


def test_pillow_takes_the_arrays_it_is_given() -> None:
    # Rows of a larger array are not contiguous.
    image = np.arange(12 * 12 * 3, dtype=np.uint8).reshape(12, 12, 3)[2:8, 3:9]
    expected = Image.fromarray(np.ascontiguousarray(image)).resize(
        (3, 3), Image.Resampling.BILINEAR
    )
    np.testing.assert_array_equal(resize_crop(image, Box(0, 0, 6, 6), 3), np.asarray(expected))
