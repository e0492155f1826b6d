"""Judge a segmenter on cases with masks: metrics, a row a case, and pictures of the worst."""

import csv
import io
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from voxlift.core.errors import DataError
from voxlift.core.files import write_text
from voxlift.core.label_scheme import IGNORED, LabelScheme
from voxlift.data.orientation import to_canonical
from voxlift.data.segmentation_cases import SegmentationCases
from voxlift.data.volume import Volume
from voxlift.figures.dice import plot_dice
from voxlift.figures.segmentation import JudgedCase, plot_worst_cases, values_of_structures
from voxlift.inference.saved_model import SavedModel
from voxlift.inference.segmentation import SegmentOptions, segment
from voxlift.metrics.segmentation import METRIC_NAMES, SegmentationMetrics, summarize
from voxlift.metrics.structures import (
    StructureMetrics,
    case_metrics,
    mean_case_dice,
    worst_cases,
)

logger = logging.getLogger(__name__)

NUM_WORST = 4

CaseMetrics = Mapping[str, StructureMetrics]
Autocast = Callable[[], AbstractContextManager[object]]


class SegmentationReport(BaseModel):
    """What an evaluation found.

    Args:
        split: The cases that were judged.
        metrics: Dice and the like, each with its interval.
        options: How the model was applied.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str
    metrics: SegmentationMetrics
    options: SegmentOptions = SegmentOptions()


def judge_segmenter(
    model: SavedModel,
    cases: SegmentationCases,
    indices: npt.NDArray[np.int64],
    folder: Path,
    *,
    split: str,
    options: SegmentOptions | None = None,
    seed: int = 0,
    autocast: Autocast = nullcontext,
    on_case: Callable[[str], None] | None = None,
) -> SegmentationReport:
    """Segment cases, compare them with their masks, and write the report.

    `metrics.json`, `cases.csv` (one row for each case and structure), and in `figures/` the Dice of
    all cases and the worst ones. Cases are named by their id; groups (patients) appear nowhere.
    Everything is measured on the grid of the image's own file.

    Args:
        model: A segmenter with the classes of the data set.
        cases: The data set.
        indices: The cases to judge.
        folder: Where to write.
        split: Their name, such as `test`.
        options: How the model is applied.
        seed: Seed of the bootstrap.
        autocast: Makes the context in which the network is run: that of prediction, so that what is
            judged is what users get.
        on_case: Called with each case when it is done.

    Raises:
        DataError: If the classes of the data are not the model's, or a case cannot be read.
    """
    check_labels(model.segmentation.labels, cases)
    measured: list[CaseMetrics] = []
    ids = [cases.cases[index].id for index in indices]
    for index, name in zip(indices, ids, strict=True):
        found, truth = _segment_case(model, cases, int(index), options, autocast)
        measured.append(
            case_metrics(found, truth.array, labels=cases.labels, spacing_mm=truth.spacing_mm)
        )
        if on_case is not None:
            on_case(name)
    metrics = summarize(measured, groups=[cases.groups[index] for index in indices], seed=seed)
    report = SegmentationReport(split=split, metrics=metrics, options=options or SegmentOptions())
    write_text(folder / "metrics.json", json.dumps(report.model_dump(mode="json"), indent=2) + "\n")
    write_text(folder / "cases.csv", cases_csv(ids, measured))
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    names = cases.labels.structures
    plot_dice(
        {name: [case[name].dice for case in measured] for name in names},
        figures / "dice.png",
        means={name: metrics.structures[name].metrics["dice"] for name in names},
    )
    worst = worst_cases(measured, count=NUM_WORST)
    if worst:
        plot_worst_cases(
            _draw(model, cases, [(int(indices[i]), measured[i]) for i in worst], options, autocast),
            figures / "worst_cases.png",
            structures=values_of_structures(cases.labels),
            window=model.preprocessing.window,
        )
    return report


def check_labels(labels: LabelScheme, cases: SegmentationCases) -> None:
    """Check that a model and a data set mean the same by the numbers in masks.

    Raises:
        DataError: If they do not.
    """
    found, known = cases.labels, labels
    if (found.values, found.regions) != (known.values, known.regions):
        raise DataError(
            f"{cases.origin} has the classes {found.describe()}, but the model tells apart "
            f"{known.describe()}. Give data with the model's classes."
        )


def cases_csv(ids: Sequence[str], measured: Sequence[CaseMetrics]) -> str:
    """Write the metrics as CSV, one row for each case and structure; what is undefined is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    volumes = ("volume_truth_ml", "volume_prediction_ml")
    writer.writerow(["case", "structure", *METRIC_NAMES, *volumes])
    for case, structures in zip(ids, measured, strict=True):
        for name, metrics in structures.items():
            values = [float(getattr(metrics, column)) for column in (*METRIC_NAMES, *volumes)]
            writer.writerow([case, name, *("" if math.isnan(v) else f"{v:.6g}" for v in values)])
    return text.getvalue()


def _segment_case(
    model: SavedModel,
    cases: SegmentationCases,
    index: int,
    options: SegmentOptions | None,
    autocast: Autocast,
) -> tuple[npt.NDArray[np.bool_], Volume]:
    """Give the masks that the model finds, and the truth, on the grid of the file."""
    channels = cases.read_image(index)
    truth = cases.read_label(index, like=channels[0])
    found = segment(
        model, channels, options=options, autocast=autocast, name=f"case {cases.cases[index].id}"
    )
    numbers = range(len(cases.labels.structures))
    return np.stack([found.structures.structure(number) for number in numbers]), truth


def _draw(
    model: SavedModel,
    cases: SegmentationCases,
    chosen: Sequence[tuple[int, CaseMetrics]],
    options: SegmentOptions | None,
    autocast: Autocast,
) -> Iterator[JudgedCase]:
    """Segment the chosen cases again, for no case is kept."""
    values = np.zeros(IGNORED + 1, dtype=np.uint16)
    values[: len(cases.labels.values)] = cases.labels.values
    for index, measured in chosen:
        channels = cases.read_image(index)
        truth = cases.read_label(index, like=channels[0])
        mask = segment(model, channels, options=options, autocast=autocast).mask
        image, prediction, wanted = (
            to_canonical(volume)
            for volume in (channels[0], mask, replace(truth, array=values[truth.array]))
        )
        yield JudgedCase(
            id=cases.cases[index].id,
            dice=mean_case_dice(measured),
            image=image.array,
            prediction=prediction.array,
            truth=wanted.array,
            spacing_mm=image.spacing_mm,
        )
