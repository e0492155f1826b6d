import json
import runpy
from pathlib import Path
from typing import Any

import pytest

Script = dict[str, Any]

ROOT = Path(__file__).parents[2]
INTERVAL = {"value": 0.8, "low": 0.7, "high": 0.9}


@pytest.fixture(scope="module")
def script() -> Script:
    return runpy.run_path(str(ROOT / "scripts" / "write_results.py"))


def test_the_pages_say_what_the_files_say(script: Script) -> None:
    for path, text in script["updated_pages"]().items():
        assert path.read_text(encoding="utf-8") == text, "run scripts/write_results.py"


def test_fill_replaces_what_is_between_the_marks(script: Script) -> None:
    text = "a\n<!-- results: begin. By hand? No. -->\nold\n<!-- results: end -->\nb\n"
    filled = script["fill"](text, "results", "new")
    assert filled == text.replace("old", "new")
    assert script["fill"](filled, "results", "new") == filled


def test_fill_refuses_a_text_without_marks(script: Script) -> None:
    with pytest.raises(ValueError, match="results: begin"):
        script["fill"]("nothing here", "results", "new")


def test_no_result_file_is_said(script: Script) -> None:
    assert script["describe_results"]([]) == "(Not measured yet.)"


def test_quickstart_numbers_become_a_table(script: Script, tmp_path: Path) -> None:
    scratch = {
        "start": "scratch",
        "auroc": INTERVAL,
        "auroc_by_seed": [0.8, 0.8],
        "gain_over_scratch": None,
        "steps_to_scratch_final": 60,
    }
    tiny = scratch | {
        "start": "tiny",
        "gain_over_scratch": {"value": 0.05, "low": -0.01, "high": 0.1},
        "steps_to_scratch_final": None,
    }
    content = {
        "data": "240 cases",
        "steps": 60,
        "batch_size": 8,
        "starts": [scratch, tiny],
        "environment": {"processor": "CPU", "cores": 2, "packages": {"torch": "2.13.0"}},
    }
    path = tmp_path / "quickstart.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    lines = script["describe_results"]([path]).splitlines()
    assert "| scratch | 0.800 (0.700 to 0.900) |  | 60 |" in lines
    assert "| tiny | 0.800 (0.700 to 0.900) | +0.050 (-0.010 to +0.100) | not reached |" in lines
    assert any("60 steps of batch 8, 2 seeds" in line for line in lines)


def test_bench_rows_become_a_table(script: Script, tmp_path: Path) -> None:
    row = {
        "name": "train-step-112",
        "shape": "8x1x3x112x112",
        "ours": 22.1,
        "baseline": 10.0,
        "unit": "images/s",
        "ratio": 2.21,
        "baseline_name": "plain-fp32-eager",
        "same_function": True,
        "machine": {"cpu": "CPU", "cores": 2, "gpu": None, "torch": "2.13.0", "date": "2026-01-01"},
    }
    path = tmp_path / "bench.json"
    path.write_text(json.dumps([row]), encoding="utf-8")
    lines = script["describe_results"]([path]).splitlines()
    expected = "| train-step-112 | 8x1x3x112x112 | 22.1 | 10 | 2.21 | plain-fp32-eager | yes |"
    assert expected in lines
    assert any(line.startswith("CPU, 2 cores, torch 2.13.0; 2026-01-01") for line in lines)


def starts_row(start: str, seed: int, dice: float, hd95_mm: float) -> dict[str, Any]:
    curve = [[20, 0.1], [40, dice / 2], [60, 0.3], [80, dice]]
    row = {"start": start, "labels": 4, "steps": 80, "seed": seed, "dice": dice}
    return {**row, "hd95_mm": hd95_mm, "curve": curve}


