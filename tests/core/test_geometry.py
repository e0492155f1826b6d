import itertools
import math
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import (
    AXIS_ORDERS,
    GEOMETRIES,
    ONES,
    Geometry,
    geometry_name,
    named_geometry,
    suggest_geometry,
)

Task = Literal["classify", "segment", "detect"]

entries = st.integers(1, 4)
triples = st.tuples(entries, entries, entries)
stages = st.tuples(triples, triples, triples, triples)
geometries = st.builds(
    Geometry,
    stem_stride=triples,
    pool_stride=st.none() | triples,
    stage_strides=stages,
    dilations=stages,
)


def works(geometry: Geometry, size: tuple[int, ...]) -> bool:
    """Walk through the layers one by one, as an independent check."""
    pool = [geometry.pool_stride] if geometry.pool_stride else []
    for stride in (geometry.stem_stride, *pool, *geometry.stage_strides):
        if any(s > 1 and n == 1 for n, s in zip(size, stride, strict=True)):
            return False
        size = tuple(math.ceil(n / s) for n, s in zip(size, stride, strict=True))
    return True


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        # Of the stem's map and the four stages', from the table of the design.
        ("pretrain", [(1, 2, 2), (1, 4, 4), (1, 8, 8), (1, 16, 16), (1, 32, 32)]),
        ("thumbnail", [(1, 1, 1), (1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8)]),
        ("volume", [(2, 2, 2), (4, 4, 4), (8, 8, 8), (16, 16, 16), (32, 32, 32)]),
        ("unet", [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8), (16, 16, 16)]),
        ("small", [(1, 1, 1), (1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8)]),
        ("nodule", [(1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2), (4, 4, 4)]),
        ("medicalnet", [(2, 2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8), (8, 8, 8)]),
    ],
)
def test_named_geometries(name: str, strides: list[tuple[int, int, int]]) -> None:
    geometry = named_geometry(name)
    assert list(geometry.strides) == strides
    assert geometry_name(geometry) == name
    assert named_geometry(geometry) is geometry
    dilations = [1, 1, 2, 4] if name == "medicalnet" else [1, 1, 1, 1]
    assert [dilation[0] for dilation in geometry.dilations] == dilations


def test_every_name_is_tested() -> None:
    assert set(GEOMETRIES) == {
        "pretrain",
        "thumbnail",
        "volume",
        "unet",
        "small",
        "nodule",
        "medicalnet",
    }


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'large'; known are pretrain, thumbnail, volume"):
        named_geometry("large")


@pytest.mark.parametrize(
    "fields",
    [
        {"stem_stride": (0, 1, 1)},
        {"pool_stride": (1, -2, 1)},
        {"stage_strides": (ONES, ONES, (1, 1, 0), ONES)},
        {"dilations": (ONES, ONES, ONES, (0, 1, 1))},
        {"stage_strides": (ONES, ONES, ONES), "dilations": (ONES, ONES)},
        {"stem_stride": (2, 2)},
        {"stem_stride": (1.5, 1, 1)},
        {"stride": ONES},
    ],
)
def test_what_is_no_geometry_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Geometry.model_validate(fields)


def test_a_geometry_does_not_change() -> None:
    with pytest.raises(ValidationError):
        named_geometry("volume").stem_stride = ONES
    assert hash(named_geometry("volume")) != hash(named_geometry("small"))


@given(geometries)
def test_a_geometry_survives_json(geometry: Geometry) -> None:
    assert Geometry.model_validate_json(geometry.model_dump_json()) == geometry


@given(geometries)
def test_transposing_permutes_every_triple(geometry: Geometry) -> None:
    assert geometry.transposed((0, 1, 2)) == geometry
    for order in AXIS_ORDERS:
        turned = geometry.transposed(order)
        inverse = tuple(order.index(axis) for axis in range(3))
        assert turned.transposed(inverse) == geometry
        assert turned.strides == tuple(
            tuple(stride[axis] for axis in order) for stride in geometry.strides
        )
        assert turned.smallest_size() == tuple(geometry.smallest_size()[axis] for axis in order)
        assert turned.dilations[3] == tuple(geometry.dilations[3][axis] for axis in order)


def test_the_six_orders() -> None:
    assert set(AXIS_ORDERS) == set(itertools.permutations(range(3)))


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (1, 2, 3), (0, 1, 2, 3)])
def test_what_is_no_order_is_refused(order: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"permutation of 0, 1, 2; found"):
        named_geometry("volume").transposed(order)


