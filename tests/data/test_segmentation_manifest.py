"""Manifests of images and masks: what is read, and each bad input with its row and remedy."""

import logging
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.segmentation_manifest import read_segmentation_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for patient in ("p1", "p2"):
        (tmp_path / patient).mkdir()
        for name in ("t1", "t2", "mask"):
            np.save(tmp_path / patient / f"{name}.npy", np.zeros((2, 2, 2)))
    return tmp_path


def write(folder: Path, *lines: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_reads_images_masks_ids_groups_and_splits(folder: Path) -> None:
    listing = read_segmentation_manifest(
        write(
            folder,
            "image,label,id,group,split",
            "p1/t1.npy,p1/mask.npy,one,Jane,Train",
            f"{folder}/p2/t1.npy,p2/mask.npy,two,Mary,validation",
        )
    )
    first, second = listing.cases
    assert (first.id, first.group, first.split) == ("one", "Jane", "train")
    assert (second.id, second.group, second.split) == ("two", "Mary", "val")
    assert first.images == (folder / "p1/t1.npy",)
    assert second.label == folder / "p2/mask.npy"
    assert listing.channel_names is None
    assert "Jane" not in repr(first)


@pytest.mark.parametrize(
    ("header", "names"),
    [("image_1,image_0", ("channel 0", "channel 1")), ("image_t2,image_t1", ("t2", "t1"))],
)
def test_several_columns_are_channels(folder: Path, header: str, names: tuple[str, ...]) -> None:
    path = write(folder, f"{header},label", "p1/t2.npy,p1/t1.npy,p1/mask.npy")
    listing = read_segmentation_manifest(path)
    assert listing.channel_names == names
    files = [image.name for image in listing.cases[0].images if isinstance(image, Path)]
    assert files == (["t1.npy", "t2.npy"] if "0" in header else ["t2.npy", "t1.npy"])


def test_one_cell_may_hold_all_channels(folder: Path) -> None:
    path = write(folder, "image,label", "p1/t1.npy; p1/t2.npy,p1/mask.npy")
    listing = read_segmentation_manifest(path)
    assert listing.cases[0].images == (folder / "p1/t1.npy", folder / "p1/t2.npy")


def test_without_ids_files_or_folders_name_the_cases(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["image,label,site", "p1/t1.npy,p1/mask.npy,x", "p2/t2.npy,p2/mask.npy,x"]
    with caplog.at_level(logging.WARNING):
        listing = read_segmentation_manifest(write(folder, *lines))
    assert [case.id for case in listing.cases] == ["t1", "t2"]
    assert len({case.group for case in listing.cases}) == 2
    assert "no column 'group'" in caplog.text
    assert "no meaning here: site" in caplog.text
    lines[2] = lines[2].replace("t2", "t1")
    listing = read_segmentation_manifest(write(folder, *lines))
    assert [case.id for case in listing.cases] == ["p1_t1", "p2_t1"]


ONE = "p1/t1.npy,p1/mask.npy"


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (["label,id", "a,b"], ["column 'image' is missing", "image,label[,id]"]),
        (["image,mask", ONE], ["column 'label' is missing", "found image, mask"]),
        (["image,label", ONE, "p2/t1.npy,"], ["row 3", "'label' is empty"]),
        (["image,label", ONE, "p2/t1.npy;,p2/mask.npy"], ["row 3", "'image' is empty"]),
        (
            ["image,label", ONE, "gone.npy,p2/mask.npy", "p2/t1.npy,gone2.npy"],
            ["not there", "(2): row 3: gone.npy, row 4: gone2.npy", "--skip-bad"],
        ),
        (["image,label", ONE, "p2/t1.npy,./p1/mask.npy"], ["row 3", "same file as in row 2"]),
        (["image,label", ONE, "p1/../p1/t1.npy,p2/mask.npy"], ["row 3", "same file as in row 2"]),
        (["image,label", "p1/t1.npy,p1/t1.npy"], ["row 2", "same file as in row 2"]),
        (["image,label", ONE, "p2/t1.npy;p2/t2.npy,p2/mask.npy"], ["row 3", "2 files of channels"]),
        (["image,label,id", f"{ONE},a/b"], ["row 2", "the id is 'a/b'"]),
        (["image,label,id", f"{ONE},"], ["row 2", "the id is ''"]),
        (["image,label,id", f"{ONE},a", "p2/t1.npy,p2/mask.npy,a"], ["case a is there twice"]),
        (["image,label,group", f"{ONE},"], ["row 2", "group is empty"]),
        (["image,label,split", f"{ONE},x"], ["row 2", "'x'", "train, val, test"]),
        (["image,label"], ["no rows"]),
        (["image,label,image", f"{ONE},x"], ["'image' is there twice"]),
    ],
)
def test_bad_input_names_the_row_and_the_remedy(
    folder: Path, lines: list[str], messages: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        read_segmentation_manifest(write(folder, *lines))
    for message in [str(folder / "manifest.csv"), *messages]:
        assert message in str(caught.value)


def test_a_group_in_two_splits_is_not_named(folder: Path) -> None:
    lines = [f"{ONE},Jane,train", "p2/t1.npy,p2/mask.npy,Jane,val"]
    with pytest.raises(DataError, match=r"row 3.*two splits.*row 2") as caught:
        read_segmentation_manifest(write(folder, "image,label,group,split", *lines))
    assert "Jane" not in str(caught.value)


def test_skip_bad_goes_on_without_missing_files(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(folder, "image,label", "gone.npy,p2/mask.npy", ONE)
    with caplog.at_level(logging.WARNING):
        assert [case.id for case in read_segmentation_manifest(path, skip_bad=True).cases] == ["t1"]
    assert "row 2: gone.npy" in caplog.text
    path = write(folder, "image,label", "gone.npy,p2/mask.npy")
    with pytest.raises(DataError, match="no row has all its files"):
        read_segmentation_manifest(path, skip_bad=True)
