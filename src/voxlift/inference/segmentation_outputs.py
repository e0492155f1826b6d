"""The files that a segmented case leaves: mask, picture, probability maps, DICOM SEG."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import LabelScheme
from voxlift.data.orientation import to_canonical
from voxlift.data.volume import Volume
from voxlift.data.write_like import write_like
from voxlift.figures.segmentation import plot_overview, values_of_structures
from voxlift.inference.dicom_objects import write_dicom
from voxlift.inference.segmentation import Segmentation
from voxlift.inference.segmentation_inputs import SegmentationInput

if TYPE_CHECKING:
    from pydicom import Dataset

# Of the input's own format, as far as it can be written.
_OWN_SUFFIXES = {
    ".nii.gz": ".nii.gz",
    ".nii": ".nii",
    ".nrrd": ".nrrd",
    ".nhdr": ".nrrd",
    ".mha": ".mha",
    ".mhd": ".mha",
    ".npz": ".npz",
    ".npy": ".npz",
}
_MAX_NAME_BYTES = 255
# A file is written under a temporary name that is so much longer.
_ASIDE_BYTES = 10


@dataclass(frozen=True, eq=False)
class SegmentedCase:
    """A case with what was found in it.

    Attributes:
        image: Its first channel, for the picture.
        found: What was found.
        dicom_seg: The same as a DICOM SEG object, if that is wanted.
    """

    image: Volume
    found: Segmentation
    dicom_seg: "Dataset | None" = None


@dataclass(frozen=True)
class SegmentationOutputs:
    """Which files are written for each case, and where.

    Args:
        folder: Where to.
        labels: What the model finds.
        probabilities: Write a probability map for each structure as well.
        dicom_seg: Write a DICOM SEG object as well, where the input is a DICOM series.
        own_format: Write masks in the format of the input instead of `.nii.gz`; DICOM has none.
    """

    folder: Path
    labels: LabelScheme
    probabilities: bool = False
    dicom_seg: bool = False
    own_format: bool = False

    def mask(self, case: SegmentationInput) -> Path:
        """Where the mask goes."""
        return self.folder / f"{case.name}.seg{self._suffix(case)}"

    def overview(self, case: SegmentationInput) -> Path:
        """Where the picture goes."""
        return self.folder / f"{case.name}.png"

    def probability_maps(self, case: SegmentationInput) -> dict[int, Path]:
        """Where the probability maps go, by the number of the output; the background has none."""
        if not self.probabilities:
            return {}
        names = self.labels.structures
        first = self.labels.num_outputs - len(names)
        if len(names) == 1:
            return {first: self.folder / f"{case.name}.prob.nii.gz"}
        return {
            number: self.folder / f"{case.name}.{word}.prob.nii.gz"
            for number, word in enumerate(_words(names), start=first)
        }

    def dicom_path(self, case: SegmentationInput) -> Path:
        """Where the DICOM SEG object goes."""
        return self.folder / f"{case.name}.seg.dcm"

    def has_dicom(self, case: SegmentationInput) -> bool:
        """Whether a case has a DICOM SEG object: if it is wanted, and the input is a series."""
        return self.dicom_seg and case.path.is_dir()

    def paths(self, case: SegmentationInput) -> list[Path]:
        """List all files of a case."""
        return [
            self.mask(case),
            *self.probability_maps(case).values(),
            *([self.dicom_path(case)] if self.has_dicom(case) else []),
            self.overview(case),
        ]

    def check_names(self, cases: Sequence[SegmentationInput]) -> None:
        """See that no name is too long to be written.

        Raises:
            DataError: If one is.
        """
        for case in cases:
            for path in self.paths(case):
                beyond = len(os.fsencode(path.name)) + _ASIDE_BYTES - _MAX_NAME_BYTES
                if beyond > 0:
                    raise DataError(
                        f"{case.path}: the name of its output {path.name} would be {beyond} bytes "
                        "too long for a file system. Give the input a shorter name."
                    )

    def write(
        self,
        case: SegmentationInput,
        answer: SegmentedCase,
        *,
        window: tuple[float, float] | None,
    ) -> None:
        """Write all files of a case; what stands there is replaced.

        Args:
            case: The input.
            answer: What became of it.
            window: Values shown as black and as white in the picture; None goes by the image.

        Raises:
            DataError: If a file cannot be written.
        """
        found = answer.found
        write_like(self.mask(case), found.mask, source=case.path, overwrite=True)
        for number, path in self.probability_maps(case).items():
            probabilities = replace(found.mask, array=found.probabilities[number])
            write_like(path, probabilities, source=case.path, overwrite=True)
        if answer.dicom_seg is not None:
            write_dicom(self.dicom_path(case), answer.dicom_seg)
        shown = to_canonical(answer.image)
        plot_overview(
            shown.array,
            to_canonical(found.mask).array,
            self.overview(case),
            structures=values_of_structures(self.labels),
            spacing_mm=shown.spacing_mm,
            window=window,
            title=case.name,
        )

    def _suffix(self, case: SegmentationInput) -> str:
        name = case.path.name.lower()
        if not self.own_format or case.path.is_dir():
            return ".nii.gz"
        return next((own for end, own in _OWN_SUFFIXES.items() if name.endswith(end)), ".nii.gz")


def _words(names: Sequence[str]) -> list[str]:
    """Make names of structures fit for file names, and keep them apart."""
    words: list[str] = []
    for name in names:
        word = re.sub(r"[^\w+-]+", "-", name).strip("-") or "structure"
        while word in words:
            word += "-"
        words.append(word)
    return words
