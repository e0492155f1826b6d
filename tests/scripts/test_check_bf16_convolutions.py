import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_bf16_convolutions.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize("layer", ["torch", "voxlift"])
def test_small_planes_are_right(script: dict[str, Any], layer: str) -> None:
    assert 0 < script["error"](layer, 2, 3, 4, 8) < script["TOLERANCE"]


def test_errors_come_from_a_process_of_their_own(script: dict[str, Any]) -> None:
    assert float(script["outcome"]("voxlift", 1, 2, 4, 8)) > 0
    with pytest.raises(RuntimeError, match="Traceback"):
        script["outcome"]("voxlift", 1, 2, 0, 8)
