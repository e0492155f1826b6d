"""nnU-Net's raw layout: one file a channel."""

import logging
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.dataset_json import DatasetDescription
from voxlift.data.nnunet_raw import is_nnunet_raw, read_nnunet_raw

LABELS = LabelScheme(names=("background", "liver"), values=(0, 1))


def save(folder: Path, images: str, labels: str) -> Path:
    for name, files in (("imagesTr", images), ("labelsTr", labels)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file in files.split():
            np.save(folder / name / f"{file}.npy", np.zeros((2, 2, 2)))
    return folder


def test_channels_are_joined_to_cases(tmp_path: Path) -> None:
    folder = save(tmp_path, "p_1_0001 p_1_0000 p_2_0000 p_2_0001 ._p_1_0000", "p_2 p_1")
    listing = read_nnunet_raw(folder)
    assert [case.id for case in listing.cases] == ["p_1", "p_2"]
    assert listing.cases[0].images == tuple(
        folder / "imagesTr" / f"p_1_000{number}.npy" for number in (0, 1)
    )
    assert listing.cases[0].label == folder / "labelsTr" / "p_1.npy"
    assert len({case.group for case in listing.cases}) == 2
    assert (listing.labels, listing.channel_names) == (None, None)


def test_the_description_names_channels_classes_and_the_ending(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(tmp_path, "a_0000 a_0001", "a")
    (folder / "imagesTr" / "a_0000.nrrd").write_text("the same in another format")
    description = DatasetDescription(
        folder / "dataset.json", LABELS, ("T1", "T2"), cases=(), file_ending=".npy"
    )
    with caplog.at_level(logging.WARNING):
        listing = read_nnunet_raw(folder, description)
    assert (listing.labels, listing.channel_names) == (LABELS, ("T1", "T2"))
    assert "such as a_0000.nrrd" in caplog.text


def test_everything_that_is_missing_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save(tmp_path, "a_0000 a_0001 b_0000 c_0000 c_0001 d_0000 d_0002 scan", "a b d lonely")
    description = DatasetDescription(folder / "dataset.json", LABELS, ("T1", "T2"), (), None)
    with pytest.raises(DataError) as caught:
        read_nnunet_raw(folder, description)
    for text in (
        "file of imagesTr without a channel number such as _0000 (1): scan.npy",
        "case whose channels are not 0 to 1 (2): b (0), d (0, 2)",
        "image without mask (1): c",
        "mask without image (1): lonely",
        "--skip-bad",
    ):
        assert text in str(caught.value)
    with caplog.at_level(logging.WARNING):
        listing = read_nnunet_raw(folder, description, skip_bad=True)
    assert [case.id for case in listing.cases] == ["a"]
    assert caplog.text.count("skipped: ") == 5


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        ("a_0000 b_0000", "a b", True),
        ("a_0000 a_0001", "a", True),
        ("a_0000 b_0000", "a_0000 b_0000", False),
        ("a b", "a b", False),
        ("img_0001 img_0002", "label_0001 label_0002", False),
    ],
)
def test_recognised_by_names(tmp_path: Path, images: str, labels: str, *, expected: bool) -> None:
    assert is_nnunet_raw(save(tmp_path, images, labels)) is expected


def test_other_folders_are_not_meant(tmp_path: Path) -> None:
    assert not is_nnunet_raw(tmp_path)