def test_starts_become_a_table_with_paired_differences(script: Script) -> None:
    content = {
        "data": "Some set",
        "num_judged": 40,
        "command": "measure it",
        "environment": {"processor": "A CPU", "packages": {"torch": "2.0"}},
        "runs": [
            starts_row("tiny", 0, 0.8, 2.0),
            starts_row("tiny", 1, 0.6, 3.0),
            starts_row("scratch", 0, 0.7, 4.0),
            starts_row("scratch", 1, 0.7, 2.0),
        ],
    }
    text = script["describe_segmentation_starts"](content)
    lines = text.splitlines()
    assert lines[2] == (
        "| 80 | 4 | scratch | 0.700 (0.700 to 0.700) |  | 0.350 (0.350 to 0.350) | 3.00 |"
    )
    assert lines[3] == (
        "| 80 | 4 | tiny | 0.700 (0.600 to 0.800) | +0.000 (-0.100 to +0.100) | "
        "0.350 (0.300 to 0.400) | 2.50 |"
    )
    assert "`tiny` had a higher Dice than scratch in 1 and a smaller HD95 in 1 of 2 pairs" in text
    assert "40 volumes judged" in text
    assert "seeds 0, 1" in text


def test_the_verdict_on_a_recipe_becomes_a_table(script: Script) -> None:
    metrics = dict.fromkeys(
        ("dice", "surface_dice", "hd95_mm", "assd_mm", "volume_error_ml"), INTERVAL
    )
    content = {
        "recipe": "hippocampus",
        "command": "voxlift finetune --recipe hippocampus",
        "steps": 1600,
        "batch_size": 2,
        "seed": 0,
        "start": "tiny",
        "minutes": 12.7,
        "environment": {"processor": "A CPU", "cores": 1, "packages": {"torch": "2.0"}},
        "report": {
            "metrics": {
                "structures": {"anterior": {"metrics": metrics}, "posterior": {"metrics": metrics}},
                "means": metrics,
                "num_cases": 40,
                "num_groups": 39,
                "surface_tolerance_mm": 1.0,
            }
        },
    }
    text = script["describe_recipe"](content)
    assert text.count("0.800 (0.700 to 0.900)") == 15
    assert "| mean | " in text
    assert "40 volumes of 39 patients" in text
    assert "12.7 minutes" in text
    assert "1 thread," in text


def test_peak_memory_is_said_in_words(script: Script, tmp_path: Path) -> None:
    row = {
        "name": "predict-memory",
        "shape": "10x20x20 int16",
        "ours": 2.244,
        "baseline": 6.0,
        "unit": "GB",
        "machine": {"cpu": "A CPU", "torch": "2.0", "date": "2026-01-02"},
    }
    path = tmp_path / "memory.json"
    path.write_text(json.dumps([row]))
    text = script["describe_results"]([path])
    assert "at most 2.24 GB to segment a large scan (10x20x20 int16); the limit is 6 GB" in text


def test_fast_context_becomes_a_table(script: Script) -> None:
    sensitivity = {"exact": {"0.5": 0.811, "1": 0.9}, "fast": {"0.5": 0.75, "1": 0.9}}
    content = {
        "data": "simulated, 2 scans",
        "threads": 1,
        "command": "measure it",
        "environment": {"processor": "A CPU", "packages": {"torch": "2.0"}},
        "detectors": [
            {
                "backbone": "mp3d18",
                "width": 8,
                "norm": "group",
                "lesions": 3,
                "ratio": 1.41,
                "feature_maps_differ_by": 0.106,
                "of_exact_boxes_found_fast": {"boxes": 9, "share": 0.985},
                "sensitivity": sensitivity,
            }
        ],
    }
    text = script["describe_fast_context"](content)
    row = "| mp3d18 of width 8, group norm | 1.4 times | 11% | 98.5% | 0.81, 0.90 | 0.75, 0.90 |"
    assert text.splitlines()[2] == row
    assert "Simulated, 2 scans; 3 lesions" in text
    assert "at 0.5, 1 false positives an image" in text
