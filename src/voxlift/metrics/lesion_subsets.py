"""How many lesions of each size, or of each type, are found at one operating point."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from voxlift.core.errors import ConfigError, DataError
from voxlift.metrics.bootstrap import Interval, Resamples, draw_resamples, interval
from voxlift.metrics.findings import Floats, Mask
from voxlift.metrics.froc import FrocResult
from voxlift.metrics.froc_bootstrap import weights_of_images

# The sizes that DeepLesion's results are given for.
DEEPLESION_SIZES_MM = (10.0, 30.0)


class SubsetSensitivity(BaseModel):
    """The sensitivity for some of the lesions.

    Attributes:
        name: Which lesions: a span of sizes, or a type.
        num_lesions: How many there are.
        num_found: How many are found at the threshold.
        sensitivity: Their share, with its interval; the threshold stays the same in all resamples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    num_lesions: int
    num_found: int
    sensitivity: Interval


def sensitivity_by_size(
    result: FrocResult,
    sizes: Sequence[npt.ArrayLike],
    *,
    edges: Sequence[float] = DEEPLESION_SIZES_MM,
    unit: str = "mm",
    false_positives_per_image: float = 4.0,
    groups: npt.ArrayLike | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[SubsetSensitivity, ...]:
    """Count the lesions of each size that are found at a rate of false positives.

    All lesions and all false positives set the threshold (`FrocResult.threshold_at`). Lesions of
    every size are then judged at it.

    Args:
        result: The curve.
        sizes: Size of each true box, one array an image, ignored ones included; NaN is unknown.
        edges: Where one span of sizes ends and the next begins; a size on an edge is in the upper.
        unit: The unit of the sizes, for the names.
        false_positives_per_image: The rate that sets the threshold.
        groups: The patient of each image, drawn as a whole by the bootstrap.
        num_samples: How many resamples to draw.
        confidence: The confidence of the intervals.
        seed: The run's seed.

    Returns:
        One entry for each span, from the smallest on; last the lesions of unknown size, if any.

    Raises:
        ConfigError: If the edges do not rise, or the rate is negative.
        DataError: If there is not one size a true box, or not one group an image.
    """
    return judge_subsets(
        result,
        size_subsets(result, sizes, edges=edges, unit=unit),
        rate=false_positives_per_image,
        resamples=draw_resamples(
            result.num_images, groups=groups, num_samples=num_samples, seed=seed
        ),
        confidence=confidence,
    )


def sensitivity_by_type(
    result: FrocResult,
    types: Sequence[Sequence[str | None]],
    *,
    false_positives_per_image: float = 4.0,
    groups: npt.ArrayLike | None = None,
    num_samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[SubsetSensitivity, ...]:
    """Count the lesions of each type that are found at a rate of false positives.

    The threshold is set as in `sensitivity_by_size`.

    Args:
        result: The curve.
        types: Type of each true box, one list an image, ignored ones included; None is unknown.
        false_positives_per_image: The rate that sets the threshold.
        groups: The patient of each image, drawn as a whole by the bootstrap.
        num_samples: How many resamples to draw.
        confidence: The confidence of the intervals.
        seed: The run's seed.

    Returns:
        One entry for each type, by name; last the lesions of unknown type, if any.

    Raises:
        ConfigError: If the rate is negative.
        DataError: If there is not one type a true box, or not one group an image.
    """
    return judge_subsets(
        result,
        type_subsets(result, types),
        rate=false_positives_per_image,
        resamples=draw_resamples(
            result.num_images, groups=groups, num_samples=num_samples, seed=seed
        ),
        confidence=confidence,
    )


def size_subsets(
    result: FrocResult,
    sizes: Sequence[npt.ArrayLike],
    *,
    edges: Sequence[float] = DEEPLESION_SIZES_MM,
    unit: str = "mm",
) -> dict[str, Mask]:
    """Tell which lesions of the result have a size in each span; see `sensitivity_by_size`.

    Raises:
        ConfigError: If the edges do not rise.
        DataError: If there is not one size a true box.
    """
    bounds = np.asarray(edges, dtype=np.float64)
    if bounds.ndim != 1 or not len(bounds) or not np.all(np.diff(bounds) > 0):
        raise ConfigError(f"The edges of the sizes are {list(edges)}, but they have to rise.")
    columns = [np.asarray(part, dtype=np.float64) for part in sizes]
    size = _of_lesions(result, columns, "sizes")
    unknown: Mask = np.isnan(size)
    shown = [f"{edge:g}" for edge in bounds]
    names = [f"below {shown[0]} {unit}"]
    names += [f"{low} to {high} {unit}" for low, high in pairwise(shown)]
    names += [f"{shown[-1]} {unit} and more"]
    span = np.searchsorted(bounds, size, side="right")
    subsets = {name: ~unknown & (span == number) for number, name in enumerate(names)}
    return subsets | ({"unknown size": unknown} if unknown.any() else {})


def type_subsets(result: FrocResult, types: Sequence[Sequence[str | None]]) -> dict[str, Mask]:
    """Tell which lesions of the result are of each type; see `sensitivity_by_type`.

    Raises:
        DataError: If there is not one type a true box.
    """
    columns = [np.array([name or "" for name in part], dtype=np.str_) for part in types]
    kind = _of_lesions(result, columns, "types")
    unknown: Mask = np.equal(kind, "")
    names = [name for name in np.unique(kind).tolist() if name]
    subsets: dict[str, Mask] = {name: np.equal(kind, name) for name in names}
    return subsets | ({"unknown type": unknown} if unknown.any() else {})


def judge_subsets(
    result: FrocResult,
    subsets: Mapping[str, Mask],
    *,
    rate: float,
    resamples: Resamples,
    confidence: float,
) -> tuple[SubsetSensitivity, ...]:
    """Count what is found of each subset of the lesions at the threshold of a rate.

    Args:
        result: The curve.
        subsets: Which lesions belong to each, by name.
        rate: False positives an image that set the threshold.
        resamples: Resamples of the images; for each subset, those that hold some of it count.
        confidence: The confidence of the intervals.
    """
    if not rate >= 0:
        raise ConfigError(f"The rate of false positives is {rate}, but cannot be below 0.")
    findings = result.findings
    found: Mask = np.greater_equal(findings.lesion_scores, result.threshold_at(rate))
    judged = []
    for name, member in subsets.items():
        num_lesions, num_found = int(member.sum()), int((member & found).sum())
        resampled = np.array([np.nan])
        if num_lesions and resamples.num_groups > 1:
            resampled = _shares(found[member], findings.lesion_images[member], resamples)
        judged.append(
            SubsetSensitivity(
                name=name,
                num_lesions=num_lesions,
                num_found=num_found,
                sensitivity=interval(
                    num_found / num_lesions if num_lesions else np.nan,
                    resampled,
                    confidence=confidence,
                ),
            )
        )
    return tuple(judged)


def _of_lesions(
    result: FrocResult, columns: Sequence[npt.NDArray[Any]], name: str
) -> npt.NDArray[Any]:
    """Pick the entries of the lesions that have to be found from those of all true boxes."""
    counts = result.findings.num_truths.tolist()
    if len(columns) != len(counts):
        raise DataError(
            f"There are {name} of {len(columns)} images, but {len(counts)} images. Give one entry "
            "for each; an image without true boxes has an empty one."
        )
    for number, (column, count) in enumerate(zip(columns, counts, strict=True)):
        if column.shape != (count,):
            raise DataError(
                f"The {name} of image {number} have the shape {column.shape}, but there are "
                f"{count} true boxes. Give one for each, with those that are ignored."
            )
    return np.concatenate(columns)[result.findings.lesion_rows]


def _shares(found: Mask, images: npt.NDArray[np.int64], resamples: Resamples) -> Floats:
    parts = []
    for weights in weights_of_images(resamples, images):
        total = weights.sum(axis=1)
        held = total > 0
        parts.append(weights[held] @ found / total[held])
    shares = np.concatenate(parts)
    return shares if len(shares) else np.array([np.nan])
