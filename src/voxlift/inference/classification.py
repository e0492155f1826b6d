"""Judge a classifier on labelled cases: metrics, baselines, figures and a table of predictions."""

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict

from voxlift.core.files import write_text
from voxlift.data.case_statistics import case_statistics
from voxlift.data.classification_batches import volume_loader
from voxlift.data.classification_cases import ClassificationCases
from voxlift.figures.classification import plot_confusion, plot_reliability, plot_roc
from voxlift.inference.saved_model import SavedModel
from voxlift.metrics.baselines import Baseline, TrivialFeatures, trivial_baselines
from voxlift.metrics.classification import ClassificationMetrics, classification_metrics
from voxlift.metrics.reliability import reliability_curve
from voxlift.metrics.roc import roc_curve

logger = logging.getLogger(__name__)

Indices = npt.NDArray[np.int64]
Probabilities = Float32[np.ndarray, "cases classes"]


class ClassificationReport(BaseModel):
    """What an evaluation found.

    Args:
        split: The cases that were judged.
        metrics: AUROC and the like, each with its interval.
        baselines: AUROC that one number a case reaches, beside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str
    metrics: ClassificationMetrics
    baselines: dict[str, Baseline]


def predict_cases(
    model: SavedModel, cases: ClassificationCases, indices: Indices, *, batch_size: int = 8
) -> Probabilities:
    """Compute the class probabilities of labelled cases, in the order of `indices`."""
    loader = volume_loader(
        cases,
        indices,
        preprocessing=model.preprocessing,
        batch_size=batch_size,
        seed=0,
        shuffle=False,
    )
    return np.concatenate([model.probabilities(batch["image"]).numpy() for batch in loader])


def write_report(
    folder: Path,
    cases: ClassificationCases,
    indices: Indices,
    probabilities: Probabilities,
    *,
    split: str,
    threshold: float | None,
    train_indices: Indices,
    seed: int = 0,
) -> ClassificationReport:
    """Judge probabilities and write metrics, predictions and figures.

    `metrics.json`, `predictions.csv`, and, in `figures/`, the confusion matrix, ROC and reliability
    curve. Cases are named by their id; groups (patients) appear nowhere.

    Args:
        folder: Where to write.
        cases: The data set.
        indices: The cases that were predicted.
        probabilities: One row a case.
        split: Their name, such as `test`.
        threshold: Probability of class 1 from which it is called, for two classes.
        train_indices: The training cases, on which the baselines choose their direction; without
            any, or with cases of one class only, there are no baselines.
        seed: Seed of the bootstrap.
    """
    labels = cases.labels[indices]
    groups = [cases.groups[index] for index in indices]
    metrics = classification_metrics(
        probabilities,
        labels,
        class_names=cases.class_names,
        groups=groups,
        threshold=threshold,
        seed=seed,
    )
    comparable = len(train_indices) and len(np.unique(labels)) > 1
    baselines = case_baselines(cases, indices, train_indices, seed=seed) if comparable else {}
    report = ClassificationReport(split=split, metrics=metrics, baselines=baselines)
    write_text(folder / "metrics.json", json.dumps(report.model_dump(mode="json"), indent=2) + "\n")
    write_text(
        folder / "predictions.csv",
        predictions_csv(
            [cases.cases[index].id for index in indices],
            probabilities,
            cases.class_names,
            threshold=threshold,
            labels=[cases.class_names[label] for label in labels],
        ),
    )
    _draw(folder / "figures", probabilities, labels, groups, metrics, seed=seed)
    return report


def case_baselines(
    cases: ClassificationCases, test: Indices, train: Indices, *, seed: int
) -> dict[str, Baseline]:
    """Find out how far one number a case goes, such as its brightness.

    Args:
        cases: The data set.
        test: The cases to rank.
        train: The cases that decide on the direction.
        seed: Seed of the bootstrap.

    Raises:
        DataError: If either part holds one class only, or a volume cannot be read.
    """
    features = []
    for indices in (test, train):
        statistics = case_statistics(cases, indices)
        features.append(
            TrivialFeatures(
                labels=cases.labels[indices],
                mean_intensity=statistics.mean_intensity,
                mask_volume=statistics.mask_volume_mm3,
                groups=[cases.groups[index] for index in indices],
            )
        )
    return trivial_baselines(features[0], train=features[1], seed=seed)


def _draw(
    folder: Path,
    probabilities: Probabilities,
    labels: Indices,
    groups: Sequence[str],
    metrics: ClassificationMetrics,
    *,
    seed: int,
) -> None:
    names = metrics.class_names
    present = [c for c in np.unique(labels) if 0 < (labels == c).sum() < len(labels)]
    shown = [c for c in present if len(names) > 2 or c == 1]
    curves = {
        names[c]: roc_curve(probabilities, labels, positive_class=int(c), groups=groups, seed=seed)
        for c in shown
    }
    if curves:
        binary = metrics.threshold is not None
        point = (metrics.sensitivity.value, metrics.specificity.value) if binary else None
        plot_roc(curves, folder / "roc.png", operating_point=point)
    plot_confusion(metrics.confusion_matrix, names, folder / "confusion.png")
    plot_reliability(
        reliability_curve(probabilities, labels, groups=groups, seed=seed),
        folder / "reliability.png",
        calibration_error=metrics.calibration_error,
    )


def predictions_csv(
    ids: Sequence[str],
    probabilities: Probabilities,
    class_names: Sequence[str],
    *,
    threshold: float | None,
    labels: Sequence[str] | None = None,
) -> str:
    """Write predictions as CSV: case, (label,) prediction, and one probability a class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    truth = ["label"] if labels is not None else []
    writer.writerow(["case", *truth, "prediction", *(f"p_{name}" for name in class_names)])
    for row, case in enumerate(ids):
        known = [labels[row]] if labels is not None else []
        called = call_class(probabilities[row], threshold)
        numbers = [f"{p:.6f}" for p in probabilities[row]]
        writer.writerow([case, *known, class_names[called], *numbers])
    return text.getvalue()


def call_class(probabilities: npt.NDArray[np.float32], threshold: float | None) -> int:
    """Decide on a class: by the threshold where there is one, else the likeliest."""
    if threshold is not None and len(probabilities) == 2:
        return int(probabilities[1] >= threshold)
    return int(probabilities.argmax())
