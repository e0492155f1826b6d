"""The Decathlon's layout: the listed cases and nothing else."""

import logging
from pathlib import Path

import numpy as np
import pytest

from voxlift.core.errors import DataError
from voxlift.data.dataset_json import DatasetDescription, ListedCase
from voxlift.data.msd import read_msd


def save(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, np.zeros((2, 2, 2)))


def describe(folder: Path, *names: str) -> DatasetDescription:
    cases = [ListedCase((f"./imagesTr/{n}.npy",), f"./labelsTr/{n}.npy") for n in names]
    return DatasetDescription(folder / "dataset.json", None, ("MRI",), tuple(cases), None)


def test_listed_cases(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b", "a", "c", "._a"):
        save(tmp_path, f"imagesTr/{name}.npy", f"labelsTr/{name}.npy")
    with caplog.at_level(logging.WARNING):
        listing = read_msd(describe(tmp_path, "b", "a"))
    assert [case.id for case in listing.cases] == ["b", "a"]
    assert listing.cases[0].images == (tmp_path / "imagesTr/b.npy",)
    assert listing.cases[0].label == tmp_path / "labelsTr/b.npy"
    assert (listing.origin, listing.channel_names) == (str(tmp_path), ("MRI",))
    assert "does not list 1 of the masks that are there, such as c.npy" in caplog.text


def test_files_that_are_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, "imagesTr/a.npy", "imagesTr/b.npy", "labelsTr/b.npy", "labelsTr/c.npy")
    description = describe(tmp_path, "a", "b", "c", "d")
    with pytest.raises(DataError) as caught:
        read_msd(description)
    for text in (
        "image that is not there (2): ./imagesTr/c.npy, ./imagesTr/d.npy",
        "mask that is not there (2): ./labelsTr/a.npy, ./labelsTr/d.npy",
        "dataset.json",
        "--skip-bad",
    ):
        assert text in str(caught.value)
    with caplog.at_level(logging.WARNING):
        assert [case.id for case in read_msd(description, skip_bad=True).cases] == ["b"]
    assert "skipped: mask that is not there: ./labelsTr/d.npy" in caplog.text


def test_several_files_a_case_and_names(tmp_path: Path) -> None:
    save(tmp_path, "x/t1.npy", "x/t2.npy", "y/t1.npy", "y/t2.npy", "x/m.npy", "y/m.npy")
    cases = tuple(
        ListedCase((f"{n}/t1.npy", f"{n}/t2.npy"), f"{n}/m.npy", "val", name=n) for n in "xy"
    )
    listing = read_msd(DatasetDescription(tmp_path / "d.json", None, None, cases, None))
    assert [case.id for case in listing.cases] == ["x", "y"]
    assert listing.cases[1].images == (tmp_path / "y/t1.npy", tmp_path / "y/t2.npy")
    assert listing.cases[1].split == "val"


def test_a_case_listed_twice(tmp_path: Path) -> None:
    save(tmp_path, "imagesTr/a.npy", "labelsTr/a.npy")
    with pytest.raises(DataError, match="the case a is there twice"):
        read_msd(describe(tmp_path, "a", "a"))
    with pytest.raises(DataError, match="there is no volume with a mask"):
        read_msd(describe(tmp_path))
