"""Where the candidates of volumes are written, and how they are shown."""

import os
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
    ModelIdentity,
    Thresholds,
    read_candidates,
    write_candidates,
)
from voxlift.inference.candidate_overview import write_candidate_overview
from voxlift.inference.candidates import Candidate
from voxlift.inference.dicom_sr import write_dicom_sr
from voxlift.inference.segmentation_inputs import SegmentationInput

if TYPE_CHECKING:
    from pydicom import Dataset

_MAX_NAME_BYTES = 255
# A file being written has a longer name for a while.
_ASIDE_BYTES = 10


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
        """Refuse to write over what is there, and names that cannot be written.

        Raises:
            DataError: If something is there, or a name is too long.
        """
        for case in cases:
            beyond = len(os.fsencode(self.json(case).name)) + _ASIDE_BYTES - _MAX_NAME_BYTES
            if beyond > 0:
                raise DataError(
                    f"{case.path}: the name of its output {self.json(case).name} would be {beyond} "
                    "bytes too long for a file system. Give the input a shorter name."
                )
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

    def read(
        self, case: SegmentationInput, *, model: ModelIdentity, thresholds: Thresholds
    ) -> CandidateFile:
        """Read what an earlier run found in a case, to go on with it.

        Raises:
            DataError: If it cannot be read, or is of another input, model or threshold.
        """
        path = self.json(case)
        found = read_candidates(path)
        remedy = "Detect again by --overwrite, or choose another folder with --out."
        if Path(found.input).resolve() != case.path.resolve():
            raise DataError(f"{path} is of {found.input}, not of {case.path}. {remedy}")
        if found.model != model:
            raise DataError(
                f"{path} is of another model: {found.model.name} (sha256 "
                f"{str(found.model.sha256)[:12]}) instead of {model.name} "
                f"({str(model.sha256)[:12]}). {remedy}"
            )
        if found.thresholds != thresholds:
            asked = thresholds.model_dump()
            differences = ", ".join(
                f"{name} {_shown(value)} instead of {_shown(asked[name])}"
                for name, value in found.thresholds.model_dump().items()
                if value != asked[name]
            )
            raise DataError(f"{path} was made with other thresholds: {differences}. {remedy}")
        return found

    def write(self, case: SegmentationInput, answer: DetectedCase, *, is_ct: bool) -> None:
        """Write all files of a case, the candidates last: once they are there, it is done.

        Args:
            case: The input.
            answer: What was found.
            is_ct: Whether its values are HU, which pictures have windows for.
        """
        # Those of an earlier run do not go with the picture of this one.
        self.json(case).unlink(missing_ok=True)
        write_candidate_overview(
            self.picture(case),
            answer.merged,
            answer.content.candidates,
            volume=answer.volume,
            is_ct=is_ct,
            num_found=answer.content.num_found,
            title=case.name,
        )
        if answer.report is not None:
            write_dicom_sr(self.report(case), answer.report)
        write_candidates(self.json(case), answer.content)


def _shown(value: float) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}"
