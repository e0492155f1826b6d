"""What probes found: numbers with intervals, a table of predictions, a figure, and sentences."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from voxlift.core.files import write_text
from voxlift.figures.probe import ProbeLine, plot_probe
from voxlift.inference.classification import call_class
from voxlift.inference.feature_classifiers import Verdict
from voxlift.metrics.baselines import Baseline
from voxlift.metrics.bootstrap import Interval
from voxlift.metrics.classification import classification_metrics
from voxlift.metrics.paired import auroc_difference

SCRATCH = "scratch"


class ProbeScore(BaseModel):
    """How well one simple classifier does on the features of one start.

    Args:
        start: Name of the start.
        method: `linear` or `k-nn`.
        setting: The C of the penalty, or the number of neighbours.
        threshold: Probability of class 1 from which it is called, of two classes.
        num_features: Length of the features.
        auroc: With an interval over patients; the mean over the classes if there are more than two.
        balanced_accuracy: Likewise.
        gain: Difference of AUROC to the same classifier on the start's control, paired by case;
            None without one.
        control: Name of the network of random weights that it was compared with; None without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: str
    method: str
    setting: float
    threshold: float | None
    num_features: int
    auroc: Interval
    balanced_accuracy: Interval
    gain: Interval | None
    control: str | None = None


@dataclass(frozen=True, eq=False)
class JudgedCases:
    """The cases that the probes were asked about.

    Args:
        ids: What they are called.
        labels: Their classes.
        groups: Their patients, which are written nowhere.
        class_names: What the class numbers stand for.
    """

    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    groups: tuple[str, ...]
    class_names: tuple[str, ...]


def score_verdicts(
    verdicts: Mapping[str, Sequence[Verdict]],
    cases: JudgedCases,
    *,
    num_features: Mapping[str, int],
    controls: Mapping[str, str],
    seed: int,
) -> tuple[ProbeScore, ...]:
    """Judge the verdicts of all starts, and compare each with that on its control.

    Args:
        verdicts: By the name of the start; the same methods in the same order for each.
        cases: The cases.
        num_features: By the name of the start.
        controls: By the name of the start, that of what it is compared with, if there is any.
        seed: Seed of the bootstrap.
    """
    scores = []
    for start, each in verdicts.items():
        for number, verdict in enumerate(each):
            metrics = classification_metrics(
                verdict.probabilities,
                cases.labels,
                class_names=cases.class_names,
                groups=list(cases.groups),
                threshold=verdict.threshold,
                seed=seed,
            )
            gain, control = None, controls.get(start)
            if control is not None:
                gain = auroc_difference(
                    verdict.probabilities,
                    verdicts[control][number].probabilities,
                    cases.labels,
                    groups=list(cases.groups),
                    seed=seed,
                )
            scores.append(
                ProbeScore(
                    start=start,
                    method=verdict.method,
                    setting=verdict.setting,
                    threshold=verdict.threshold,
                    num_features=num_features[start],
                    auroc=metrics.auroc,
                    balanced_accuracy=metrics.balanced_accuracy,
                    gain=gain,
                    control=control,
                )
            )
    return tuple(scores)


def write_probe(
    folder: Path,
    scores: Sequence[ProbeScore],
    verdicts: Mapping[str, Sequence[Verdict]],
    cases: JudgedCases,
    *,
    baselines: Mapping[str, Baseline],
    description: Mapping[str, object],
    title: str,
) -> None:
    """Write `probe.csv`, `predictions.csv`, `figures/probe.png` and, at last, `probe.json`."""
    write_text(folder / "probe.csv", scores_csv(scores))
    write_text(folder / "predictions.csv", verdicts_csv(verdicts, cases))
    plot_probe(
        [
            ProbeLine(name=each.start, method=each.method, auroc=each.auroc, gain=each.gain)
            for each in scores
        ],
        folder / "figures" / "probe.png",
        baselines={name: baseline.auroc for name, baseline in baselines.items()},
        title=title,
    )
    content = {
        **description,
        "scores": [score.model_dump(mode="json") for score in scores],
        "baselines": {name: each.model_dump(mode="json") for name, each in baselines.items()},
    }
    write_text(folder / "probe.json", json.dumps(content, indent=2) + "\n")


def scores_csv(scores: Sequence[ProbeScore]) -> str:
    """Write scores as CSV: one row a start and method, three columns an interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("auroc", "balanced_accuracy", "gain")
    bounds = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    writer.writerow(["start", "method", "setting", "num_features", *bounds, "control"])
    for score in scores:
        numbers: list[str] = []
        for found in (score.auroc, score.balanced_accuracy, score.gain):
            ends = (found.value, found.low, found.high) if found else (np.nan,) * 3
            numbers += ["" if np.isnan(number) else f"{number:.6f}" for number in ends]
        about = [score.start, score.method, f"{score.setting:g}", score.num_features]
        writer.writerow([*about, *numbers, score.control or ""])
    return text.getvalue()


def verdicts_csv(verdicts: Mapping[str, Sequence[Verdict]], cases: JudgedCases) -> str:
    """Write verdicts as CSV: one row a start, method and case."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = cases.class_names
    writer.writerow(
        ["start", "method", "case", "label", "prediction", *(f"p_{name}" for name in names)]
    )
    for start, each in verdicts.items():
        for verdict in each:
            for case, label, row in zip(
                cases.ids, cases.labels, verdict.probabilities, strict=True
            ):
                called = call_class(row.astype(np.float32), verdict.threshold)
                numbers = [f"{p:.6f}" for p in row]
                writer.writerow(
                    [start, verdict.method, case, names[label], names[called], *numbers]
                )
    return text.getvalue()


def tell(scores: Sequence[ProbeScore]) -> tuple[str, ...]:
    """Say in words which starts have features that are better than random ones, and which not."""
    sentences = []
    for method in dict.fromkeys(score.method for score in scores):
        found = [(s.start, s.gain) for s in scores if s.method == method and s.gain is not None]
        kinds = {
            "better than scratch": [name for name, gain in found if gain.low > 0],
            "worse than scratch": [name for name, gain in found if gain.high < 0],
            "no difference that these cases could show": [
                name for name, gain in found if not (gain.low > 0 or gain.high < 0)
            ],
        }
        told = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
        if told:
            sentences.append(f"{method}: {'; '.join(told)}.")
    return tuple(sentences)
