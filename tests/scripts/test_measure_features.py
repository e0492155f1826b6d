import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Script = dict[str, Any]


@pytest.fixture(scope="module")
def script() -> Script:
    return runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "measure_features.py"))


def test_every_way_is_measured_on_the_same_nodules(script: Script) -> None:
    rows = script["measure"](seed=0, num_labels=8, judged=6, size=20)
    keys = ("start", "statistics", "pool", "method")
    assert len({tuple(row[key] for key in keys) for row in rows}) == len(rows) == 3 * 2 * 3 * 2
    assert all(0 <= row["auroc"] <= 1 for row in rows)
    command = script["Command"](judged=6, size=20)
    content = json.loads(script["to_json"](rows, command))
    assert content["num_judged"] == 6
    assert "command" not in content["environment"]
    assert len(content["summary"]) == 6


def test_scratch_is_left_out_of_the_means(script: Script) -> None:
    rows = [
        {"start": start, "method": "linear", "auroc": auroc}
        for start, auroc in (("scratch", 0.1), ("tiny", 0.6), ("tiny-axes", 0.8))
    ]
    assert np.isclose(script["mean_auroc"](rows, method="linear"), 0.7)
