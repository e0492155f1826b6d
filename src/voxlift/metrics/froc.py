"""Sensitivity against false positives an image, over all thresholds: the FROC curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from voxlift.core.detection_settings import Matching
from voxlift.core.errors import ConfigError
from voxlift.metrics.box_matching import find_lesions
from voxlift.metrics.findings import NOT_FOUND, Findings, Floats
from voxlift.metrics.image_boxes import ImageBoxes, check_image_boxes

Convention = Literal["voxlift", "mp3d"]
"""How boxes of one score are called, and how a curve is read where it rises upright; see `froc`."""

DEEPLESION_RATES = (0.5, 1.0, 2.0, 4.0)
# A rate times a number of images may fall short of a whole number by rounding.
COUNT_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class FrocResult:
    """An FROC curve and its sensitivity at given rates of false positives.

    Attributes:
        sensitivity: Share of the lesions that are found at each rate, interpolated on the curve;
            NaN without lesions.
        false_positives_per_image: The rates asked for.
        thresholds: Score from which boxes can be called at each rate, with as many lesions found
            as there can be without more false positives; infinite where no box can be called.
        curve_sensitivity: At each threshold of the curve, from nothing called to everything called.
        curve_false_positives_per_image: At the same thresholds.
        curve_thresholds: Scores from which boxes are called: the first is infinite, the others
            those at which a lesion is found or a false positive is added.
        num_lesions: Lesions that had to be found.
        num_images: Images that were searched, with those without lesions.
        findings: The lesions and false positives behind the curve.
        convention: How the curve was traced and is read; see `froc`.
        by_label: With several classes, the same for each class alone; its false positives are
            those of the class, and its images all images.
    """

    sensitivity: Floats
    false_positives_per_image: Floats
    thresholds: Floats
    curve_sensitivity: Floats
    curve_false_positives_per_image: Floats
    curve_thresholds: Floats
    num_lesions: int
    num_images: int
    findings: Findings
    convention: Convention = "voxlift"
    by_label: Mapping[int, "FrocResult"] = field(default_factory=dict)

    @property
    def mean_sensitivity(self) -> float:
        """Mean over the rates; at 1/8 to 8 a scan it is LUNA16's competition performance metric."""
        return float(self.sensitivity.mean())

    def sensitivity_at(self, false_positives_per_image: npt.ArrayLike) -> Floats:
        """Interpolate the sensitivity at other rates."""
        return interpolate_sensitivity(
            self.curve_false_positives_per_image * self.num_images,
            self.curve_sensitivity,
            np.asarray(false_positives_per_image, dtype=np.float64) * self.num_images,
            convention=self.convention,
        )

    def threshold_at(self, false_positives_per_image: float) -> float:
        """Find the score from which boxes can be called at another rate."""
        counts = np.array([false_positives_per_image * self.num_images])
        point = last_point(self.curve_false_positives_per_image * self.num_images, counts)
        return float(self.curve_thresholds[point[0]])


