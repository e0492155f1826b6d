import io
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from voxlift.inference.segmentation_files import SegmentedFile, SegmentedFiles
from voxlift.inference.volumes import Prediction, Predictions
from voxlift.metrics.bootstrap import Interval
from voxlift.tables import answer_table, judgement_table, volume_table


def shown(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_metrics_are_shown_with_their_intervals() -> None:
    metrics = {
        "dice": Interval(value=0.87654, low=0.8, high=0.9),
        "dice/liver": Interval(value=0.5, low=math.nan, high=math.nan),
    }
    text = shown(judgement_table("segment, test cases", metrics, {"volume_mm3": 0.75}))
    for words in ("segment, test cases", "0.8765", "0.8000 to 0.9000", "dice/liver"):
        assert words in text
    assert "auroc of volume_mm3 alone" in text
    assert "nan" not in text


def test_volumes_of_all_structures_are_shown() -> None:
    file = SegmentedFile(Path("a.nii.gz"), Path("out/a.seg.nii.gz"), {"liver": 1432.1, "cyst": 0.5})
    text = shown(volume_table(SegmentedFiles((file,), {}, Path("volumes.csv"))))
    for words in ("a.nii.gz", "a.seg.nii.gz", "liver (ml)", "1432 ", "cyst (ml)", "0.5"):
        assert words in text
    assert "input" in shown(volume_table(SegmentedFiles((), {}, Path("volumes.csv"))))


def test_answers_of_a_classifier_are_shown() -> None:
    answer = Prediction(Path("b.nii.gz"), (0.25, 0.75), "malignant", 0.75)
    text = shown(answer_table(Predictions((answer,), {}, Path("predictions.csv"))))
    for words in ("b.nii.gz", "malignant", "0.750"):
        assert words in text
