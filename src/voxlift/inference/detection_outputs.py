"""Where the candidates of volumes are written, and how they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from voxlift.core.errors import DataError
from voxlift.data.volume import Volume
from voxlift.inference.candidate_files import (
    JSON_ENDING,
    TABLE_NAME,
    CandidateFile,
    write_candidates,
)
from voxlift.inference.candidate_overview import write_candidate_overview
from voxlift.inference.candidates import Candidate
from voxlift.inference.dicom_sr import write_dicom_sr
from voxlift.inference.segmentation_inputs import SegmentationInput

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True, eq=False)
class DetectedCase:
    """What is to be written of one case.

    Attributes:
        content: The candidates.
        volume: As it was read.
        merged: The same candidates on the canonical order of its axes.
        report: DICOM SR; None where there is none to write.
    """

    content: CandidateFile
    volume: Volume
    merged: Sequence[Candidate]
    report: "Dataset | None"


@dataclass(frozen=True)
class DetectionOutputs:
    """Where the outputs of each case go.

    Attributes:
        folder: Where all go.
        dicom_sr: Whether DICOM inputs get a structured report.
    """

    folder: Path
    dicom_sr: bool

    def json(self, case: SegmentationInput) -> Path:
        """Path of the candidates."""
        return self.folder / f"{case.name}{JSON_ENDING}"

    def picture(self, case: SegmentationInput) -> Path:
        """Path of the picture."""
        return self.folder / f"{case.name}.candidates.png"

    def report(self, case: SegmentationInput) -> Path:
        """Path of the structured report."""
        return self.folder / f"{case.name}.sr.dcm"

    def has_report(self, case: SegmentationInput) -> bool:
        """Whether there shall be one."""
        return self.dicom_sr and case.path.is_dir()

    def paths(self, case: SegmentationInput) -> list[Path]:
        """Every file that a case shall have."""
        report = [self.report(case)] if self.has_report(case) else []
        return [self.json(case), self.picture(case), *report]

    def check(self, cases: Sequence[SegmentationInput], *, may_exist: bool) -> None:
        """Refuse to write over what is there.

        Raises:
            DataError: If something is.
        """
        table = self.folder / TABLE_NAME
        there = [path for case in cases for path in self.paths(case) if path.exists()]
        there = [table, *there] if table.exists() else there
        if there and not may_exist:
            more = f" and {len(there) - 3} more" if len(there) > 3 else ""
            raise DataError(
                f"These are there already: {', '.join(map(str, there[:3]))}{more}. Go on with an "
                "unfinished run by --resume, replace them by --overwrite, or choose another folder "
                "with --out."
            )

    def write(self, case: SegmentationInput, answer: DetectedCase, *, is_ct: bool) -> None:
        """Write all files of a case, the candidates last: once they are there, it is done.

        Args:
            case: The input.
            answer: What was found.
            is_ct: Whether its values are HU, which pictures have windows for.
        """
        write_candidate_overview(
            self.picture(case),
            answer.merged,
            answer.content.candidates,
            volume=answer.volume,
            is_ct=is_ct,
            title=case.name,
        )
        if answer.report is not None:
            write_dicom_sr(self.report(case), answer.report)
        write_candidates(self.json(case), answer.content)
