from pathlib import Path
from typing import Any

import pytest

from voxlift.core.errors import ConfigError
from voxlift.core.geometry import GEOMETRIES
from voxlift.inference.probe_controls import Candidate, plan_candidates
from voxlift.nets.factory import create_backbone
from voxlift.weights.file import WeightFile, read_weight_file
from voxlift.weights.save import save_weights

SMALL = GEOMETRIES["small"]
Files = dict[str, WeightFile]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Two networks that agree, a wider one, and one of a family with strides of its own."""
    made = {
        "a": create_backbone("resnet10", width=4, stem=3),
        "b": create_backbone("resnet10", width=4, stem=3, in_channels=2, geometry="volume"),
        "wide": create_backbone("resnet10", width=8, stem=3),
        "genesis": create_backbone("genesis", width=4),
    }
    return {
        name: read_weight_file(save_weights(network, tmp_path / f"{name}.safetensors"))
        for name, network in made.items()
    }


def plan(files: dict[str, WeightFile | None], **options: Any) -> tuple[Candidate, ...]:
    return plan_candidates(files, **{"geometry": SMALL, "proposed": True, **options})


def controls(found: tuple[Candidate, ...]) -> list[tuple[str, str | None]]:
    return [(each.name, each.control) for each in found]


def test_starts_that_agree_share_one_control(files: Files) -> None:
    found = plan({"a": files["a"], "scratch": None, "b": files["b"]})
    assert controls(found) == [("a", "scratch"), ("scratch", None), ("b", "scratch")]
    assert found[1].architecture == files["a"].header.architecture
    assert found[1].geometry == SMALL


def test_each_architecture_has_a_control_and_its_starts_behind_it(files: Files) -> None:
    found = plan({"scratch": None, "a": files["a"], "w": files["wide"], "b": files["b"]})
    narrow, wide = "scratch resnet10, width 4", "scratch resnet10, width 8"
    assert controls(found) == [
        (narrow, None),
        ("a", narrow),
        ("b", narrow),
        (wide, None),
        ("w", wide),
    ]
    assert found[3].architecture == files["wide"].header.architecture


def test_a_control_steps_as_its_start_does(files: Files) -> None:
    found = plan({"scratch": None, "a": files["a"], "g": files["genesis"]})
    assert controls(found) == [
        ("scratch resnet10", None),
        ("a", "scratch resnet10"),
        ("scratch genesis", None),
        ("g", "scratch genesis"),
    ]
    assert [each.geometry for each in found if each.file is None] == [
        SMALL,
        files["genesis"].header.geometry,
    ]
    assert not any(each.proposed for each in found if each.file is None)


def test_without_scratch_nothing_is_compared(files: Files) -> None:
    found = plan({"a": files["a"], "wide": files["wide"]})
    assert controls(found) == [("a", None), ("wide", None)]


def test_one_that_is_described_is_the_control_of_all(files: Files) -> None:
    found = plan({"scratch": None, "a": files["a"], "wide": files["wide"]}, width=6)
    assert controls(found) == [("scratch", None), ("a", "scratch"), ("wide", "scratch")]
    expected = files["a"].header.architecture.model_copy(update={"width": 6})
    assert found[0].architecture == expected
    with pytest.raises(ConfigError, match="Unknown backbone 'vgg'"):
        plan({"scratch": None}, backbone="vgg")


def test_scratch_alone_is_a_resnet18() -> None:
    (only,) = plan({"scratch": None})
    assert only.control is None
    assert only.architecture is not None
    assert only.architecture.name == "resnet18"


def test_names_of_controls_are_told_apart(files: Files) -> None:
    stems = {stem: create_backbone("resnet10", width=4, stem=stem).architecture for stem in (3, 5)}
    other = files["a"].header.model_copy(update={"architecture": stems[5]})
    five = WeightFile(files["a"].path, "", "voxlift", {}, other)
    found = plan({"scratch": None, "a": files["a"], "five": five})
    names = [each.name for each in found if each.file is None]
    assert names == [
        "scratch resnet10, width 4, small (1)",
        "scratch resnet10, width 4, small (2)",
    ]
    taken = plan({"scratch": None, "scratch resnet10": files["a"], "g": files["genesis"]})
    assert taken[0].name == "scratch resnet10, width 4"
