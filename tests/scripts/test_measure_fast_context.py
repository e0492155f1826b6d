import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.bench.context_case import make_detector
from voxlift.core.detection_settings import DetectionSettings, DetectorSettings
from voxlift.inference.context_windows import SliceBoxes
from voxlift.nets.slice_encoder import MP3D

Script = dict[str, Any]


@pytest.fixture(scope="module")
def script() -> Script:
    return runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "measure_fast_context.py"))


def test_both_ways_are_measured_on_the_same_slices(script: Script) -> None:
    settings = DetectionSettings(
        class_names=("lesion",),
        num_slices=3,
        image_size=64,
        detector=DetectorSettings(head="fcos", fpn_channels=8, score_threshold=0.0, max_boxes=5),
    )
    model = make_detector(MP3D, settings, width=2, device="cpu")
    scans = [
        script["simulate_scan"](number, depth=4, size=64, interval_mm=2.5) for number in range(2)
    ]
    assert not np.array_equal(scans[0].volume.array, scans[1].volume.array)
    row = script["measure"](model, scans)
    assert (row["scans"], row["key_slices"], row["backbone"]) == (2, 8, "mp3d18")
    assert row["lesions"] == sum(len(scan.truth) for scan in scans)
    assert 0 < row["feature_maps_differ_by"] < 2
    assert list(row["sensitivity"]["fast"]) == ["0.5", "1", "2", "4"]


def test_the_truth_lies_about_the_lesion(script: Script) -> None:
    """What is brighter in the middle of a box than in the slices where there is no lesion."""
    scan = script["simulate_scan"](3, depth=16, size=64, interval_mm=2.5)
    for box in scan.truth:
        x, y = (int((box[i] + box[i + 2]) / 2) for i in (0, 1))
        middle = scan.volume.array[:, y - 1 : y + 2, x - 1 : x + 2].mean(axis=(1, 2))
        assert abs(middle[scan.key] - middle[0]) > 30


def test_agreement_counts_the_sure_boxes_of_one_way(script: Script) -> None:
    def boxes(*rows: tuple[float, ...]) -> SliceBoxes:
        values = np.array(rows, dtype=np.float32).reshape(-1, 5)
        return SliceBoxes(0.0, values[:, :4], values[:, 4], np.zeros(len(values), dtype=np.int64))

    ours = boxes((0, 0, 10, 10, 0.9), (20, 0, 30, 10, 0.6), (50, 0, 60, 10, 0.4))
    other = boxes((0, 0, 10, 9, 0.7), (1, 0, 10, 10, 0.3), (26, 0, 36, 10, 0.9))
    assert script["agreement"]([(ours, other), (ours, boxes())]) == {
        "boxes": 4,
        "share": 0.25,
        "mean_change_of_score": pytest.approx(-0.2),
    }


def test_the_file_says_what_was_compared(script: Script) -> None:
    command = script["Command"](models=(Path("a"),), scans=3)
    content = json.loads(script["to_json"]([{"ratio": 2.0}], command))
    assert content["data"].startswith("simulated, 3 scans of 24 slices of 128 x 128 pixels")
    assert "command" not in content["environment"]
    assert content["detectors"] == [{"ratio": 2.0}]
