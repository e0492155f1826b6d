import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxlift.core.label_scheme import LabelScheme
from voxlift.data.segmentation_cases import SegmentationCase, SegmentationCases
from voxlift.data.volume import Volume
from voxlift.recipes.segmentation import hippocampus

Script = dict[str, Any]


@pytest.fixture(scope="module")
def script() -> Script:
    return runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "measure_segmentation.py"))


@pytest.fixture(scope="module")
def cases() -> SegmentationCases:
    volume = Volume(np.zeros((2, 2, 2), np.uint8))
    made = SegmentationCases(
        tuple(SegmentationCase(f"{i:02d}", (volume,), volume, str(i)) for i in range(40)),
        LabelScheme(names=("background", "x"), values=(0, 1)),
    )
    return made.with_splits(fractions=(0.8, 0.2, 0.0), seed=0)


@pytest.mark.parametrize("num_labels", [4, 8, 16])
def test_each_start_learns_from_the_same_volumes(
    script: Script, cases: SegmentationCases, num_labels: int
) -> None:
    chosen = {}
    for start in script["STARTS"]:
        config = script["configure"](
            hippocampus(),
            cases,
            start=start,
            num_labels=num_labels,
            steps=80,
            seed=1,
            runs=Path("runs"),
        )
        assert config.steps == 80
        assert config.steps % config.val_steps == 0
        train = cases.share(
            cases.indices("train"), fraction=config.label_fraction, seed=config.seed
        )
        assert len(train) == num_labels
        chosen[start] = train.tolist()
    assert chosen["scratch"] == chosen["tiny"] == chosen["tiny-axes"]


def test_results_are_written_in_a_fixed_order(script: Script, cases: SegmentationCases) -> None:
    rows = [
        {"steps": 80, "labels": labels, "start": start, "seed": seed}
        for labels in (16, 4)
        for start in ("tiny", "scratch")
        for seed in (1, 0)
    ]
    written = json.loads(script["to_json"](rows, cases))
    assert written["runs"] == json.loads(script["to_json"](rows[::-1], cases))["runs"]
    assert (written["num_train"], written["num_judged"]) == (32, 8)
