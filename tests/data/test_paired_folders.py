"""Volumes in one folder, masks in another."""

import logging
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.paired_folders import find_pair, list_volumes, read_paired_folders


def save(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        np.save(folder / name, np.zeros((2, 2, 2)))
    return folder


@pytest.mark.parametrize(
    ("images", "labels"),
    [("imagesTr", "labelsTr"), ("images", "labels"), ("image", "mask"), ("Imgs", "Masks")],
)
def test_the_folders_are_found_by_their_names(tmp_path: Path, images: str, labels: str) -> None:
    for name in (images, labels, "imagesTs", "other"):
        (tmp_path / name).mkdir()
    assert find_pair(tmp_path) == (tmp_path / images, tmp_path / labels)


def test_folders_that_are_no_pair(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").write_text("a file")
    assert find_pair(tmp_path) is None
    for name in ("masks", "mask"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"masks and mask, which could each.*IMAGES::MASKS"):
        find_pair(tmp_path)
    with pytest.raises(DataError, match="could not be read"):
        find_pair(tmp_path / "gone")


def test_cases_are_those_with_image_and_mask(tmp_path: Path) -> None:
    images = save(tmp_path / "images", "b.npy", "a.npy", "._a.npy")
    labels = save(tmp_path / "labels", "a_seg.npy", "b_seg.npy", ".DS_Store.npy")
    listing = read_paired_folders(images, labels)
    assert [case.id for case in listing.cases] == ["a", "b"]
    assert [case.images for case in listing.cases] == [(images / "a.npy",), (images / "b.npy",)]
    assert [case.label for case in listing.cases] == [labels / "a_seg.npy", labels / "b_seg.npy"]
    assert len({case.group for case in listing.cases}) == 2
    assert (listing.labels, listing.channel_names) == (None, None)
    assert listing.origin == str(images)


def test_what_stands_alone_is_named_or_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = save(tmp_path / "images", "a.npy", "b.npy")
    labels = save(tmp_path / "labels", "b.npy", "c.npy", "d.npy")
    with pytest.raises(DataError) as caught:
        read_paired_folders(images, labels, origin="the set")
    assert "the set: image without mask (1): a; mask without image (2): c, d." in str(caught.value)
    assert "--skip-bad" in str(caught.value)
    with caplog.at_level(logging.WARNING):
        listing = read_paired_folders(images, labels, skip_bad=True)
    assert [case.id for case in listing.cases] == ["b"]
    assert caplog.text.count("skipped: ") == 3


def test_nothing_in_common_is_no_data_set_even_when_skipping(tmp_path: Path) -> None:
    images, labels = save(tmp_path / "images", "a.npy"), save(tmp_path / "labels", "b.npy")
    with pytest.raises(DataError, match="there is no volume with a mask"):
        read_paired_folders(images, labels, skip_bad=True)


def test_what_is_no_volume_is_ignored_aloud(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(tmp_path / "images", "a.npy")
    (folder / "notes.txt").write_text("x")
    (folder / "b.nrrd").write_text("x")
    with caplog.at_level(logging.WARNING):
        assert list(list_volumes(folder, ending=".npy")) == ["a"]
    assert "2 entries are no volumes and are ignored, such as b.nrrd" in caplog.text
    with pytest.raises(DataError, match=r"holds no volume.* and ends in \.mha \(3 other entries\)"):
        list_volumes(folder, ending=".mha")


def test_two_files_of_one_name(tmp_path: Path) -> None:
    folder = save(tmp_path / "images", "a.npy")
    (folder / "a.nrrd").write_text("x")
    with pytest.raises(DataError, match=r"a\.npy and a\.nrrd, which bear the same name"):
        list_volumes(folder)
