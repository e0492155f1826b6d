import json
from importlib.metadata import PackageNotFoundError

import pytest
from pydantic import ValidationError

from voxlift.core.errors import WeightsError
from voxlift.core.preprocessing import Preprocessing
from voxlift.weights import header as header_module
from voxlift.weights.header import (
    FORMAT_VERSION,
    HeadDescription,
    WeightHeader,
    installed_version,
    parse_header,
)

# A header as version 1 writes it, kept as text: files of this version must stay readable.
VERSION_1 = """
{"architecture": {"in_channels": 1, "name": "resnet18", "ndim": 3, "norm": "batch",
  "num_slices": null, "shortcut": "B", "stem_kernel": 3, "width": 16},
 "citation": "arXiv 2201.01426", "format_version": 1,
 "geometry": {"dilations": [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]], "pool_stride": null,
  "stage_strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [1, 2, 2]], "stem_stride": [1, 1, 1]},
 "head": {"class_names": ["benign", "malignant"], "num_classes": 2, "settings": {"fold": 3},
  "task": "classify", "threshold": 0.25},
 "licence": "Apache-2.0",
 "preprocessing": {"in_channels": 1, "intensity": "window", "mean": 0.5, "orientation":
  "canonical", "percentiles": null, "size_voxels": [48, 48, 48], "spacing_mm": [1.0, 1.0, 1.0],
  "std": 0.25, "unit": "HU", "window": [-1000.0, 400.0]},
 "provenance": {"accuracy": 0.82, "data": "CIFAR-10", "seed": 0}, "voxlift_version": "0.1.0"}
"""


def test_a_file_of_version_1_is_understood() -> None:
    header = parse_header(VERSION_1, where="old.safetensors")
    assert header.format_version == 1
    assert (header.architecture.name, header.architecture.width) == ("resnet18", 16)
    assert header.geometry.strides[-1] == (1, 8, 8)
    assert header.preprocessing is not None
    assert header.preprocessing.window == (-1000.0, 400.0)
    assert header.head is not None
    assert header.head.class_names == ("benign", "malignant")
    assert header.head.threshold == 0.25
    assert header.provenance["accuracy"] == 0.82
    assert header.licence == "Apache-2.0"


def test_a_header_survives_its_text(header: WeightHeader) -> None:
    full = header.model_copy(
        update={
            "preprocessing": Preprocessing.for_photographs(32),
            "head": HeadDescription(task="pretrain", num_classes=10),
            "provenance": {"steps": 3, "nested": {"a": [1, None, "x"]}},
        }
    )
    assert parse_header(full.to_json(), where="x") == full
    assert full.to_json() == full.model_copy().to_json()


def test_a_newer_version_asks_for_an_update(header: WeightHeader) -> None:
    fields = json.loads(header.to_json()) | {"format_version": FORMAT_VERSION + 1, "new": 1}
    with pytest.raises(WeightsError, match=r"new\.safetensors has a header of version 4.*Update"):
        parse_header(json.dumps(fields), where="new.safetensors")


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match="is no JSON"):
        parse_header(text, where="x")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architecture": {"name": "resnet18", "depth": 3}}, "architecture.depth"),
        ({"architecture": {"name": "resnet18", "width": 0}}, "architecture.width"),
        ({"geometry": {"stem_stride": [0, 1, 1]}}, "geometry"),
        ({"geometry": None}, "geometry"),
        ({"surprise": 1}, "surprise"),
        ({"format_version": "one"}, "format_version"),
    ],
)
def test_a_header_that_does_not_hold_together_is_refused(
    header: WeightHeader, change: dict[str, object], named: str
) -> None:
    fields = json.loads(header.to_json()) | change
    with pytest.raises(WeightsError, match=named):
        parse_header(json.dumps(fields), where="x")


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_json_that_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match="does not hold together"):
        parse_header(text, where="x")


def test_a_head_has_a_name_for_each_class_or_none() -> None:
    assert HeadDescription(task="classify", num_classes=3).class_names == ()
    with pytest.raises(ValidationError, match="3 classes and 2 class names"):
        HeadDescription(task="classify", num_classes=3, class_names=("a", "b"))


def test_the_version_is_written_down(header: WeightHeader, monkeypatch: pytest.MonkeyPatch) -> None:
    assert header.voxlift_version == installed_version() != "unknown"

    def fail(_: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(header_module, "version", fail)
    assert installed_version() == "unknown"