@given(geometries)
def test_the_smallest_size_works_and_one_less_does_not(geometry: Geometry) -> None:
    smallest = geometry.smallest_size()
    geometry.check_size(smallest)
    assert works(geometry, smallest)
    for axis in range(3):
        if smallest[axis] > 1:
            size = list(smallest)
            size[axis] -= 1
            assert not works(geometry, tuple(size))
            with pytest.raises(DataError) as caught:
                geometry.check_size(size)
            axis_name = ("depth", "height", "width")[axis]
            assert f"its {axis_name} is already one voxel long" in str(caught.value)
            assert f"smallest size that works is {smallest};" in str(caught.value)


@given(geometries, st.tuples(*[st.integers(1, 40)] * 3))
def test_sizes_are_judged_as_the_layers_would(
    geometry: Geometry, size: tuple[int, int, int]
) -> None:
    if works(geometry, size):
        geometry.check_size(size)
    else:
        with pytest.raises(DataError):
            geometry.check_size(size)


def test_a_lifted_photograph_under_a_striding_geometry_says_what_to_do() -> None:
    with pytest.raises(DataError, match=r"at the pooling its depth.*\(17, 17, 17\).*'small'"):
        named_geometry("volume").check_size((2, 224, 224))
    named_geometry("pretrain").check_size((1, 17, 17))


def test_an_image_has_no_depth() -> None:
    geometry = named_geometry("volume")
    geometry.check_size((17, 17))
    with pytest.raises(DataError, match=r"stage 4 its width .*works is \(17, 17\);"):
        geometry.check_size((17, 16))


sizes = st.tuples(*[st.integers(1, 200)] * 3)
spacings = st.tuples(*[st.floats(0.1, 10)] * 3)
tasks = st.sampled_from(["classify", "segment", "detect"])


@given(sizes, spacings, tasks)
@settings(max_examples=200)
def test_suggested_geometries_work(
    size: tuple[int, int, int], spacing: tuple[float, float, float], task: Task
) -> None:
    geometry, reason = suggest_geometry(size_voxels=size, spacing_mm=spacing, task=task)
    geometry.check_size(size)
    total = geometry.strides[-1]
    for length, stride in zip(size, total, strict=True):
        assert math.ceil(length / stride) >= min(3, length)
    if task == "segment":
        assert geometry.stem_stride == ONES
    assert str(size) in reason
    assert str(total) in reason
    assert max(total) <= 32


def test_a_cube_is_strided_alike() -> None:
    for task, name in (("classify", "volume"), ("segment", "unet")):
        chosen, reason = suggest_geometry(
            size_voxels=(128, 128, 128),
            spacing_mm=(1, 1, 1),
            task=task,  # type: ignore[arg-type]
        )
        assert chosen == named_geometry(name)
        assert f"this is '{name}'" in reason


def test_small_crops_get_the_small_geometry() -> None:
    chosen, _ = suggest_geometry(size_voxels=(28, 28, 28), spacing_mm=(1, 1, 1))
    assert chosen == named_geometry("small")


def test_thick_slices_are_strided_later() -> None:
    chosen, reason = suggest_geometry(
        size_voxels=(12, 512, 512), spacing_mm=(5.0, 0.7, 0.7), task="segment"
    )
    assert "7.1 times longer along the depth" in reason
    # 0.7 mm doubles to 2.8 mm in two steps; only then is the depth of 5 mm less than twice as long.
    assert [stride[0] for stride in chosen.strides] == [1, 1, 1, 2, 4]
    assert [stride[1] for stride in chosen.strides] == [1, 2, 4, 8, 16]


def test_a_lifted_photograph_keeps_its_depth() -> None:
    chosen, _ = suggest_geometry(size_voxels=(3, 224, 224), spacing_mm=(1, 1, 1))
    assert chosen == named_geometry("pretrain")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size_voxels": (3, 3)}, "triples"),
        ({"size_voxels": (0, 3, 3)}, "Not a volume"),
        ({"spacing_mm": (1, 0, 1)}, "Not a volume"),
        ({"spacing_mm": (1, float("nan"), 1)}, "Not a volume"),
        ({"spacing_mm": (1, float("inf"), 1)}, "Not a volume"),
        ({"task": "count"}, "known are classify, segment, detect"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    good = {"size_voxels": (32, 32, 32), "spacing_mm": (1, 1, 1)}
    with pytest.raises(ConfigError, match=message):
        suggest_geometry(**{**good, **arguments})
