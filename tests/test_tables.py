import io
import math
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from voxlift.data.volume import Volume
from voxlift.inference.candidate_files import ModelIdentity, Thresholds, describe_candidates
from voxlift.inference.candidate_places import place_candidates
from voxlift.inference.candidates import Candidate, CandidateSlice
from voxlift.inference.detection_files import DetectedFile, DetectedFiles
from voxlift.inference.segmentation_files import SegmentedFile, SegmentedFiles
from voxlift.inference.volumes import Prediction, Predictions
from voxlift.metrics.bootstrap import Interval
from voxlift.tables import (
    CANDIDATES_SHOWN,
    answer_table,
    candidate_table,
    judgement_table,
    volume_table,
)


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


def detected(path: str, count: int) -> DetectedFile:
    volume = Volume(np.zeros((4, 6, 8), np.int16), (2.5, 1.5, 1.0), (-10.0, 20.0, 30.0))
    box = (1.0, 2.0, 5.0, 4.0)
    found = [
        Candidate(0.9 - i / 100, 0, box, 2.0, (2.0, 3.0), (CandidateSlice(2.0, box, 0.9),))
        for i in range(count)
    ]
    content = describe_candidates(
        place_candidates(found, volume=volume, class_names=("lesion",)),
        input_path=path,
        volume=volume,
        model=ModelIdentity(name="model.safetensors"),
        class_names=("lesion",),
        thresholds=Thresholds(
            score=0.05,
            nms_iou=0.5,
            max_boxes=100,
            merge_iou=0.3,
            max_gap_mm=5,
            min_slices=1,
            max_candidates=100,
            fast_context=False,
        ),
    )
    return DetectedFile(Path(path), content)


def test_the_surest_candidates_are_shown() -> None:
    files = (detected("a.nii.gz", CANDIDATES_SHOWN + 2), detected("b.nii.gz", 0))
    text = shown(candidate_table(DetectedFiles(files, {}, Path("candidates.csv"))))
    lines = text.splitlines()
    assert "score" in text
    assert sum("lesion" in line for line in lines) == CANDIDATES_SHOWN
    # Voxel 2 along depth; columns 1 to 5 have their centre at 2.5, rows 2 to 4 at 2.5.
    for words in ("a.nii.gz", "0.90", " 2 ", "-7.5, 23.8, 35.0", "4 x 3"):
        assert words in text
    assert any("a.nii.gz" in line and "and 2 more" in line for line in lines)
    assert any("b.nii.gz" in line and "none" in line for line in lines)


def test_no_candidates_are_a_table_too() -> None:
    assert "input" in shown(candidate_table(DetectedFiles((), {}, Path("candidates.csv"))))
    exact = shown(
        candidate_table(DetectedFiles((detected("c.nii.gz", CANDIDATES_SHOWN),), {}, Path("c.csv")))
    )
    assert "more" not in exact
