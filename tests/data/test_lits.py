"""The layout of LiTS: `volume-N` and `segmentation-N` side by side."""

import logging
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.segmentation_source import open_segmentation
from voxlift.data.volume import Volume
from voxlift.data.volumes import write_volume
from voxlift.recipes.segmentation import lits_liver

SIZE = (3, 4, 5)


def write_pair(folder: Path, number: int, *, suffix: str = ".nii", highest: int = 2) -> None:
    generator = np.random.default_rng(number)
    spacing_mm = (2.0, 1.0, 1.0)
    image = generator.integers(-1000, 1000, SIZE).astype(np.int16)
    mask = np.zeros(SIZE, np.uint8)
    mask[1, 1:3], mask[1, 1, 1] = 1, highest
    write_volume(folder / f"volume-{number}{suffix}", Volume(image, spacing_mm))
    write_volume(folder / f"segmentation-{number}{suffix}", Volume(mask, spacing_mm))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, suffix in ((0, ".nii"), (1, ".nii.gz"), (10, ".nii")):
        write_pair(tmp_path, number, suffix=suffix)
    return tmp_path


def test_each_volume_has_its_mask(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_volume(folder / "atlas.nii", Volume(np.zeros(SIZE, np.int16)))
    with caplog.at_level(logging.WARNING):
        cases = open_segmentation(folder)
    assert [case.id for case in cases.cases] == ["volume-0", "volume-1", "volume-10"]
    assert cases.labels.names == ("background", "liver", "tumour")
    for index, number in enumerate((0, 1, 10)):
        (image,) = cases.read_image(index)
        expected = np.random.default_rng(number).integers(-1000, 1000, SIZE)
        np.testing.assert_array_equal(image.array, expected)
        assert np.bincount(cases.read_label(index, like=image).array.ravel()).tolist() == [50, 9, 1]
    assert "1 other volumes are ignored, such as atlas.nii" in caplog.text


def test_patients_come_from_a_table_beside_the_files(folder: Path) -> None:
    (folder / "cases.csv").write_text(
        "name,patient_id\nvolume-0,a\nvolume-1.nii.gz,a\nvolume-10,b\n"
    )
    assert open_segmentation(folder).groups == ("a", "a", "b")


def test_what_stands_alone_is_refused_or_skipped(folder: Path) -> None:
    (folder / "segmentation-10.nii").rename(folder / "segmentation-11.nii")
    message = r"image without mask \(1\): volume-10; mask without image \(1\): segmentation-11"
    with pytest.raises(DataError, match=message):
        open_segmentation(folder)
    assert len(open_segmentation(folder, skip_bad=True)) == 2


def test_one_file_in_two_formats_is_refused(folder: Path) -> None:
    write_pair(folder, 0, suffix=".nii.gz")
    with pytest.raises(DataError, match=r"segmentation-0\.nii and segmentation-0\.nii\.gz"):
        open_segmentation(folder)


def test_values_outside_the_scheme_are_refused(folder: Path) -> None:
    write_pair(folder, 3, highest=3)
    with pytest.raises(
        DataError, match=r"case volume-3: the mask holds 3, which is no class .*2 t"
    ):
        open_segmentation(folder)


def test_the_recipe_takes_liver_and_tumour_as_liver(folder: Path) -> None:
    config = lits_liver()
    trained = open_segmentation(
        folder, class_names=config.class_names, regions=config.region_members
    )
    assert trained.labels.structures == ("liver",)
    (image,) = trained.read_image(0)
    (liver,) = trained.labels.structure_masks(trained.read_label(0, like=image).array)
    assert liver.sum() == 10
    assert np.array_equal(trained.labels.decide(liver[None].astype(np.float32)), liver)
    # A trained model brings its regions along to data that states the same values.
    assert open_segmentation(folder, labels=trained.labels).labels == trained.labels


def test_the_recipe_takes_masks_that_hold_the_liver_alone(tmp_path: Path) -> None:
    for number in range(2):
        write_pair(tmp_path / "in", number, highest=1)
        for kind in ("volume", "segmentation"):
            path = tmp_path / "in" / f"{kind}-{number}.nii"
            other = {"volume": "images", "segmentation": "labels"}[kind]
            (tmp_path / other).mkdir(exist_ok=True)
            path.rename(tmp_path / other / f"{number}.nii")
    config = lits_liver()
    cases = open_segmentation(
        tmp_path, class_names=config.class_names, regions=config.region_members
    )
    assert cases.labels.structures == ("liver",)


def test_other_classes_than_those_of_the_model_stay_the_data_sets_own(folder: Path) -> None:
    other = LabelScheme(names=("background", "liver"), values=(0, 1))
    assert open_segmentation(folder, labels=other).labels.values == (0, 1, 2)
