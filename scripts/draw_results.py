"""Draw the figures of the results pages.

Command: `uv run python scripts/draw_results.py`. It reads what was measured of starts in
`benchmarks/results`, and draws to `docs/results/images`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxlift.figures.start_curves import plot_start_curves

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "results" / "images"
RESULTS = ROOT / "benchmarks" / "results"


def draw_start_curves(hippocampus: dict[str, Any], detection: dict[str, Any], folder: Path) -> None:
    """Draw the curves of the starts: a row for each budget, a column for each number of labels."""
    plot_start_curves(
        _panels(hippocampus["runs"], share="labels", heading="{:g} labels", curve="curve"),
        folder / "hippocampus-starts.png",
        value_name="Dice",
        title="Hippocampus: Dice on volumes not learnt from; mean and span of the seeds",
    )
    for curve, x_name in (("froc", "false positives per image"), ("curve", "step")):
        plot_start_curves(
            _panels(
                detection["runs"], share="fraction", heading="{:.0%} of the patients", curve=curve
            ),
            folder / f"detection-{curve}.png",
            value_name="sensitivity",
            x_name=x_name,
            log_x=curve == "froc",
        )


def _panels(
    runs: Sequence[dict[str, Any]], *, share: str, heading: str, curve: str
) -> list[list[tuple[str, dict[str, Any]]]]:
    grid: dict[int, dict[float, dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda r: (r["steps"], r[share], r["start"], r["seed"])):
        starts = grid.setdefault(run["steps"], {}).setdefault(run[share], {})
        starts.setdefault(run["start"], []).append(run[curve])
    return [
        [(f"{heading.format(each)}, {steps} steps", starts) for each, starts in row.items()]
        for steps, row in grid.items()
    ]


def main() -> None:
    """Draw them anew."""
    draw_start_curves(_load("hippocampus"), _load("detection"), IMAGES)


def _load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    main()
