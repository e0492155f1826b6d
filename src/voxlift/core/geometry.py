"""Geometry: how far each layer of a backbone steps, apart from what it has learnt.

A photograph lifted to a volume is three slices deep, so pre-training must not stride depth. The
same weights then meet real volumes, where striding depth is what saves memory and widens the view.
Strides, pooling and dilations are therefore data of their own, that never touch a tensor.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.types import AXES, Triple

Stages = tuple[Triple, ...]
AxisOrder = tuple[int, int, int]
AXIS_ORDERS: tuple[AxisOrder, ...] = (
    (0, 1, 2),
    (0, 2, 1),
    (1, 0, 2),
    (1, 2, 0),
    (2, 0, 1),
    (2, 1, 0),
)
ONES: Triple = (1, 1, 1)


class Geometry(BaseModel):
    """Strides, pooling and dilations of a backbone, each as (depth, height, width).

    Args:
        stem_stride: Stride of the stem convolution, in voxels of the input.
        pool_stride: Stride of the max-pooling (kernel 3) behind the stem; None for no pooling.
        stage_strides: Stride of the first block of each stage; ResNets have four stages.
        dilations: Dilation of the spatial convolutions of each stage; none if not given.

    Raises:
        ValueError: If an entry is not a positive whole number, or there are not as many dilations
            as stages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stem_stride: Triple = ONES
    pool_stride: Triple | None = None
    stage_strides: Stages = (ONES, ONES, ONES, ONES)
    dilations: Stages = ()

    @model_validator(mode="before")
    @classmethod
    def _one_dilation_a_stage(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and not fields.get("dilations"):
            num_stages = len(fields.get("stage_strides", cls.model_fields["stage_strides"].default))
            return {**fields, "dilations": (ONES,) * num_stages}
        return fields

    @model_validator(mode="after")
    def _only_positive(self) -> Self:
        for name, triple in self._steps() + [("dilations", d) for d in self.dilations]:
            if any(entry < 1 for entry in triple):
                raise ValueError(f"{name} is {triple}; every stride and dilation is 1 or more.")
        if len(self.stage_strides) != len(self.dilations):
            raise ValueError(
                f"there are {len(self.stage_strides)} stage_strides and {len(self.dilations)} "
                "dilations; give one of each for every stage."
            )
        return self

    def _steps(self) -> list[tuple[str, Triple]]:
        """Name and stride of each step that can shrink the volume, in order."""
        steps = [("the stem", self.stem_stride)]
        if self.pool_stride is not None:
            steps.append(("the pooling", self.pool_stride))
        return steps + [(f"stage {i + 1}", s) for i, s in enumerate(self.stage_strides)]

    @property
    def strides(self) -> tuple[Triple, ...]:
        """Stride of each map relative to the input: the stem before pooling, then the stages."""
        maps = [self.stem_stride]
        total = _multiply(self.stem_stride, self.pool_stride or ONES)
        for stride in self.stage_strides:
            total = _multiply(total, stride)
            maps.append(total)
        return tuple(maps)

    def transposed(self, order: Sequence[int]) -> "Geometry":
        """Lay the geometry out for a volume whose axes were permuted by `order`.

        A volume `v` of shape (depth, height, width) and `v.permute(order)` are treated alike:
        axis `i` of the result is stepped over as axis `order[i]` was.

        Raises:
            ConfigError: If `order` is not a permutation of 0, 1, 2.
        """
        if sorted(order) != [0, 1, 2]:
            raise ConfigError(f"An axis order is a permutation of 0, 1, 2; found {tuple(order)}.")

        def turn(triple: Triple) -> Triple:
            return (triple[order[0]], triple[order[1]], triple[order[2]])

        def turn_all(stages: Stages) -> Stages:
            return tuple(turn(stage) for stage in stages)

        return Geometry(
            stem_stride=turn(self.stem_stride),
            pool_stride=turn(self.pool_stride) if self.pool_stride else None,
            stage_strides=turn_all(self.stage_strides),
            dilations=turn_all(self.dilations),
        )

    def smallest_size(self) -> Triple:
        """Smallest size in voxels for which no stride meets an axis that is one voxel long."""
        size = [1, 1, 1]
        for axis in range(3):
            needed = 1
            for _, stride in reversed(self._steps()):
                if stride[axis] > 1:
                    # ceil(n / stride) must still be `needed`, and there must be two to step over.
                    needed = max(2, (needed - 1) * stride[axis] + 1)
            size[axis] = needed
        return (size[0], size[1], size[2])

    def check_size(self, size_voxels: Sequence[int]) -> None:
        """Refuse a volume on which some layer would stride an axis of a single voxel.

        Args:
            size_voxels: Size of the volume, (depth, height, width) or, in 2D, (height, width).

        Raises:
            DataError: With the layer, the axis and the smallest size that works.
        """
        offset = 3 - len(size_voxels)
        lengths = list(size_voxels)
        for layer, stride in self._steps():
            for axis, step in enumerate(stride[offset:]):
                if step > 1 and lengths[axis] == 1:
                    raise DataError(
                        f"A volume of {tuple(size_voxels)} voxels is too small for this geometry: "
                        f"at {layer} its {AXES[axis + offset]} is already one voxel long and would "
                        f"be strided by {step}. The smallest size that works is "
                        f"{self.smallest_size()[offset:]}; pad or resample the volume, or choose "
                        "a geometry that strides less, such as 'small' or one from "
                        "suggest_geometry()."
                    )
                lengths[axis] = -(-lengths[axis] // step)


def _multiply(left: Triple, right: Triple) -> Triple:
    return (left[0] * right[0], left[1] * right[1], left[2] * right[2])


IN_PLANE: Triple = (1, 2, 2)
ALL: Triple = (2, 2, 2)
PLANE_STAGES: Stages = (ONES, IN_PLANE, IN_PLANE, IN_PLANE)
VOLUME_STAGES: Stages = (ONES, ALL, ALL, ALL)

GEOMETRIES: dict[str, Geometry] = {
    "pretrain": Geometry(stem_stride=IN_PLANE, pool_stride=IN_PLANE, stage_strides=PLANE_STAGES),
    "thumbnail": Geometry(stage_strides=PLANE_STAGES),
    "volume": Geometry(stem_stride=ALL, pool_stride=ALL, stage_strides=VOLUME_STAGES),
    "unet": Geometry(pool_stride=ALL, stage_strides=VOLUME_STAGES),
    "small": Geometry(stage_strides=VOLUME_STAGES),
    "nodule": Geometry(stage_strides=(ONES, ALL, ONES, ALL)),
    "medicalnet": Geometry(
        stem_stride=ALL,
        pool_stride=ALL,
        stage_strides=(ONES, ALL, ONES, ONES),
        dilations=(ONES, ONES, (2, 2, 2), (4, 4, 4)),
    ),
}
"""The geometries with a name. `create_backbone(geometry=NAME)` and `--geometry NAME` know them."""


def named_geometry(geometry: str | Geometry) -> Geometry:
    """Look up a geometry by name; an explicit one is returned as it is.

    Raises:
        ConfigError: For an unknown name, with the known ones.
    """
    if isinstance(geometry, Geometry):
        return geometry
    if geometry not in GEOMETRIES:
        raise ConfigError(f"Unknown geometry {geometry!r}; known are {', '.join(GEOMETRIES)}.")
    return GEOMETRIES[geometry]


def geometry_name(geometry: Geometry) -> str:
    """Name of a geometry if it is one of the named, else `explicit`."""
    return next((name for name, known in GEOMETRIES.items() if known == geometry), "explicit")


def suggest_geometry(
    *,
    size_voxels: Sequence[int],
    spacing_mm: Sequence[float],
    task: Literal["classify", "segment", "detect"] = "classify",
) -> tuple[Geometry, str]:
    """Propose a geometry for volumes of a size and spacing, and say why.

    The total stride of each axis is chosen so that the last feature map keeps at least three
    voxels where the volume allows it; and an axis whose voxels are at least twice as long as those
    of the finest axis waits until the others have come nearer, so that features see about cubes of
    tissue.

    Args:
        size_voxels: Size of what the network is fed: (depth, height, width).
        spacing_mm: Distance between voxel centres in millimetres: (depth, height, width).
        task: `segment` keeps the stem's map at full resolution.

    Returns:
        The geometry and a sentence with the reason.

    Raises:
        ConfigError: If a size or spacing is not positive, or the task is unknown.
    """
    if len(size_voxels) != 3 or len(spacing_mm) != 3:
        raise ConfigError("size_voxels and spacing_mm are triples: (depth, height, width).")
    if min(size_voxels) < 1 or not all(0 < s < float("inf") for s in spacing_mm):
        raise ConfigError(f"Not a volume: {tuple(size_voxels)} voxels of {tuple(spacing_mm)} mm.")
    if task not in ("classify", "segment", "detect"):
        raise ConfigError(f"Unknown task {task!r}; known are classify, segment, detect.")

    budgets = [_halvings(length) for length in size_voxels]
    full_resolution_stem = task == "segment" or max(budgets) < 5
    num_steps = 5 - (1 if full_resolution_stem else 0)
    steps = _share_halvings(budgets, list(spacing_mm), num_steps)
    if full_resolution_stem:
        steps.insert(0, ONES)
    pooled = steps[1] != ONES
    geometry = Geometry(
        stem_stride=steps[0],
        pool_stride=steps[1] if pooled else None,
        stage_strides=(ONES, steps[2], steps[3], steps[4]),
    )
    return geometry, _reason(geometry, tuple(size_voxels), tuple(spacing_mm), task)


def _halvings(length: int) -> int:
    """How often an axis can be halved and still keep three voxels."""
    count = 0
    while count < 5 and -(-length // 2 ** (count + 1)) >= 3:
        count += 1
    return count


def _share_halvings(budgets: list[int], spacing_mm: list[float], num_steps: int) -> list[Triple]:
    """Choose for each step the axes to halve: fine ones first, late rather than early."""
    spacing, left = list(spacing_mm), list(budgets)
    steps: list[Triple] = []
    for _ in range(num_steps):
        finest = min((s for s, b in zip(spacing, left, strict=True) if b), default=0.0)
        halve = [b > 0 and s < 2 * finest for s, b in zip(spacing, left, strict=True)]
        steps.append((1 + halve[0], 1 + halve[1], 1 + halve[2]))
        spacing = [s * (1 + h) for s, h in zip(spacing, halve, strict=True)]
        left = [b - h for b, h in zip(left, halve, strict=True)]
    while steps and steps[-1] == ONES:
        # A small volume runs out of voxels early: stride in the late stages, not in the early ones.
        steps.insert(0, steps.pop())
        if all(step == ONES for step in steps):
            break
    return steps


def _reason(
    geometry: Geometry, size: tuple[int, ...], spacing_mm: tuple[float, ...], task: str
) -> str:
    total = geometry.strides[-1]
    last = tuple(-(-length // stride) for length, stride in zip(size, total, strict=True))
    coarse = max(spacing_mm) >= 2 * min(spacing_mm)
    why = (
        f"voxels are {max(spacing_mm) / min(spacing_mm):.1f} times longer along the "
        f"{AXES[spacing_mm.index(max(spacing_mm))]} than along the finest axis, so that axis is "
        "strided later or not at all"
        if coarse
        else "voxels are about as long on every axis, so the axes are strided alike as far as the "
        "size allows"
    )
    known = geometry_name(geometry)
    return (
        f"For {task} on {size} voxels of {tuple(round(s, 3) for s in spacing_mm)} mm: {why}; "
        f"strides total {total}, which leaves {last} voxels in the last feature map"
        + (f" (this is '{known}')." if known != "explicit" else ".")
    )
