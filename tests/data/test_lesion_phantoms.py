"""Simulated lesions and vessels."""

import numpy as np
import pytest
from scipy import ndimage

from voxlift.core.errors import ConfigError
from voxlift.data.lesion_phantoms import (
    Lesion,
    LesionParameters,
    SimulatedSlices,
    simulate_slices,
)

CLEAN = LesionParameters(noise_hu=0.0, texture_hu=0.0, num_along=(0, 0), num_lesions=(1.0,))
SPACING = 0.8


def simulate(
    seed: int, *, parameters: LesionParameters = CLEAN, thickness_mm: float = 1.0
) -> SimulatedSlices:
    return simulate_slices(
        np.arange(-16.0, 17.0, 4.0),
        size=(128, 128),
        spacing_mm=SPACING,
        thickness_mm=thickness_mm,
        generator=np.random.default_rng(seed),
        parameters=parameters,
    )


def test_the_same_generator_gives_the_same_slices() -> None:
    one, same, other = (simulate(seed, parameters=LesionParameters()).array for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.dtype == np.float32


def pixel(lesion: Lesion) -> tuple[int, int]:
    y, x = (int(place / SPACING + 64) for place in lesion.centre[1:])
    return y, x


@pytest.mark.parametrize("seed", range(8))
def test_a_lesion_ends_and_a_vessel_goes_on(seed: int) -> None:
    upright = CLEAN.model_copy(update={"tilt_degrees": (0.0, 0.0), "bend": 0.0})
    simulated = simulate(seed, parameters=upright)
    first, key, last = simulated.array[[0, 4, 8]]
    np.testing.assert_allclose(first, last, atol=1e-3)
    # All that the key slice has beyond the others is the lesion.
    rows, columns = np.nonzero(np.abs(key - first) > 1)
    (lesion,) = simulated.lesions
    y, x = pixel(lesion)
    high, wide = (half / SPACING for half in lesion.extent(0.0))
    assert np.ptp(rows) + 1 == pytest.approx(2 * high, abs=2)
    assert np.ptp(columns) + 1 == pytest.approx(2 * wide, abs=2)
    assert abs((rows.min() + rows.max()) / 2 - y) <= 1
    assert abs((columns.min() + columns.max()) / 2 - x) <= 1


def test_boxes_enclose_the_section() -> None:
    lesion = Lesion(centre=(1.0, 5.0, -3.0), radii=(5.0, 8.0, 4.0), angle=0.6)
    along = np.linspace(0, 2 * np.pi, 2001)
    for depth in (0.0, 3.0, 5.5):
        one, other = lesion.section(depth)
        # The surface at this depth satisfies the ellipsoid's equation.
        assert (one / 8) ** 2 + ((depth - 1) / 5) ** 2 == pytest.approx(1)
        x = one * np.cos(along) * np.cos(0.6) - other * np.sin(along) * np.sin(0.6)
        y = one * np.cos(along) * np.sin(0.6) + other * np.sin(along) * np.cos(0.6)
        assert lesion.extent(depth) == pytest.approx((y.max(), x.max()), rel=1e-4)
    assert lesion.section(6.5) == (0, 0)


@pytest.mark.parametrize("thickness_mm", [1.0, 5.0])
def test_pixels_agree_with_the_ellipsoid(thickness_mm: float) -> None:
    parameters = CLEAN.model_copy(update={"num_through": (0, 0)})
    simulated = simulate(3, parameters=parameters, thickness_mm=thickness_mm)
    lesion = simulated.lesions[0]
    y, x = pixel(lesion)
    # Of the key slice, the area that differs from tissue, weighed by how much.
    tissue = simulated.array[0, y, x]
    plane = (simulated.array[4] - tissue) / (simulated.array[4, y, x] - tissue)
    high, wide = (round(half / SPACING) + 3 for half in lesion.extent(0.0))
    area = plane[y - high : y + high + 1, x - wide : x + wide + 1].sum() * SPACING**2
    sections = [
        np.prod(lesion.section(depth)) * np.pi
        for depth in (np.linspace(-1 / 3, 1 / 3, 3) * thickness_mm if thickness_mm > 2 else [0.0])
    ]
    assert area == pytest.approx(np.mean(sections), rel=0.06)


def test_vessels_look_like_lesions_in_one_slice() -> None:
    areas: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(100):
        simulated = simulate_slices(
            np.zeros(1),
            size=(128, 128),
            spacing_mm=SPACING,
            thickness_mm=1.0,
            generator=np.random.default_rng(seed),
            parameters=CLEAN,
        )
        plane = simulated.array[0]
        values, counts = np.unique(plane[plane != -1000].round(), return_counts=True)
        spots, count = ndimage.label(np.abs(plane - values[counts.argmax()]) > 5)
        # The wall reaches far beyond any spot.
        for spot in range(1, count + 1):
            area = float((spots == spot).sum())
            if area < 800:
                areas[spot == spots[pixel(simulated.lesions[0])]].append(area)
    assert len(areas[False]) > 2.5 * len(areas[True])
    assert np.mean(areas[True]) == pytest.approx(np.mean(areas[False]), rel=0.12)
    assert np.std(areas[True]) == pytest.approx(np.std(areas[False]), rel=0.25)


def test_lesions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="do not fit into images"):
        simulate_slices(
            np.zeros(1),
            size=(32, 32),
            spacing_mm=0.8,
            thickness_mm=1.0,
            generator=np.random.default_rng(0),
        )
