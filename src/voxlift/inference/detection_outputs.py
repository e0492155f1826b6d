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
from voxlift.inference.dicom_objects import write_dicom
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

    def check_names(self, cases: Sequence[SegmentationInput]) -> None:
        """See that no name is too long to be written.

        Raises:
            DataError: If one is.
        """
        for case in cases:
            beyond = len(os.fsencode(self.json(case).name)) + _ASIDE_BYTES - _MAX_NAME_BYTES
            if beyond > 0:
                raise DataError(
                    f"{case.path}: the name of its output {self.json(case).name} would be {beyond} "
                    "bytes too long for a file system. Give the input a shorter name."
                )

    def check_free(self, cases: Sequence[SegmentationInput]) -> None:
        """Refuse to write over what is there.

        Raises:
            DataError: If something is there.
        """
        table = self.folder / TABLE_NAME
        there = [path for case in cases for path in self._any(case) if path.exists()]
        there = [table, *there] if table.exists() else there
        if there:
            more = f" and {len(there) - 3} more" if len(there) > 3 else ""
            raise DataError(
                f"These are there already: {', '.join(map(str, there[:3]))}{more}. Go on with an "
                "unfinished run by --resume, replace them by --overwrite, or choose another folder "
                "with --out."
            )

    def read(
        self, case: SegmentationInput, *, model: ModelIdentity, thresholds: Thresholds
    ) -> CandidateFile | None:
        """Read what an earlier run found in a case, to go on with it; None if there is nothing.

        Raises:
            DataError: If it cannot be read, or is of another input, model or threshold.
        """
        path = self.json(case)
        if not path.exists():
            return None
        found = read_candidates(path)
        _check_input(path, found, case)
        difference = _difference(found, model, thresholds)
        if difference:
            raise DataError(
                f"{path} {difference}. Detect again by --overwrite, or choose another folder with "
                "--out."
            )
        return found

    def check_replaced(self, cases: Sequence[SegmentationInput]) -> None:
        """See that what cases of an earlier run left is replaced by the same cases alone.

        Raises:
            DataError: If outputs of another input have the name of one of these.
        """
        for case in cases:
            try:
                found = read_candidates(self.json(case))
            except DataError:
                # Nothing, or nothing that can be read, whose place is taken.
                continue
            _check_input(self.json(case), found, case)

    def check_others(
        self,
        cases: Sequence[SegmentationInput],
        *,
        model: ModelIdentity,
        thresholds: Thresholds,
    ) -> None:
        """See that candidates of other cases, which stay, were found in the same way.

        Raises:
            DataError: If some cannot be read, or are of another model or threshold.
        """
        replaced = {self.json(case) for case in cases}
        for path in sorted(self.folder.glob(f"*{JSON_ENDING}")):
            if path in replaced:
                continue
            difference = _difference(read_candidates(path), model, thresholds)
            if difference:
                raise DataError(
                    f"{path} {difference}, and {TABLE_NAME} would mix its candidates with new "
                    "ones. Choose another folder with --out."
                )

    def remove(self, case: SegmentationInput) -> None:
        """Remove every file that an earlier run may have left of a case."""
        for path in self._any(case):
            path.unlink(missing_ok=True)

    def write(self, case: SegmentationInput, answer: DetectedCase, *, is_ct: bool) -> None:
        """Write all files of a case, the candidates last: once they are there, it is done.

        Args:
            case: The input.
            answer: What was found.
            is_ct: Whether its values are HU, which pictures have windows for.
        """
        # Those of an earlier run do not go with the picture of this one.
        self.remove(case)
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
            write_dicom(self.report(case), answer.report)
        write_candidates(self.json(case), answer.content)

    def _any(self, case: SegmentationInput) -> list[Path]:
        """Every file that some run may have written of a case, the candidates first."""
        return [self.json(case), self.picture(case), self.report(case)]


def _check_input(path: Path, found: CandidateFile, case: SegmentationInput) -> None:
    if Path(found.input).resolve() != case.path.resolve():
        raise DataError(
            f"{path} is of {found.input}, not of {case.path}. Choose another folder with --out."
        )


def _difference(found: CandidateFile, model: ModelIdentity, thresholds: Thresholds) -> str:
    """Tell how candidates were found otherwise; empty if they were not."""
    if found.model != model:
        return (
            f"is of another model: {found.model.name} (sha256 {str(found.model.sha256)[:12]}) "
            f"instead of {model.name} ({str(model.sha256)[:12]})"
        )
    asked = thresholds.model_dump()
    differences = [
        f"{name} {_shown(value)} instead of {_shown(asked[name])}"
        for name, value in found.thresholds.model_dump().items()
        if value != asked[name]
    ]
    return f"was made with other thresholds: {', '.join(differences)}" if differences else ""


def _shown(value: float) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}"
