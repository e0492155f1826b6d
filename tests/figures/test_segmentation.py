import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.image import imread

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme, Region
from voxlift.figures.segmentation import (
    JudgedCase,
    plot_overview,
    plot_worst_cases,
    values_of_structures,
)

SPACING_MM = (2.0, 1.0, 0.8)
TWO = {"anterior": (1,), "posterior": (2,)}
ORANGE = (230, 159, 0)


def _case(size_voxels: tuple[int, int, int] = (20, 40, 50)) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and two boxes that make up one."""
    image = np.random.default_rng(0).normal(0, 100, size=size_voxels).astype(np.int16)
    mask = np.zeros(size_voxels, dtype=np.uint8)
    mask[5:15, 10:20, 15:40], mask[5:15, 20:30, 15:40] = 1, 2
    return image, mask


def _texts(path: Path) -> list[str]:
    """Read what is written in a picture: an SVG names each text in a comment."""
    return re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))


def _pixels(path: Path, colour: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    near: npt.NDArray[np.bool_] = np.less(
        np.abs(imread(path)[..., :3] * 255 - colour).max(axis=-1), 40
    )
    return near


def test_a_row_for_each_structure_with_positions(tmp_path: Path) -> None:
    image, mask = _case()
    path = plot_overview(
        image, mask, tmp_path / "a.svg", structures=TWO, spacing_mm=SPACING_MM, title="case 7"
    )
    texts = _texts(path)
    # Centres: slice 9.5, rows 14.5 and 24.5, column 27; of equally near voxels either is right.
    assert "case 7" in texts
    axial = [text for text in texts if text.startswith("axial")]
    coronal = [text for text in texts if text.startswith("coronal")]
    assert set(axial) <= {"axial, 18.0 mm", "axial, 20.0 mm"}
    assert len(axial) == 2
    assert coronal[0] in {"coronal, 14.0 mm", "coronal, 15.0 mm"}
    assert coronal[1] in {"coronal, 24.0 mm", "coronal, 25.0 mm"}
    assert texts.count("sagittal, 21.6 mm") == 2
    # 10 x 10 x 25 voxels of 1.6 mm3 each.
    assert texts.count("4 ml") == 2
    assert texts.count("anterior") == 2
    assert "prediction" not in texts


def test_pictures_are_true_to_the_spacing(tmp_path: Path) -> None:
    image, mask = _case()
    both = {"both": (1, 2)}
    path = plot_overview(image, mask, tmp_path / "a.png", structures=both, spacing_mm=SPACING_MM)
    outline = _pixels(path, ORANGE)
    # Below the planes there is the legend.
    outline[int(len(outline) * 0.85) :] = False
    columns = np.flatnonzero(outline.any(axis=0))
    parts = np.split(columns, np.flatnonzero(np.diff(columns) > 10) + 1)
    assert len(parts) == 3
    sizes = []
    for part in parts:
        rows = np.flatnonzero(outline[:, part[0] : part[-1] + 1].any(axis=1))
        sizes.append((np.ptp(rows) + 1, np.ptp(part) + 1))
    # The box is 20 mm in depth, height and width.
    assert np.array(sizes) == pytest.approx(np.full((3, 2), sizes[0][0]), rel=0.04)


def test_the_truth_is_drawn_too(tmp_path: Path) -> None:
    image, mask = _case()
    truth = np.roll(mask, 4, axis=1)
    path = plot_overview(
        image, mask, tmp_path / "a.svg", structures=TWO, spacing_mm=SPACING_MM, truth=truth
    )
    text = path.read_text(encoding="utf-8")
    assert "truth (white)" in text
    assert "stroke-dasharray" in text
    path = plot_overview(image, mask, tmp_path / "b.svg", structures=TWO, spacing_mm=SPACING_MM)
    bare = path.read_text(encoding="utf-8")
    assert "truth" not in bare
    assert "stroke-dasharray" not in bare


def test_what_was_missed_is_shown_where_it_is(tmp_path: Path) -> None:
    image, truth = _case()
    mask = np.where(truth == 2, 0, truth)
    path = plot_overview(
        image, mask, tmp_path / "a.svg", structures=TWO, spacing_mm=SPACING_MM, truth=truth
    )
    texts = _texts(path)
    assert "not found" in texts
    assert {"coronal, 24.0 mm", "coronal, 25.0 mm"} & set(texts)


def test_an_empty_mask_says_that_nothing_was_found(tmp_path: Path) -> None:
    image, mask = _case()
    empty = np.zeros_like(mask)
    path = plot_overview(image, empty, tmp_path / "a.svg", structures=TWO, spacing_mm=SPACING_MM)
    texts = _texts(path)
    assert "nothing found" in texts
    assert "axial, 20.0 mm" in texts
    picture = plot_overview(
        image, empty, tmp_path / "a.png", structures=TWO, spacing_mm=SPACING_MM, truth=empty
    )
    assert not _pixels(picture, ORANGE).any()


def test_of_many_structures_the_largest_are_shown(tmp_path: Path) -> None:
    image, mask = _case()
    mask[:] = 0
    structures = {f"organ {number}": (number,) for number in range(1, 10)}
    for number in range(1, 10):
        mask[2 : 2 + (number * 4) % 9 + 1, 10, 5 * number] = number
    texts = _texts(
        plot_overview(image, mask, tmp_path / "a.svg", structures=structures, spacing_mm=(1, 1, 1))
    )
    sizes = {f"organ {number}": (number * 4) % 9 + 1 for number in range(1, 10)}
    largest = set(sorted(sizes, key=lambda name: -sizes[name])[:6])
    assert {text for text in texts if re.fullmatch(r"organ \d", text)} == largest
    (note,) = [text for text in texts if "not shown" in text]
    assert note.startswith("3 smaller structures are not shown: organ")


def test_a_small_structure_is_shown_as_a_detail(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(60, 200, 200)).astype(np.float32)
    mask = np.zeros(image.shape, dtype=np.uint16)
    mask[30:34, 190:196, 100:106] = 300
    path = plot_overview(
        image, mask, tmp_path / "a.png", structures={"lesion": (300,)}, spacing_mm=(1, 1, 1)
    )
    outline = _pixels(path, ORANGE)
    outline[int(len(outline) * 0.8) :] = False
    left = outline[:, : outline.shape[1] // 3]
    # 6 mm of the 30 mm around, in a plane that is a third of 7 inches wide.
    width = np.ptp(np.flatnonzero(left.any(axis=0)))
    assert width == pytest.approx(6 / 30 * 7 / 3 * 150, rel=0.15)
    texts = _texts(
        plot_overview(
            image, mask, tmp_path / "a.svg", structures={"lesion": (300,)}, spacing_mm=(1, 1, 1)
        )
    )
    assert {"coronal, 192.0 mm", "coronal, 193.0 mm"} & set(texts)


def test_a_large_volume_is_not_copied(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(-1000, 1000, size=(160, 256, 256), dtype=np.int16)
    mask = np.zeros(image.shape, dtype=np.uint8)
    mask[40:120, 60:200, 60:200] = 1
    # What matplotlib makes once, such as its fonts, does not count.
    plot_overview(image[:9], mask[:9], tmp_path / "a.png", structures=TWO, spacing_mm=(1, 1, 1))
    tracemalloc.start()
    plot_overview(image, mask, tmp_path / "a.png", structures=TWO, spacing_mm=(1, 1, 1))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < image.size * 2


@pytest.mark.parametrize("size_voxels", [(1, 30, 30), (30, 1, 1), (1, 1, 1), (3, 400, 5)])
def test_any_size_is_drawn(tmp_path: Path, size_voxels: tuple[int, int, int]) -> None:
    mask = np.ones(size_voxels, dtype=bool)
    image = np.full(size_voxels, np.nan)
    title = "R\u00f6ntgen \u60a3\u8005 $x_1$ " + "very long " * 20
    plot_overview(
        image, mask, tmp_path / "a.png", structures={title: (1,)}, spacing_mm=(1, 1, 1), title=title
    )
    assert imread(tmp_path / "a.png").shape[1] == int((7 + 0.24) * 150)


@pytest.mark.parametrize(("number", "rows"), [(1, 1), (3, 3), (4, 2), (5, 3)])
def test_the_worst_cases_stand_in_rows(tmp_path: Path, number: int, rows: int) -> None:
    image, truth = _case()

    def cases() -> Iterator[JudgedCase]:
        for place in range(number):
            mask = np.roll(truth, 2 * place, axis=1)
            yield JudgedCase(f"case {place}", place / 10, image, mask, truth, SPACING_MM)

    texts = _texts(
        plot_worst_cases(cases(), tmp_path / "a.svg", structures=TWO, title="The worst cases")
    )
    for place in range(number):
        assert f"case {place}" in texts
        assert f"Dice {place / 10:.2f}" in texts
    assert sum(text.startswith("axial") for text in texts) == number
    assert {"prediction", "truth (white)", "anterior", "posterior"} <= set(texts)
    # The truth's centre does not move.
    assert len({text for text in texts if text.startswith("coronal")}) == 1
    picture = imread(plot_worst_cases(cases(), tmp_path / "a.png", structures=TWO))
    wide = number > 3
    assert picture.shape[1] == pytest.approx((2 * 4.3 + 0.48 if wide else 7.24) * 150, abs=2)
    assert picture.shape[0] / 150 == pytest.approx(0.7 + rows * (2.2 if wide else 3), rel=0.3)


def test_a_case_without_truth_is_cut_through_what_was_found(tmp_path: Path) -> None:
    image, mask = _case()
    empty = np.zeros_like(mask)
    found = JudgedCase("found", 0.0, image, np.where(mask == 2, 2, 0), empty, SPACING_MM)
    texts = _texts(plot_worst_cases([found], tmp_path / "a.svg", structures=TWO))
    assert {"coronal, 24.0 mm", "coronal, 25.0 mm"} & set(texts)
    nothing = JudgedCase("nothing", 0.0, image, empty, empty, SPACING_MM)
    texts = _texts(plot_worst_cases([nothing], tmp_path / "a.svg", structures=TWO))
    assert "coronal, 20.0 mm" in texts


def test_written_values_stand_for_structures() -> None:
    organs = LabelScheme(names=("background", "liver", "spleen"), values=(0, 6, 1))
    assert values_of_structures(organs) == {"liver": (6,), "spleen": (1,)}
    tumour = LabelScheme(
        names=("background", "oedema", "necrosis", "enhancing"),
        values=(0, 1, 2, 4),
        regions=(
            Region(name="whole", members=(1, 2, 3), value=1),
            Region(name="core", members=(2, 3), value=2),
            Region(name="enhancing", members=(3,), value=4),
        ),
    )
    assert values_of_structures(tumour) == {"whole": (1, 2, 4), "core": (2, 4), "enhancing": (4,)}
    # So a mask painted region over region is read back whole.
    probabilities = np.array([[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0.0]])
    painted = tumour.decide(probabilities)
    for row, values in zip(probabilities, values_of_structures(tumour).values(), strict=True):
        assert np.isin(painted, values).tolist() == (row > 0.5).tolist()


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    image, mask = _case()
    path = tmp_path / "a.png"
    with pytest.raises(DataError, match=r"\(20, 40, 50\) and its masks \[\(19, 40, 50\)\]"):
        plot_overview(image, mask[1:], path, structures=TWO, spacing_mm=SPACING_MM)
    with pytest.raises(DataError, match="one channel"):
        plot_overview(image[None], mask[None], path, structures=TWO, spacing_mm=SPACING_MM)
    with pytest.raises(DataError, match="whole numbers"):
        plot_overview(image, mask * 0.5, path, structures=TWO, spacing_mm=SPACING_MM)
    with pytest.raises(DataError, match="no case"):
        plot_worst_cases([], path, structures=TWO)
    assert not path.exists()
