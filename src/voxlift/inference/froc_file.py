"""FROC curves on disk: `froc.json`, to be drawn again, and `findings.npz`, to be compared.

Neither names a patient: `findings.npz` numbers them by their first image.
"""

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from voxlift.core.detection_settings import Matching
from voxlift.core.errors import DataError
from voxlift.core.files import write_aside, write_text
from voxlift.data.detection_cases import DetectionCase
from voxlift.data.npz import read_npz
from voxlift.metrics.bootstrap import Interval, Number
from voxlift.metrics.detection import DetectionJudgement
from voxlift.metrics.findings import Findings
from voxlift.metrics.froc_bootstrap import FrocCurve

FROC_FILE = "froc.json"
FINDINGS_FILE = "findings.npz"
_GROUPS = "image_groups"
_CASES = "cases_sha256"


class CurveRecord(BaseModel):
    """An FROC curve with intervals, as `FrocCurve` has it; NaN is written as null."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    false_positives_per_image: tuple[float, ...]
    sensitivity: tuple[Interval, ...]
    mean_sensitivity: Interval
    grid: tuple[float, ...]
    grid_sensitivity: tuple[Number, ...]
    low: tuple[Number, ...]
    high: tuple[Number, ...]
    num_groups: int
    confidence: float

    @classmethod
    def of(cls, curve: FrocCurve) -> Self:
        """Take a curve."""
        values = {field.name: getattr(curve, field.name) for field in fields(curve)}
        return cls.model_validate(
            {
                name: value.tolist() if isinstance(value, np.ndarray) else value
                for name, value in values.items()
            }
        )

    def curve(self) -> FrocCurve:
        """Give it back."""
        return FrocCurve(
            false_positives_per_image=np.array(self.false_positives_per_image),
            sensitivity=self.sensitivity,
            mean_sensitivity=self.mean_sensitivity,
            grid=np.array(self.grid),
            grid_sensitivity=np.array(self.grid_sensitivity),
            low=np.array(self.low),
            high=np.array(self.high),
            num_groups=self.num_groups,
            confidence=self.confidence,
        )


class FrocRecord(BaseModel):
    """What `froc.json` holds.

    Attributes:
        cases_sha256: Of the cases that were judged and their true boxes; see `digest_cases`.
        num_images: How many they are.
        num_lesions: How many lesions had to be found.
        iou_threshold: The overlap that makes a hit.
        matching: How that overlap is measured.
        all_classes: The curve over all classes.
        by_class: Those of single classes, if there are several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases_sha256: str
    num_images: int
    num_lesions: int
    iou_threshold: float
    matching: Matching
    all_classes: CurveRecord
    by_class: dict[str, CurveRecord]


@dataclass(frozen=True, eq=False)
class JudgedFindings:
    """What `findings.npz` holds.

    Attributes:
        cases_sha256: As in `froc.json`.
        findings: The lesions and false positives.
        groups: Number of the patient of each image.
    """

    cases_sha256: str
    findings: Findings
    groups: npt.NDArray[np.int64]


def digest_cases(cases: Sequence[DetectionCase]) -> str:
    """Compute a SHA-256 of the ids of cases, in their order, and of what is marked in each."""
    digest = hashlib.sha256()
    for case in cases:
        truth = case.truth
        digest.update(json.dumps([case.id, len(truth)]).encode())
        for values, kind in ((truth.boxes, "<f4"), (truth.labels, "<i8"), (truth.crowd, "?")):
            digest.update(values.astype(kind).tobytes())
    return digest.hexdigest()


def write_froc(
    folder: Path,
    judged: DetectionJudgement,
    cases: Sequence[DetectionCase],
    *,
    by_class: Mapping[str, FrocCurve],
) -> None:
    """Write `froc.json` and `findings.npz`.

    Args:
        folder: Where to write.
        judged: The curve and what is behind it.
        cases: The cases that were judged.
        by_class: Curves of single classes.
    """
    digest = digest_cases(cases)
    record = FrocRecord(
        cases_sha256=digest,
        num_images=judged.froc.num_images,
        num_lesions=judged.froc.num_lesions,
        iou_threshold=judged.metrics.iou_threshold,
        matching=judged.metrics.matching,
        all_classes=CurveRecord.of(judged.curve),
        by_class={name: CurveRecord.of(curve) for name, curve in by_class.items()},
    )
    arrays = {
        field.name: getattr(judged.froc.findings, field.name) for field in fields(Findings)
    } | {_GROUPS: _numbered([case.group for case in cases]), _CASES: np.array(digest)}
    with write_aside(folder / FINDINGS_FILE) as aside:
        np.savez_compressed(aside, **arrays)
    write_text(folder / FROC_FILE, json.dumps(record.model_dump(mode="json")) + "\n")


def load_froc(folder: str | Path) -> FrocRecord:
    """Read the `froc.json` of a report.

    Raises:
        DataError: If it is not there or damaged.
    """
    path = Path(folder) / FROC_FILE
    try:
        return FrocRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} holds no {FROC_FILE}. Give the folder of a detector's evaluation."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({_first_problem(error)}). Evaluate again.") from error


def load_froc_curve(folder: str | Path) -> FrocCurve:
    """Read the curve of a report, over all classes, to be drawn or read again.

    Raises:
        DataError: If it is not there or damaged.
    """
    return load_froc(folder).all_classes.curve()


def load_findings(folder: str | Path) -> JudgedFindings:
    """Read the `findings.npz` of a report.

    Raises:
        DataError: If it is not there or damaged.
    """
    path = Path(folder) / FINDINGS_FILE
    if not path.is_file():
        raise DataError(
            f"{folder} holds no {FINDINGS_FILE}. Give the folder of a detector's evaluation."
        )
    try:
        names = [field.name for field in fields(Findings)]
        arrays = read_npz(path, (*names, _GROUPS, _CASES))
        return JudgedFindings(
            cases_sha256=str(arrays[_CASES]),
            findings=Findings(**{name: arrays[name] for name in names}),
            groups=arrays[_GROUPS],
        )
    except DataError as error:
        raise DataError(f"{path} is damaged ({error}). Evaluate again.") from error


def _numbered(groups: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    """Number groups by their first image, so that nothing is left of their names."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def _first_problem(error: Exception) -> str:
    """Say what is the matter; a validation error would quote half of the file."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or FROC_FILE}: {first['msg']}"
    return str(error)
