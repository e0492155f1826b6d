"""Results as tables for the console."""

from collections.abc import Mapping
from math import isnan

from rich.table import Table

from voxlift.inference.detection_files import DetectedFiles
from voxlift.inference.segmentation_files import SegmentedFiles
from voxlift.inference.volumes import Predictions
from voxlift.metrics.bootstrap import Interval
from voxlift.probing import ProbeResult

CANDIDATES_SHOWN = 5


def judgement_table(
    title: str, metrics: Mapping[str, Interval], baselines: Mapping[str, float]
) -> Table:
    """Show metrics with their intervals, and what one number a case would have reached."""
    table = Table("metric", "value", "95 % interval", title=title)
    for name, found in metrics.items():
        bounds = "" if isnan(found.low) else f"{found.low:.4f} to {found.high:.4f}"
        table.add_row(name, f"{found.value:.4f}", bounds)
    for name, value in baselines.items():
        table.add_row(f"auroc of {name} alone", f"{value:.4f}", "")
    return table


def answer_table(result: Predictions) -> Table:
    """Show what a classifier says about each input."""
    table = Table("input", "prediction", "probability")
    for answer in result.predictions:
        table.add_row(str(answer.path), answer.class_name, f"{answer.probability:.3f}")
    return table


def volume_table(result: SegmentedFiles) -> Table:
    """Show the volume of each structure in each input."""
    names = list(result.files[0].volumes_ml) if result.files else []
    table = Table("input", "mask", *(f"{name} (ml)" for name in names))
    for each in result.files:
        volumes = (_millilitres(each.volumes_ml[name]) for name in names)
        table.add_row(str(each.path), each.mask.name, *volumes)
    return table


def candidate_table(result: DetectedFiles) -> Table:
    """Show the surest candidates in each input, and how many there are."""
    columns = ("input", "rank", "class", "score", "slice", "centre x, y, z (mm, LPS)")
    table = Table(*columns, "size (mm)", caption="Slices count from 1.")
    for file in result.files:
        found = file.content.candidates
        for each in found[:CANDIDATES_SHOWN]:
            centre = ", ".join(f"{value:.1f}" for value in each.centre_mm)
            size = " x ".join(f"{value:.0f}" for value in each.key_size_mm)
            row = (str(each.rank), each.class_name, f"{each.score:.2f}", f"{each.key_index + 1:g}")
            table.add_row(file.path.name, *row, centre, size)
        more = len(found) - CANDIDATES_SHOWN
        if more > 0 or not found:
            table.add_row(file.path.name, f"and {more} more" if found else "none")
    return table


def _millilitres(volume_ml: float) -> str:
    return f"{volume_ml:.0f}" if volume_ml >= 100 else f"{volume_ml:.3g}"


def probe_table(result: ProbeResult) -> Table:
    """Show what simple classifiers make of the features of each start."""
    columns = ("start", "classifier", "AUROC", "balanced accuracy", "AUROC against scratch")
    table = Table(*columns, title=result.title)
    for score in result.scores:
        gain = "" if score.gain is None else _span(score.gain, sign="+")
        table.add_row(
            score.start,
            score.method,
            _span(score.auroc),
            _span(score.balanced_accuracy),
            gain,
        )
    for name, baseline in result.baselines.items():
        table.add_row(f"({name} alone)", "", _span(baseline.auroc), "", "")
    return table


def _span(interval: Interval, *, sign: str = "") -> str:
    value, low, high = (f"{x:{sign}.3f}" for x in (interval.value, interval.low, interval.high))
    return value if isnan(interval.low) else f"{value} ({low} to {high})"