def froc(
    predictions: Sequence[npt.ArrayLike],
    truths: Sequence[npt.ArrayLike],
    *,
    prediction_labels: Sequence[npt.ArrayLike] | None = None,
    truth_labels: Sequence[npt.ArrayLike] | None = None,
    truth_ignored: Sequence[npt.ArrayLike] | None = None,
    iou_threshold: float = 0.5,
    false_positives_per_image: Sequence[float] = DEEPLESION_RATES,
    matching: Matching = "iou",
    convention: Convention = "voxlift",
) -> FrocResult:
    """Judge detected boxes by the lesions they find at given rates of false positives.

    At a threshold, the boxes whose score reaches it are called. A lesion is found if a called box
    hits it: the overlap is at least `iou_threshold`, and the classes are the same. A lesion counts
    once however many boxes hit it, and a box that hits several lesions finds them all. A called box
    that hits no lesion is a false positive; one that hits a lesion found already is nothing, and so
    is one that hits ignored truths alone. Boxes with the same score are called together, so their
    order does not matter.

    The curve starts at no box called, 0 false positives and 0 sensitivity. Its points are joined by
    straight lines. At a rate where it rises upright, the upper end counts; beyond its last point
    the sensitivity stays as it is, for no more boxes can be called.

    MP3D's published evaluation differs in two points. `convention="mp3d"` follows it in both, for
    comparison with published numbers. Boxes with the same score are called one by one: those of
    later images first, and within an image the later ones first. At a rate where the curve rises
    upright, the lower end counts: a lesion found after one false positive and before the next
    counts only above the rate of the first. Beyond its last point the curve is read at that point.
    Ignored truths, which MP3D's evaluation does not have, stay ignored. The conventions differ by
    some hundredths on tens of images and by some thousandths on a thousand.

    With classes, the curve is over all lesions and all boxes of all classes (micro average), and
    `by_label` has one for each class.

    Args:
        predictions: Detected boxes and their scores, one table an image.
        truths: True boxes, one table an image; images without lesions have an empty one, and count.
        prediction_labels: Class of each detected box, if there are several classes.
        truth_labels: Class of each true box.
        truth_ignored: Which true boxes are to be ignored (crowds, noisy annotations). A box on them
            covers them with a share of `iou_threshold` of its own area, as with COCO's crowds.
        iou_threshold: The overlap that makes a hit.
        false_positives_per_image: The rates at which the sensitivity is wanted, rising.
        matching: Overlap as intersection over union (`iou`), or over the area of the detected box
            (`iobb`).
        convention: `voxlift`, or `mp3d` to compare with published numbers; see above.

    Shape:
        Of each image `(boxes, 5)`: x1, y1, x2, y2, score; and `(truths, 4)`: x1, y1, x2, y2, with
        exclusive edges x2 and y2.

    Raises:
        ConfigError: If threshold, matching, convention or rates are none.
        DataError: If there is no image, or the boxes of an image are not as described.

    Source:
        Yan, Bagheri, Summers: 3D Context Enhanced Region-based CNN for End-to-End Lesion Detection,
        arXiv 1806.09648, section 3. MP3D: github.com/urmagicsmine/MP3D.
    """
    images = check_image_boxes(
        predictions,
        truths,
        prediction_labels=prediction_labels,
        truth_labels=truth_labels,
        truth_ignored=truth_ignored,
    )
    return froc_of_images(
        images,
        iou_threshold=iou_threshold,
        matching=matching,
        rates=false_positives_per_image,
        labelled=prediction_labels is not None,
        convention=convention,
    )


def froc_of_images(
    images: Sequence[ImageBoxes],
    *,
    iou_threshold: float,
    matching: Matching,
    rates: Sequence[float],
    labelled: bool,
    convention: Convention = "voxlift",
) -> FrocResult:
    """Trace the curve of boxes that were checked; the arguments are those of `froc`."""
    if convention not in ("voxlift", "mp3d"):
        raise ConfigError(f"convention is '{convention}', but has to be 'voxlift' or 'mp3d'.")
    if convention == "mp3d":
        images = _untied(images)
    findings = find_lesions(images, iou_threshold=iou_threshold, matching=matching)
    return froc_of(findings, rates=rates, labelled=labelled, convention=convention)


def froc_of(
    findings: Findings,
    *,
    rates: Sequence[float],
    labelled: bool = False,
    convention: Convention = "voxlift",
) -> FrocResult:
    """Trace the curve of findings, and read it at the rates.

    Args:
        findings: The lesions and false positives.
        rates: False positives an image at which the sensitivity is wanted, rising.
        labelled: Trace the curve of each class too.
        convention: How the curve is read.

    Raises:
        ConfigError: If the rates are not finite, negative or do not rise.
    """
    wanted = check_rates(rates)
    found = findings.lesion_scores[findings.lesion_scores > NOT_FOUND]
    levels = np.unique(np.concatenate([found, findings.false_scores]))[::-1]
    thresholds = np.concatenate([[np.inf], levels])
    found_counts = _counts_from(found, thresholds)
    false_counts = _counts_from(findings.false_scores, thresholds)
    sensitivity = np.full(len(thresholds), np.nan)
    if findings.num_lesions:
        sensitivity = found_counts / findings.num_lesions
    counts = wanted * findings.num_images
    return FrocResult(
        sensitivity=interpolate_sensitivity(
            false_counts, sensitivity, counts, convention=convention
        ),
        false_positives_per_image=wanted,
        thresholds=thresholds[last_point(false_counts, counts)],
        curve_sensitivity=sensitivity,
        curve_false_positives_per_image=false_counts / findings.num_images,
        curve_thresholds=thresholds,
        num_lesions=findings.num_lesions,
        num_images=findings.num_images,
        findings=findings,
        convention=convention,
        by_label={
            label: froc_of(findings.of_label(label), rates=rates, convention=convention)
            for label in (findings.labels if labelled else [])
        },
    )


