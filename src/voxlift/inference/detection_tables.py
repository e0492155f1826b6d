"""What came of every detected and of every true box, as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from voxlift.inference.judged_case import JudgedCase
from voxlift.metrics.box_outcomes import NO_BOX

EDGES = ("x1", "y1", "x2", "y2")


def predictions_csv(judged: Iterable[JudgedCase], class_names: Sequence[str]) -> str:
    """Write the detected boxes, image by image, the best first.

    `outcome` is `hit`, `false` or `ignored` (on a region to be ignored alone); `overlap` is the
    largest one with a lesion of the class.
    """
    rows = []
    for each in judged:
        outcomes = each.outcomes
        for row, (box, label) in enumerate(zip(each.found.boxes, each.found.labels, strict=True)):
            outcome = "hit" if outcomes.hit[row] else "false" if outcomes.false[row] else "ignored"
            rows.append(
                [
                    each.case.id,
                    class_names[label],
                    f"{box[4]:.6f}",
                    *(f"{edge:.2f}" for edge in box[:4]),
                    outcome,
                    f"{outcomes.overlap[row]:.3f}",
                ]
            )
    return _csv(["case", "class", "score", *EDGES, "outcome", "overlap"], rows)


def lesions_csv(judged: Iterable[JudgedCase], class_names: Sequence[str]) -> str:
    """Write the true boxes that have to be found, image by image.

    `score` is that of the best box that hits it; empty without one, as are sizes and types that
    are not known.
    """
    rows = []
    for each in judged:
        truth = each.case.truth
        for row in np.flatnonzero(~truth.crowd):
            size_mm = each.sizes_mm[row]
            found = each.outcomes.best_box[row] != NO_BOX
            rows.append(
                [
                    each.case.id,
                    class_names[truth.labels[row]],
                    *(f"{edge:.2f}" for edge in truth.boxes[row]),
                    "" if np.isnan(size_mm) else f"{size_mm:.1f}",
                    each.types[row] or "",
                    f"{each.outcomes.best_score[row]:.6f}" if found else "",
                ]
            )
    return _csv(["case", "class", *EDGES, "size_mm", "type", "score"], rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
