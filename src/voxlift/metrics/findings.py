"""What a detector found: with which score each lesion, and every false positive.

It is all that an FROC curve needs, whether the detector gave boxes in slices or points in scans.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NOT_FOUND = -np.inf


@dataclass(frozen=True, eq=False)
class Findings:
    """Lesions and false positives of many images, or scans.

    A lesion is found from the score of its best hit on; a further hit on it is nothing.

    Attributes:
        num_truths: How many true lesions each image has, with those that are ignored.
        lesion_images: Number of the image of each lesion that has to be found.
        lesion_rows: Its place among all true lesions, with those that are ignored, image by image.
        lesion_labels: Its class.
        lesion_scores: Score of its best hit; `NOT_FOUND` without one.
        false_images: Number of the image of each false positive.
        false_labels: The class that was claimed.
        false_scores: Its score.
    """

    num_truths: Integers
    lesion_images: Integers
    lesion_rows: Integers
    lesion_labels: Integers
    lesion_scores: Floats
    false_images: Integers
    false_labels: Integers
    false_scores: Floats

    @property
    def num_images(self) -> int:
        """Images that were searched, those without lesions too."""
        return len(self.num_truths)

    @property
    def num_lesions(self) -> int:
        """Lesions that have to be found."""
        return len(self.lesion_scores)

    @property
    def labels(self) -> list[int]:
        """Classes that were claimed or are there."""
        return [int(label) for label in np.union1d(self.lesion_labels, self.false_labels)]

    def of_label(self, label: int) -> "Findings":
        """Give what concerns one class, in all images."""
        lesions: Mask = np.equal(self.lesion_labels, label)
        false: Mask = np.equal(self.false_labels, label)
        return replace(
            self,
            lesion_images=self.lesion_images[lesions],
            lesion_rows=self.lesion_rows[lesions],
            lesion_labels=self.lesion_labels[lesions],
            lesion_scores=self.lesion_scores[lesions],
            false_images=self.false_images[false],
            false_labels=self.false_labels[false],
            false_scores=self.false_scores[false],
        )


@dataclass(frozen=True, eq=False)
class ImageHits:
    """Which detection of one image hits which of its true lesions.

    Attributes:
        hits: Whether a detection (row) hits a lesion (column) that may be ignored.
        scores: Of the detections.
        labels: Classes of the detections.
        truth_labels: Classes of the lesions.
        ignored: Lesions that are ignored.
    """

    hits: Mask
    scores: Floats
    labels: Integers
    truth_labels: Integers
    ignored: Mask


def collect_findings(images: Sequence[ImageHits]) -> Findings:
    """Sum up the hits of all images.

    A detection that hits several lesions finds them all. One that hits nothing is a false
    positive; one that hits ignored lesions alone is nothing.

    Source:
        So counts the evaluation of DeepLesion (Yan et al., 3D Context Enhanced Region-based CNN,
        arXiv 1806.09648), and of LUNA16 (Setio et al., arXiv 1612.08012, section 3).
    """
    lesion_scores, lesion_images, lesion_rows, lesion_labels = [], [], [], []
    false_scores, false_images, false_labels = [], [], []
    first_row = 0
    for number, image in enumerate(images):
        best = np.where(image.hits, image.scores[:, None], NOT_FOUND).max(axis=0, initial=NOT_FOUND)
        wanted = np.flatnonzero(~image.ignored)
        lesion_scores.append(best[wanted])
        lesion_images.append(np.full(len(wanted), number))
        lesion_rows.append(first_row + wanted)
        lesion_labels.append(image.truth_labels[wanted])
        first_row += len(image.ignored)
        false = ~image.hits.any(axis=1)
        false_scores.append(image.scores[false])
        false_images.append(np.full(np.count_nonzero(false), number))
        false_labels.append(image.labels[false])
    return Findings(
        num_truths=np.array([len(image.ignored) for image in images]),
        lesion_images=np.concatenate(lesion_images),
        lesion_rows=np.concatenate(lesion_rows),
        lesion_labels=np.concatenate(lesion_labels),
        lesion_scores=np.concatenate(lesion_scores),
        false_images=np.concatenate(false_images),
        false_labels=np.concatenate(false_labels),
        false_scores=np.concatenate(false_scores),
    )
