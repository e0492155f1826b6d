import numpy as np
import pytest
from matplotlib.figure import Figure

from voxlift.figures.sections import (
    Block,
    Layer,
    cut_sections,
    draw_blocks,
    sampled_window,
    shortened,
)


def test_sections_are_the_planes_through_the_point() -> None:
    volume = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    mask = np.zeros(volume.shape, dtype=np.uint8)
    mask[1, 2, 3] = 7
    layers = [Layer(mask, (7,), "red"), Layer(mask, (8,), "blue")]
    axial, coronal, sagittal = cut_sections(
        volume, (1, 2, 3), spacing_mm=(3.0, 0.5, 2.0), layers=layers
    )
    assert np.array_equal(axial.picture, volume[1])
    assert np.array_equal(coronal.picture, volume[::-1, 2])
    assert np.array_equal(sagittal.picture, volume[::-1, :, 3])
    assert [s.position_mm for s in (axial, coronal, sagittal)] == [3.0, 1.0, 6.0]
    assert [s.size_mm for s in (axial, coronal, sagittal)] == [(3, 10), (12, 10), (12, 3)]
    # Depth is drawn from its end: slice 1 of 4 is the third row.
    for section, voxel in ((axial, (2, 3)), (coronal, (2, 3)), (sagittal, (2, 2))):
        ((outline, layer),) = section.outlines
        assert np.argwhere(outline).tolist() == [list(voxel)]
        assert layer.colour == "red"


def test_a_detail_is_measured_like_the_whole() -> None:
    volume = np.zeros((10, 20, 30))
    _, coronal, sagittal = cut_sections(
        volume,
        (3, 5, 7),
        spacing_mm=(2.0, 1.0, 1.0),
        layers=[],
        first=(2, 4, 5),
        last=(4, 9, 8),
    )
    # Slices 4 to 2 are the rows 5 to 7 from above.
    assert coronal.view_mm == (10.0, 16.0, 5.0, 9.0)
    assert sagittal.view_mm == (10.0, 16.0, 4.0, 10.0)


def test_planes_fit_their_room_and_narrow_ones_their_caption() -> None:
    def block(size: tuple[int, int, int]) -> Block:
        sections = cut_sections(np.zeros(size), (0, 0, 0), spacing_mm=(1, 1, 1), layers=[])
        return Block("a", "", sections, (0, 1))

    wide = block((10, 50, 40))
    scale = wide.inches_per_mm(7.0, 10.0)
    assert (40 + 40 + 50) * scale == pytest.approx(7 - 2 * 0.08)
    assert block((1000, 50, 40)).inches_per_mm(7.0, 3.0) == pytest.approx(3 / 1000)
    # The sagittal plane is narrow and takes the room of its caption all the same.
    narrow = block((10, 2, 60)).inches_per_mm(7.0, 10.0)
    assert 2 * 60 * narrow + 1.08 == pytest.approx(7 - 2 * 0.08)


def test_limits_come_from_a_sample_without_what_is_not_finite() -> None:
    generator = np.random.default_rng(0)
    volume = generator.uniform(0, 1000, size=(150, 120, 120)).astype(np.float32)
    volume[::2, 0] = np.nan
    volume[0, 0, 0] = np.inf
    low, high = sampled_window(volume)
    assert low == pytest.approx(5, abs=1)
    assert high == pytest.approx(995, abs=1)
    assert sampled_window(np.full((2, 2, 2), np.nan)) == (0, 1)
    low, high = sampled_window(np.full((2, 2, 2), 7))
    assert low == 7 < high


def test_the_middle_of_long_names_is_left_out() -> None:
    assert shortened("hippocampus_001", 38) == "hippocampus_001"
    short = shortened("a" * 50 + "z" * 50, 38)
    assert len(short) == 38
    assert short.startswith("aaa")
    assert short.endswith("zzz")


def test_the_sides_of_the_patient_are_named_where_they_are() -> None:
    # In canonical order the last slice is the head, the last row the back, the last column left.
    volume = np.zeros((40, 50, 60), dtype=np.float32)
    volume[-1], volume[:, -1], volume[:, :, -1] = 1, 2, 3
    sections = cut_sections(volume, (20, 25, 30), spacing_mm=(1, 1, 1), layers=[])
    figure = Figure()
    draw_blocks(
        figure,
        [Block("organ", "4 ml", sections, (0, 3))],
        blocks_a_row=1,
        block_inches=7,
        most_inches=4,
        above_inches=0.1,
        below_inches=0.1,
    )
    axial, coronal, sagittal = figure.axes
    assert [text.get_text() for text in axial.texts[-1:]] == ["20 mm"]
    for axes, (top, bottom, left, right) in (
        (axial, "APRL"),
        (coronal, "HFRL"),
        (sagittal, "HFAP"),
    ):
        places = {text.get_text(): text.get_position() for text in axes.texts[:4]}
        assert places[top][1] > 0.9
        assert places[bottom][1] < 0.1
        assert places[left][0] < 0.1
        assert places[right][0] > 0.9
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    # Back below, head above; left, and in the sagittal plane the back, on the right.
    assert (pictures[0][-1, 1:-1] == 2).all()
    assert (pictures[0][:, -1] == 3).all()
    assert (pictures[1][0, 1:-1] == 1).all()
    assert (pictures[2][0, 1:-1] == 1).all()
    assert (pictures[2][:, -1] == 2).all()
    # Rows run downwards and columns to the right.
    for axes in figure.axes:
        (left_mm, right_mm), (bottom_mm, top_mm) = axes.get_xlim(), axes.get_ylim()
        assert left_mm == top_mm == 0
        assert min(right_mm, bottom_mm) > 0


def test_small_planes_have_no_letters() -> None:
    sections = cut_sections(np.zeros((2, 50, 50)), (0, 9, 9), spacing_mm=(1, 1, 1), layers=[])
    figure = Figure()
    draw_blocks(
        figure,
        [Block("organ", "", sections, (0, 1))],
        blocks_a_row=1,
        block_inches=7,
        most_inches=4,
        above_inches=0,
        below_inches=0,
    )
    assert [text.get_text() for text in figure.axes[1].texts] == ["R", "L"]
