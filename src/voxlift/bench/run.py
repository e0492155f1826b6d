"""The benchmarks by name, and running them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from voxlift.bench.context_case import ContextCase
from voxlift.bench.detector_case import DetectorCase
from voxlift.bench.loading_case import LoadingCase
from voxlift.bench.network_case import NetworkCase
from voxlift.bench.predict_memory import PredictMemoryCase
from voxlift.bench.report import BenchRow
from voxlift.bench.setting import Setting, choose_setting, cpu_threads
from voxlift.core.errors import ConfigError


class Case(Protocol):
    """One benchmark."""

    def rows(self, setting: Setting) -> Iterator[BenchRow]:
        """Measure, and yield one row for each alternative."""
        ...


BENCHES: dict[str, Case] = {
    case.name: case
    for case in (
        NetworkCase("train-step-112", "train", size=112, batch_size=8, gpu_batch_size=64),
        NetworkCase("train-step-224", "train", size=224, batch_size=4, gpu_batch_size=32),
        NetworkCase("forward-112", "forward", size=112, batch_size=8, gpu_batch_size=64),
        NetworkCase("forward-224", "forward", size=224, batch_size=4, gpu_batch_size=32),
        LoadingCase(
            "loading",
            num_images=200,
            stored_size=(375, 500),
            size=224,
            batch_size=32,
            crop="random-resized",
            cache_gb=0.0,
        ),
        LoadingCase(
            "loading-small",
            num_images=4000,
            stored_size=(32, 32),
            size=32,
            batch_size=128,
            crop="pad",
            cache_gb=1.0,
        ),
        ContextCase("detect-context"),
    )
}
"""The default set."""

ON_DEMAND: dict[str, Case] = {
    case.name: case
    for case in (
        PredictMemoryCase("predict-memory"),
        DetectorCase("p3d63-train", "p3d63", "train"),
        DetectorCase("p3d63-forward", "p3d63", "forward"),
        DetectorCase("mp3d63-train", "mp3d63", "train"),
        DetectorCase("mp3d63-forward", "mp3d63", "forward"),
    )
}
"""Run only if they are named, for they take up to an hour, or need a GPU to be of use."""


def list_benches() -> list[str]:
    """Names that `run_bench(only=...)` knows."""
    return [*BENCHES, *ON_DEMAND]


def run_bench(
    *,
    only: Sequence[str] = (),
    threads: int | None = None,
    on_row: Callable[[BenchRow], None] | None = None,
) -> list[BenchRow]:
    """Time ours and the alternatives side by side on this machine.

    An alternative whose library is missing is left out, with a line in the log.

    Args:
        only: Names of the benchmarks to run; all of the default set if empty.
        threads: CPU threads of both sides; torch's own choice if None.
        on_row: Called with each row as soon as it is measured.

    Raises:
        ConfigError: For an unknown name, or a number of threads below 1.
        VoxliftError: If our side computes NaN on this machine.
    """
    known = {**BENCHES, **ON_DEMAND}
    if unknown := [name for name in only if name not in known]:
        raise ConfigError(f"Unknown benchmark {', '.join(unknown)}; known are {', '.join(known)}.")
    rows: list[BenchRow] = []
    with cpu_threads(threads):
        setting = choose_setting()
        for name in only or BENCHES:
            for row in known[name].rows(setting):
                rows.append(row)
                if on_row is not None:
                    on_row(row)
    return rows
