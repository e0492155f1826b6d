"""FROC of points found in whole scans: a candidate hits a lesion if it lies within its radius."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.metrics.findings import Floats, ImageHits, collect_findings
from voxlift.metrics.froc import FrocResult, froc_of
from voxlift.metrics.image_boxes import entries, table

LUNA16_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
UNKNOWN_DIAMETER_MM = 10.0


def scan_froc(
    candidates: Sequence[npt.ArrayLike],
    lesions: Sequence[npt.ArrayLike],
    *,
    excluded: Sequence[npt.ArrayLike] | None = None,
    false_positives_per_scan: Sequence[float] = LUNA16_RATES,
) -> FrocResult:
    """Judge 3D candidates by the lesions they find at given rates of false positives a scan.

    A candidate hits a lesion if the distance of their centres is below the lesion's radius. Each
    lesion counts once, with its surest candidate; a candidate that hits excluded findings alone is
    neither right nor wrong. The curve is read as `voxlift.metrics.froc` says; the result's images
    are the scans, and its `mean_sensitivity` over the default rates is the competition performance
    metric.

    Args:
        candidates: Centres in mm and scores, one table a scan.
        lesions: Centres and diameters in mm, one table a scan.
        excluded: Centres and diameters in mm of findings that do not matter, one table a scan. One
            of unknown diameter has a negative one, and counts as 10 mm wide, as in LUNA16.
        false_positives_per_scan: The rates at which the sensitivity is wanted, rising.

    Shape:
        Of each scan `(candidates, 4)`: three coordinates and the score; `(lesions, 4)`: three
        coordinates, in the same order, and the diameter.

    Raises:
        ConfigError: If the rates are not finite, negative or do not rise.
        DataError: If there is no scan, the lists differ in length, a table has another form or
            numbers that are not finite, or a lesion has no diameter.

    Source:
        Setio et al.: Validation, comparison, and combination of algorithms for automatic detection
        of pulmonary nodules in computed tomography images: the LUNA16 challenge, arXiv 1612.08012,
        section 3.
    """
    num_scans = entries("candidates", candidates)
    entries("lesions", lesions, expected=num_scans)
    if excluded is not None:
        entries("excluded findings", excluded, expected=num_scans)
    scans = [
        _hits(
            table(f"candidates of scan {number}", candidates[number], columns=4),
            _lesions(number, lesions[number]),
            _excluded(number, [] if excluded is None else excluded[number]),
        )
        for number in range(num_scans)
    ]
    return froc_of(collect_findings(scans), rates=false_positives_per_scan)


def _lesions(number: int, lesions: npt.ArrayLike) -> Floats:
    rows = table(f"lesions of scan {number}", lesions, columns=4)
    if (rows[:, 3] <= 0).any():
        raise DataError(
            f"Scan {number} has a lesion with the diameter {rows[:, 3].min()}, but it has to be "
            "above 0 mm. Give findings of unknown size as excluded."
        )
    return rows


def _excluded(number: int, findings: npt.ArrayLike) -> Floats:
    rows = table(f"excluded findings of scan {number}", findings, columns=4)
    diameters = np.where(rows[:, 3] < 0, UNKNOWN_DIAMETER_MM, rows[:, 3])
    return np.concatenate([rows[:, :3], diameters[:, None]], axis=1)


def _hits(candidates: Floats, lesions: Floats, excluded: Floats) -> ImageHits:
    truths = np.concatenate([lesions, excluded])
    offsets = candidates[:, None, :3] - truths[None, :, :3]
    distances = np.linalg.norm(offsets, axis=2)
    return ImageHits(
        hits=distances < truths[:, 3] / 2,
        scores=candidates[:, 3],
        labels=np.zeros(len(candidates), dtype=np.int64),
        truth_labels=np.zeros(len(truths), dtype=np.int64),
        ignored=np.arange(len(truths)) >= len(lesions),
    )
