"""Speed, measured side by side: training, inference and data loading against the alternatives.

`run_bench` times every contestant of a case in turns, round by round, on one machine in one run,
so that what slows the machine down slows all of them. The figures are medians after a warm-up.
"""

from voxlift.bench.report import BenchRow, format_rows, write_bench
from voxlift.bench.run import list_benches, run_bench

__all__ = ["BenchRow", "format_rows", "list_benches", "run_bench", "write_bench"]
