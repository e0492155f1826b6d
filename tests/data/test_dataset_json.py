"""What `dataset.json` says, as the Decathlon and both versions of nnU-Net write it."""

import json
from pathlib import Path
from typing import Any

import pytest

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import Region
from voxlift.data.dataset_json import DatasetDescription, ListedCase, read_dataset_json


def read(folder: Path, **content: Any) -> DatasetDescription:
    path = folder / "dataset.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return read_dataset_json(path)


def test_decathlon(tmp_path: Path) -> None:
    description = read(
        tmp_path,
        name="Prostate",
        modality={"1": "ADC", "0": "T2"},
        labels={"0": "background", "2": "TZ", "1": "PZ"},
        training=[{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        test=["./imagesTs/b.nii.gz"],
    )
    assert description.channel_names == ("T2", "ADC")
    assert description.labels is not None
    assert description.labels.names == ("background", "PZ", "TZ")
    assert description.labels.values == (0, 1, 2)
    assert description.cases == (ListedCase(("./imagesTr/a.nii.gz",), "./labelsTr/a.nii.gz"),)
    assert description.file_ending is None


def test_labels_of_one_name_and_a_background_of_another_name(tmp_path: Path) -> None:
    for labels in ({"0": "air", "1": "liver", "3": "liver"}, {"air": 0, "liver": 1, "liver 3": 3}):
        scheme = read(tmp_path, labels=labels).labels
        assert scheme is not None
        assert scheme.names == ("background", "liver", "liver 3")
        assert scheme.values == (0, 1, 3)


def test_nnunet_with_ignored_voxels_and_listed_files(tmp_path: Path) -> None:
    description = read(
        tmp_path,
        channel_names={"0": "CT", "1": "CT"},
        labels={"background": 0, "liver": 1, "ignore": 2},
        file_ending=".nii.gz",
        dataset={"p1": {"images": ["../a_0000.nii.gz", "../a_0001.nii.gz"], "label": "m.nii.gz"}},
    )
    assert description.channel_names == ("CT 0", "CT 1")
    assert description.labels is not None
    assert description.labels.names == ("background", "liver")
    assert description.labels.ignore_value == 2
    assert description.file_ending == ".nii.gz"
    assert description.cases == (
        ListedCase(("../a_0000.nii.gz", "../a_0001.nii.gz"), "m.nii.gz", name="p1"),
    )


def test_regions_as_in_brats(tmp_path: Path) -> None:
    scheme = read(
        tmp_path,
        labels={"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
        regions_class_order=[1, 2, 3],
    ).labels
    assert scheme is not None
    assert scheme.names == ("background", "class 1", "class 2", "enhancing")
    assert scheme.regions == (
        Region(name="whole", members=(1, 2, 3), value=1),
        Region(name="core", members=(2, 3), value=2),
        Region(name="enhancing", members=(3,), value=3),
    )


def test_training_and_validation_are_splits(tmp_path: Path) -> None:
    case = {"image": ["a", "b"], "label": "c"}
    description = read(tmp_path, training=[case, case], validation=[case])
    assert [listed.split for listed in description.cases] == ["train", "train", "val"]
    assert description.cases[0].images == ("a", "b")
    assert (description.labels, description.channel_names) == (None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": []}, r"the labels are \[\]; expected an object"),
        ({"labels": {"background": 0, "x": "one"}}, "label 'x' is 'one'; expected the number"),
        ({"labels": {"background": 0, "x": 1.5}}, "label 'x' is 1.5"),
        ({"labels": {"background": 0, "x": []}}, r"label 'x' is \[\]"),
        ({"labels": {"background": 0, "x": 1, "y": 1}}, "cannot be used.*once only"),
        ({"labels": {"background": 0, "x": -1}}, "cannot be used.*0 to 65535"),
        ({"labels": {"background": 0}}, "cannot be used"),
        ({"labels": {"background": 0, "x": [1, 2]}}, r"1 regions \(x\).*regions_class_order' is N"),
        (
            {"labels": {"background": 0, "x": [1, 2], "y": 2}, "regions_class_order": [1]},
            r"2 regions \(x, y\).*is \[1\]",
        ),
        (
            {"labels": {"background": 0, "x": [1, 2]}, "regions_class_order": ["a"]},
            "cannot be used.*valid integer",
        ),
        ({"modality": {"1": "CT"}}, "expected names by numbers from 0"),
        ({"modality": "CT"}, "the channels are 'CT'"),
        ({"training": {"a": "b"}}, "'training' is no list"),
        ({"training": ["a.nii.gz"]}, "a case is listed as 'a.nii.gz'; expected"),
        ({"training": [{"image": "a"}]}, "a case is listed as"),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, **content)
    assert str(tmp_path / "dataset.json") in str(caught.value)


def test_what_is_no_json_object(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    with pytest.raises(DataError, match="could not be read"):
        read_dataset_json(path)
    path.write_text("{")
    with pytest.raises(DataError, match="could not be read as JSON"):
        read_dataset_json(path)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match="could not be read as JSON"):
        read_dataset_json(path)
    path.write_text("[1]")
    with pytest.raises(DataError, match="no JSON object"):
        read_dataset_json(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"labels": ' + '{"a":' * 100_000,
        '{"labels": {"organ": 1e400}}',
        '{"labels": {"organ": [Infinity]}}',
        '{"labels": {"%s": "organ"}}' % ("1" * 5000),
    ],
)
def test_what_python_cannot_hold_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json"):
        read_dataset_json(path)
