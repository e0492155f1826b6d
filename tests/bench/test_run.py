import logging
from collections.abc import Iterator

import pytest
import torch

import voxlift.bench
from voxlift.bench import run as run_module
from voxlift.bench.report import BenchRow
from voxlift.bench.run import BENCHES, ON_DEMAND, list_benches, run_bench
from voxlift.bench.setting import Setting
from voxlift.core.errors import ConfigError


class FakeCase:
    def __init__(self, name: str) -> None:
        self.name = name

    def rows(self, setting: Setting) -> Iterator[BenchRow]:
        del setting
        for baseline in ("first", "second"):
            yield BenchRow.from_rates(
                self.name,
                shape=f"{torch.get_num_threads()} threads",
                ours=2,
                baseline=1,
                baseline_name=baseline,
                same_function=True,
            )


@pytest.fixture(autouse=True)
def _fake_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "BENCHES", {name: FakeCase(name) for name in "abc"})
    monkeypatch.setattr(run_module, "ON_DEMAND", {"d": FakeCase("d")})


def test_all_benchmarks_run_and_report_as_they_go(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[BenchRow] = []
    with caplog.at_level(logging.INFO, logger="voxlift.bench"):
        rows = run_bench(on_row=seen.append)
    assert [(row.name, row.baseline_name) for row in rows] == [
        (name, baseline) for name in "abc" for baseline in ("first", "second")
    ]
    assert seen == rows
    assert len([r for r in caplog.records if "Ours computes on" in r.getMessage()]) == 1


def test_some_benchmarks_run_in_the_order_asked_for() -> None:
    rows = run_bench(only=("c", "a"), threads=1)
    assert [row.name for row in rows] == ["c", "c", "a", "a"]
    assert {row.shape for row in rows} == {"1 threads"}


def test_an_unknown_benchmark_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="Unknown benchmark x; known are a, b, c, d"):
        run_bench(only=("a", "x"))


def test_the_benchmarks_have_the_names_that_results_are_found_by() -> None:
    assert list(BENCHES) == [
        "train-step-112",
        "train-step-224",
        "forward-112",
        "forward-224",
        "loading",
        "loading-small",
        "detect-context",
    ]
    assert [case.name for case in BENCHES.values()] == list(BENCHES)  # type: ignore[attr-defined]
    assert voxlift.bench.list_benches is list_benches
    assert list(ON_DEMAND) == [
        "predict-memory",
        "p3d63-train",
        "p3d63-forward",
        "mp3d63-train",
        "mp3d63-forward",
    ]
    assert list_benches() == ["a", "b", "c", "d"]


def test_what_takes_an_hour_is_run_only_by_its_name() -> None:
    assert "d" not in {row.name for row in run_bench()}
    assert {row.name for row in run_bench(only=("d",))} == {"d"}
