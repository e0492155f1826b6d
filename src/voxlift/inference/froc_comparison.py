"""Compare detectors that were judged on the same images, by the reports that were written."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from voxlift.core.detection_settings import Matching
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.files import write_text
from voxlift.data.detection_cases import DetectionCase
from voxlift.figures.froc import plot_froc
from voxlift.inference.froc_file import (
    FINDINGS_FILE,
    FrocRecord,
    JudgedFindings,
    digest_cases,
    load_findings,
    load_froc,
)
from voxlift.metrics.bootstrap import Interval
from voxlift.metrics.froc import FrocResult, froc_of
from voxlift.metrics.froc_bootstrap import froc_difference

COMPARISON_FILE = "comparison.json"
COMPARISON_FIGURE = "froc-comparison.png"


class RunDifference(BaseModel):
    """By how much one run finds more lesions than the first, over all classes.

    Attributes:
        name: The run.
        sensitivity: Difference at each rate.
        mean_sensitivity: Difference of the means over the rates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sensitivity: tuple[Interval, ...]
    mean_sensitivity: Interval


class RunComparison(BaseModel):
    """What `comparison.json` holds.

    Attributes:
        reference: The run that the others are compared with.
        false_positives_per_image: Rates at which all were read.
        mean_sensitivity: Of each run, over the rates.
        differences: Of each run but the first, its sensitivity less that of the first, with paired
            intervals over patients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    false_positives_per_image: tuple[float, ...]
    mean_sensitivity: dict[str, Interval]
    differences: tuple[RunDifference, ...]

    def intervals(self) -> dict[str, Interval]:
        """Give the mean sensitivity of each run, and the differences, by name."""
        means = {f"sensitivity/{name}": value for name, value in self.mean_sensitivity.items()}
        return means | {
            f"{each.name} - {self.reference}": each.mean_sensitivity for each in self.differences
        }


def check_comparable(
    folders: Sequence[Path], *, cases: Sequence[DetectionCase], matching: Matching
) -> None:
    """See that reports can be compared with one that is to be made, before it is made.

    Args:
        folders: Where `judge_detector` wrote.
        cases: The cases that are to be judged.
        matching: How the overlap that makes a hit will be measured.

    Raises:
        ConfigError: If one is given twice.
        DataError: If one cannot be read, or was measured on other images or in another way.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("A report is given twice. Give each once.")
    digest = digest_cases(cases)
    for folder in folders:
        record = load_froc(folder)
        if record.cases_sha256 != digest:
            raise DataError(
                f"{folder} was measured on {record.num_images} images with {record.num_lesions} "
                f"lesions, and these are {len(cases)} images, or their true boxes are others. "
                "Compare runs on the same data and split."
            )
        if record.matching != matching:
            raise DataError(
                f"{folder} was measured by {record.matching}, this would be by {matching}. Give "
                f"--matching {record.matching}, or evaluate that one again."
            )


def compare_runs(folders: Sequence[Path], out: Path, *, seed: int = 0) -> RunComparison:
    """Draw the FROC curves of several reports over each other, and compare them with the first.

    Writes `froc-comparison.png` and `comparison.json`.

    Args:
        folders: Where `judge_detector` wrote; each is called by its folder's name, or by its path
            where two have one name.
        out: Where to write.
        seed: Seed of the bootstrap.

    Raises:
        ConfigError: If there are fewer than two reports, one is given twice, or `out` holds a
            comparison already.
        DataError: If a report cannot be read, or they were not measured on the same images and true
            boxes, at the same overlap, or at the same rates.
    """
    names = _names(folders)
    if (out / COMPARISON_FILE).exists():
        raise ConfigError(
            f"{out} holds a comparison already ({COMPARISON_FILE}). Choose another with --out."
        )
    records = [load_froc(folder) for folder in folders]
    for folder, record in zip(folders[1:], records[1:], strict=True):
        _check_alike(folders[0], records[0], folder, record)
    found = [_load_checked(*pair) for pair in zip(folders, records, strict=True)]
    curves = {name: record.all_classes.curve() for name, record in zip(names, records, strict=True)}
    rates = records[0].all_classes.false_positives_per_image
    results = [froc_of(each.findings, rates=rates) for each in found]
    comparison = RunComparison(
        reference=names[0],
        false_positives_per_image=rates,
        mean_sensitivity={name: curve.mean_sensitivity for name, curve in curves.items()},
        differences=tuple(
            _difference(name, result, results[0], found[0], records[0], seed=seed)
            for name, result in zip(names[1:], results[1:], strict=True)
        ),
    )
    out.mkdir(parents=True, exist_ok=True)
    plot_froc(curves, out / COMPARISON_FIGURE, title="FROC curves")
    content = json.dumps(comparison.model_dump(mode="json"), indent=2)
    write_text(out / COMPARISON_FILE, content + "\n")
    return comparison


def _names(folders: Sequence[Path]) -> list[str]:
    if len(folders) < 2:
        raise ConfigError(f"{len(folders)} report is given, but two or more can be compared.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ConfigError("A report is given twice. Give each once.")
    last = [folder.resolve().name for folder in folders]
    counts = Counter(last)
    return [
        name if counts[name] == 1 else str(folder)
        for name, folder in zip(last, folders, strict=True)
    ]


def _check_alike(first: Path, expected: FrocRecord, folder: Path, found: FrocRecord) -> None:
    """Refuse what would compare apples with pears.

    Raises:
        DataError: If the two were not measured alike.
    """
    if found.cases_sha256 != expected.cases_sha256:
        raise DataError(
            f"{folder} was measured on {found.num_images} images with {found.num_lesions} lesions, "
            f"{first} on {expected.num_images} with {expected.num_lesions}, and they are not the "
            "same images with the same true boxes. Evaluate both on the same data and split."
        )
    for what, ours, theirs in (
        ("overlap that makes a hit", found.iou_threshold, expected.iou_threshold),
        ("measure of this overlap", found.matching, expected.matching),
        (
            "false positives an image",
            found.all_classes.false_positives_per_image,
            expected.all_classes.false_positives_per_image,
        ),
    ):
        if ours != theirs:
            raise DataError(
                f"{folder} was measured with other settings than {first}: the {what} is {ours} "
                f"instead of {theirs}. Evaluate both with the same."
            )


def _load_checked(folder: Path, record: FrocRecord) -> JudgedFindings:
    found = load_findings(folder)
    if found.cases_sha256 != record.cases_sha256:
        raise DataError(
            f"{folder / FINDINGS_FILE} is of other images than the curve beside it. Evaluate again."
        )
    return found


def _difference(
    name: str,
    ours: FrocResult,
    theirs: FrocResult,
    judged: JudgedFindings,
    record: FrocRecord,
    *,
    seed: int,
) -> RunDifference:
    difference = froc_difference(
        ours,
        theirs,
        groups=judged.groups,
        confidence=record.all_classes.confidence,
        seed=seed,
    )
    return RunDifference(
        name=name,
        sensitivity=difference.sensitivity,
        mean_sensitivity=difference.mean_sensitivity,
    )