def check_rates(rates: Sequence[float]) -> Floats:
    """Check the rates of false positives and give them as an array.

    Raises:
        ConfigError: If there is none, or they are not finite, negative or do not rise.
    """
    wanted = np.asarray(rates, dtype=np.float64)
    rising = wanted.ndim == 1 and len(wanted) and np.isfinite(wanted).all() and wanted[0] >= 0
    if not rising or np.any(np.diff(wanted) <= 0):
        raise ConfigError(
            f"The rates of false positives are {wanted.tolist()}, but rising numbers from 0 on are "
            "needed, such as 0.5, 1, 2, 4."
        )
    return wanted


def last_point(false_counts: Floats, counts: Floats) -> npt.NDArray[np.intp]:
    """Find the last point of a curve with no more false positives than each of the counts.

    Args:
        false_counts: False positives at the points of the curve, never falling, from 0 on.
        counts: The numbers of false positives allowed.
    """
    allowed = counts + COUNT_TOLERANCE * np.maximum(counts, 1)
    return np.searchsorted(false_counts, allowed, side="right") - 1


def interpolate_sensitivity(
    false_counts: Floats, sensitivity: Floats, counts: Floats, *, convention: Convention
) -> Floats:
    """Read a curve at numbers of false positives, on straight lines between its points.

    Args:
        false_counts: False positives at the points of the curve, never falling, from 0 on.
        sensitivity: At the same points.
        counts: Where to read it.
        convention: Which end of an upright rise counts: the upper, or by `mp3d` the lower.
    """
    if convention == "mp3d":
        counts = np.minimum(counts, false_counts[-1])
        least = counts - COUNT_TOLERANCE * np.maximum(counts, 1)
        right = np.searchsorted(false_counts, least, side="left")
        left = np.maximum(right - 1, 0)
    else:
        left = last_point(false_counts, counts)
        right = np.minimum(left + 1, len(false_counts) - 1)
    span = false_counts[right] - false_counts[left]
    share = np.zeros(len(counts))
    np.divide(counts - false_counts[left], span, out=share, where=span > 0)
    # The tolerance may have put the count a hair below the point on its left.
    share = np.clip(share, 0, 1)
    return np.asarray(sensitivity[left] + share * (sensitivity[right] - sensitivity[left]))


def _untied(images: Sequence[ImageBoxes]) -> list[ImageBoxes]:
    """Raise equal scores by as little as sets them apart, the later boxes above the earlier."""
    scores = np.concatenate([image.scores for image in images])
    order = np.argsort(scores, kind="stable")
    risen = scores[order]
    for place in range(1, len(risen)):
        risen[place] = max(risen[place], np.nextafter(risen[place - 1], np.inf))
    apart = np.empty_like(scores)
    apart[order] = risen
    ends = np.cumsum([len(image.scores) for image in images])[:-1]
    return [
        replace(image, scores=part)
        for image, part in zip(images, np.split(apart, ends), strict=True)
    ]


def _counts_from(scores: Floats, thresholds: Floats) -> Floats:
    """Count the scores that reach each threshold."""
    below = np.searchsorted(np.sort(scores), thresholds, side="left")
    return (len(scores) - below).astype(np.float64)
