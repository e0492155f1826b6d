"""Each layout is recognised and read to its voxels; real data sets as they were found."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.segmentation_cases import SegmentationCases
from voxlift.data.segmentation_source import open_segmentation
from voxlift.data.volume import Volume
from voxlift.data.volumes import write_volume

SIZE = (2, 3, 4)
NAMED = {"labels": {"0": "background", "1": "front", "2": "back"}, "modality": {"0": "MRI"}}


def image(number: int) -> Volume:
    array = np.random.default_rng(number).integers(0, 100, SIZE).astype(np.int16)
    return Volume(array, spacing_mm=(2.0, 1.0, 1.0))


def mask() -> Volume:
    array = np.zeros(SIZE, dtype=np.uint8)
    array[0, 0, 1:3], array[1, 1, 1] = 1, 2
    return Volume(array, spacing_mm=(2.0, 1.0, 1.0))


def layout(folder: Path, images: str, labels: str, *, channels: int = 0) -> Path:
    """Two cases; with `channels` a file for each of them."""
    for number in range(2):
        name = f"case_{number}"
        write_volume(folder / labels / f"{name}.nii.gz", mask())
        for channel in range(max(channels, 1)):
            suffix = f"_{channel:04d}" if channels else ""
            path = folder / images / f"{name}{suffix}.nii.gz"
            write_volume(path, image(10 * number + channel))
    (folder / images / "._case_0.nii.gz").write_bytes(b"not a volume")
    return folder


def describe(folder: Path, **content: Any) -> Path:
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def training(count: int = 2) -> list[dict[str, str]]:
    return [
        {part: f"./{part}sTr/case_{n}.nii.gz" for part in ("image", "label")} for n in range(count)
    ]


def check(cases: SegmentationCases, *, classes: tuple[str, ...], channels: int = 1) -> None:
    assert [case.id for case in cases.cases] == ["case_0", "case_1"]
    assert cases.labels.names == ("background", *classes)
    assert len(cases.channel_names) == channels
    for index in range(2):
        read = cases.read_image(index)
        expected = [image(10 * index + channel).array for channel in range(channels)]
        assert all(np.array_equal(c.array, e) for c, e in zip(read, expected, strict=True))
        assert np.array_equal(cases.read_label(index, like=read[0]).array, mask().array)
        assert cases.facts[index].class_voxels == (21, 2, 1)


def test_decathlon(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = describe(layout(tmp_path, "imagesTr", "labelsTr"), **NAMED, training=training())
    (folder / "imagesTs").mkdir()
    with caplog.at_level(logging.INFO):
        cases = open_segmentation(str(folder))
    check(cases, classes=("front", "back"))
    assert cases.channel_names == ("MRI",)
    assert "imagesTs have no masks and are left out" in caplog.text
    assert "2 cases in 2 groups; channels MRI; classes background (0), front (1)" in caplog.text


def write_four_dimensional(path: Path, *volumes: Volume) -> None:
    """Write channels as the Decathlon does, on the grid of the first."""
    import nibabel

    array = np.stack([volume.array.transpose(2, 1, 0) for volume in volumes], axis=-1)
    # NIfTI's x and y grow to the other sides.
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 2.0, 1.0])), path)


def test_decathlon_with_channels_in_one_file(tmp_path: Path) -> None:
    folder = layout(tmp_path, "imagesTr", "labelsTr")
    for number in range(2):
        path = folder / "imagesTr" / f"case_{number}.nii.gz"
        write_four_dimensional(path, image(10 * number), image(10 * number + 1))
    named = {**NAMED, "modality": {"0": "T2", "1": "ADC"}}
    cases = open_segmentation(describe(folder, **named, training=training()))
    check(cases, classes=("front", "back"), channels=2)
    assert cases.channel_names == ("T2", "ADC")
    with pytest.raises(
        DataError, match=r"case_0 has 2 channel\(s\), but the data set has 1 \(MRI\)"
    ):
        open_segmentation(describe(folder, **NAMED, training=training()))


def test_a_mask_of_four_dimensions_is_refused(tmp_path: Path) -> None:
    folder = layout(tmp_path, "images", "labels")
    write_four_dimensional(folder / "labels" / "case_1.nii.gz", mask(), mask())
    with pytest.raises(DataError, match=r"labels/case_1\.nii\.gz.*expected three dim"):
        open_segmentation(folder)


def test_decathlon_lists_under_another_name(tmp_path: Path) -> None:
    content = {**NAMED, "training": training(1), "validation": training()[1:]}
    path = layout(tmp_path, "imagesTr", "labelsTr") / "fold_0.json"
    path.write_text(json.dumps(content))
    cases = open_segmentation(path)
    check(cases, classes=("front", "back"))
    assert cases.splits == ("train", "val")


def test_description_without_cases(tmp_path: Path) -> None:
    folder = describe(layout(tmp_path, "imagesTr", "labelsTr"), **NAMED)
    check(open_segmentation(folder), classes=("front", "back"))


def test_decathlon_without_description(tmp_path: Path) -> None:
    folder = layout(tmp_path, "imagesTr", "labelsTr")
    check(open_segmentation(folder), classes=("class 1", "class 2"))
    check(open_segmentation(folder, class_names=("a", "b")), classes=("a", "b"))


def test_classes_that_a_model_knows_are_taken_where_the_data_says_nothing(tmp_path: Path) -> None:
    folder = layout(tmp_path, "imagesTr", "labelsTr")
    known = LabelScheme(names=("background", "a", "b", "c"), values=(0, 1, 2, 3))
    assert open_segmentation(folder, labels=known).labels == known
    describe(folder, **NAMED)
    assert open_segmentation(folder, labels=known).labels.names[1:] == ("front", "back")


@pytest.mark.parametrize("version", [1, 2])
def test_nnunet(tmp_path: Path, version: int, caplog: pytest.LogCaptureFixture) -> None:
    folder = layout(tmp_path, "imagesTr", "labelsTr", channels=2)
    (folder / "labelsTr" / "notes.txt").write_text("x")
    if version == 1:
        modality = {"modality": {"0": "T1", "1": "T2"}}
        describe(folder, labels=NAMED["labels"], **modality, training=training())
    else:
        describe(
            folder,
            channel_names={"0": "T1", "1": "T2"},
            labels={"background": 0, "front": 1, "back": 2},
            file_ending=".nii.gz",
            numTraining=2,
        )
    with caplog.at_level(logging.WARNING):
        cases = open_segmentation(folder)
    check(cases, classes=("front", "back"), channels=2)
    assert cases.channel_names == ("T1", "T2")
    assert caplog.text.count("such as notes.txt") == 1


def test_nnunet_without_description(tmp_path: Path) -> None:
    folder = layout(tmp_path, "imagesTr", "labelsTr", channels=2)
    check(open_segmentation(folder), classes=("class 1", "class 2"), channels=2)


def test_nnunet_regions_and_regions_by_option(tmp_path: Path) -> None:
    folder = layout(tmp_path, "imagesTr", "labelsTr", channels=1)
    regions = {"whole": [1, 2], "back": [2]}
    by_option = open_segmentation(folder, regions=regions).labels
    describe(
        folder,
        channel_names={"0": "CT"},
        labels={"background": 0, **regions},
        regions_class_order=[1, 2],
        file_ending=".nii.gz",
    )
    stated = open_segmentation(folder).labels
    assert stated.regions == by_option.regions
    assert stated.structures == ("whole", "back")


def test_two_folders(tmp_path: Path) -> None:
    folder = layout(tmp_path, "images", "masks")
    check(open_segmentation(folder), classes=("class 1", "class 2"))
    pair = f"{folder / 'images'}::{folder / 'masks'}"
    check(open_segmentation(pair), classes=("class 1", "class 2"))
    with pytest.raises(DataError, match=r"does not name two folders.*gone is none"):
        open_segmentation(f"{folder / 'images'}::gone")
    (folder / "cases.csv").write_text("name,patient_id\ncase_0,x\ncase_1,x\n")
    assert len(set(open_segmentation(folder).groups)) == 1


def test_dicom_folders_as_images(tmp_path: Path) -> None:
    import SimpleITK

    series = tmp_path / "images" / "case_0"
    series.mkdir(parents=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number in range(SIZE[0]):
        slice_ = SimpleITK.GetImageFromArray(image(0).array[number][None])
        slice_.SetSpacing((1.0, 1.0, 2.0))
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.3.4.{number}",
            "0008|0060": "CT",
            "0020|000d": "1.2.3",
            "0020|000e": "1.2.3.4",
            "0020|0013": str(number),
            "0020|0032": f"0\\0\\{2 * number}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            slice_.SetMetaData(tag, value)
        writer.SetFileName(str(series / f"{number}.dcm"))
        writer.Execute(slice_)
    write_volume(tmp_path / "labels" / "case_0_seg.nii.gz", mask())
    cases = open_segmentation(tmp_path)
    assert np.array_equal(cases.read_image(0)[0].array, image(0).array)


def test_manifest(tmp_path: Path) -> None:
    folder = layout(tmp_path, "a", "b", channels=2)
    rows = [f"a/case_{n}_0000.nii.gz,a/case_{n}_0001.nii.gz,b/case_{n}.nii.gz" for n in range(2)]
    lines = ["image_t1,image_t2,label,id", *(f"{row},case_{n}" for n, row in enumerate(rows))]
    (folder / "list.csv").write_text("\n".join(lines))
    cases = open_segmentation(folder / "list.csv")
    check(cases, classes=("class 1", "class 2"), channels=2)
    assert cases.channel_names == ("t1", "t2")


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone is not there"):
        open_segmentation(tmp_path / "gone")
    for name in ("file.txt", "folder"):
        path = tmp_path / name
        path.mkdir() if name == "folder" else path.write_text("x")
        with pytest.raises(DataError, match=r"is no data set for segmentation.*imagesTr.*\.csv"):
            open_segmentation(path)


@pytest.mark.parametrize(
    ("end", "message"), [(30, "damaged or cut off"), (-3, "damaged or cut off"), (0, "is empty")]
)
def test_damaged_files_stop_the_run_or_are_skipped(
    tmp_path: Path, end: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = layout(tmp_path, "images", "labels")
    path = folder / "labels" / "case_1.nii.gz"
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(DataError, match=rf"case_1\.nii\.gz.*{message}.*--skip-bad"):
        open_segmentation(folder)
    with caplog.at_level(logging.WARNING):
        cases = open_segmentation(folder, skip_bad=True)
    assert [case.id for case in cases.cases] == ["case_0"]
    assert "skipped: " in caplog.text


def test_names_beyond_ascii(tmp_path: Path) -> None:
    folder = layout(tmp_path / "Übung 脳", "images", "labels")
    check(open_segmentation(folder), classes=("class 1", "class 2"))


@pytest.mark.data
def test_hippocampus_names_the_three_files_that_stand_alone(data_folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_segmentation(data_folder / "hippocampus")
    assert "image without mask (1): hippocampus_118" in str(caught.value)
    assert "mask without image (2): hippocampus_010, hippocampus_281" in str(caught.value)
    assert "--skip-bad" in str(caught.value)


@pytest.mark.data
def test_hippocampus_goes_on_with_200_cases(
    data_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = time.perf_counter()
    with caplog.at_level(logging.WARNING):
        cases = open_segmentation(
            data_folder / "hippocampus", skip_bad=True, class_names=("anterior", "posterior")
        )
    # A third of this on one idle core; bounds what would make each start of a run slow.
    assert time.perf_counter() - start < 20
    assert len(cases) == len(cases.facts) == 200
    assert len(set(cases.groups)) == 200
    assert cases.labels.names == ("background", "anterior", "posterior")
    assert cases.splits == (None,) * 200
    assert caplog.text.count("skipped: ") == 3
    assert not any(facts.is_empty for facts in cases.facts)


@pytest.mark.data
def test_lidc_nodules_come_with_patients_and_splits(
    data_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        cases = open_segmentation(data_folder / "lidc-nodules", class_names=("nodule",))
    assert len(cases) == 801
    assert len(set(cases.groups)) == 441
    assert [cases.splits.count(name) for name in ("train", "val", "test")] == [695, 106, 0]
    assert "patient_id and split of 801 cases taken from there" in caplog.text
    assert min(facts.lowest[0] for facts in cases.facts) < -500
