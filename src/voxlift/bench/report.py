"""The rows of a benchmark, as JSON and as text."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from voxlift.bench.machine import machine_facts
from voxlift.core.files import write_text

HEADER = ("name", "shape", "ours", "baseline", "unit", "ratio", "against", "same function")


class BenchRow(BaseModel):
    """One of our figures beside that of one alternative.

    Args:
        name: What was timed, a name in `list_benches()`.
        shape: The batch that was timed, or the images that were loaded.
        ours: Our figure, in `unit`.
        baseline: The alternative's figure, in `unit`.
        unit: A rate, of which more is faster; or GB of memory, of which less is better.
        ratio: `ours / baseline`, of memory `baseline / ours`; above 1 we are better.
        baseline_name: The alternative.
        same_function: Whether both compute the same result from the same input and weights, up to
            rounding. Where they do not, the ratio compares like with nearly like.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    baseline_name: str
    same_function: bool

    @classmethod
    def from_rates(
        cls,
        name: str,
        *,
        shape: str,
        ours: float,
        baseline: float,
        baseline_name: str,
        same_function: bool,
    ) -> "BenchRow":
        """Make a row of two rates in images/s, rounded to four digits."""
        return cls(
            name=name,
            shape=shape,
            ours=_four_digits(ours),
            baseline=_four_digits(baseline),
            unit="images/s",
            ratio=_four_digits(ours / baseline),
            baseline_name=baseline_name,
            same_function=same_function,
        )


def _four_digits(number: float) -> float:
    return float(f"{number:.4g}")


def write_bench(rows: Sequence[BenchRow], path: str | Path) -> None:
    """Write rows as a JSON list; every row also tells the `machine` that it was measured on.

    Call it where the rows were measured: the facts are those of this process.

    Raises:
        DataError: If the file cannot be written.
    """
    facts = machine_facts()
    content = [{**row.model_dump(), "machine": facts} for row in rows]
    write_text(path, json.dumps(content, indent=2) + "\n")


def format_rows(rows: Sequence[BenchRow]) -> list[tuple[str, ...]]:
    """Lay rows out as a table of words, with `HEADER` for the first line."""
    return [
        HEADER,
        *(
            (
                row.name,
                row.shape,
                f"{row.ours:.4g}",
                f"{row.baseline:.4g}",
                row.unit,
                f"{row.ratio:.2f}x",
                row.baseline_name,
                "yes" if row.same_function else "no",
            )
            for row in rows
        ),
    ]
