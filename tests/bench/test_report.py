import json
from pathlib import Path

import pytest
import torch

from voxlift.bench.machine import machine_facts
from voxlift.bench.report import HEADER, BenchRow, format_rows, write_bench
from voxlift.core.errors import DataError

FIELDS = ["name", "shape", "ours", "baseline", "unit", "ratio", "baseline_name", "same_function"]


def row(ours: float = 21.0, baseline: float = 10.0) -> BenchRow:
    return BenchRow.from_rates(
        "train-step-112",
        shape="8x1x3x112x112",
        ours=ours,
        baseline=baseline,
        baseline_name="plain-fp32-eager",
        same_function=True,
    )


def test_a_ratio_above_one_means_that_ours_is_faster() -> None:
    assert row(ours=21, baseline=10).ratio == 2.1
    assert row(ours=5, baseline=10).ratio == 0.5
    assert row(ours=1 / 3, baseline=1).ours == 0.3333
    assert list(BenchRow.model_fields) == FIELDS


def test_the_file_is_a_list_of_rows_that_name_their_machine(tmp_path: Path) -> None:
    path = tmp_path / "results" / "bench.json"
    write_bench([row(), row(ours=3)], path)
    content = json.loads(path.read_text())
    assert [list(entry) for entry in content] == [[*FIELDS, "machine"]] * 2
    assert content[1]["ours"] == 3
    machine = content[0]["machine"]
    assert machine["torch"] == torch.__version__
    assert machine["cores"] >= 1
    assert machine["threads"] == torch.get_num_threads()
    assert {"cpu", "cpu_flags", "gpu", "memory_gb", "date"} <= set(machine)


def test_the_machine_is_described_without_naming_its_owner() -> None:
    assert not {"host", "hostname", "user", "path"} & set(machine_facts())


def test_an_existing_file_stays_if_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="could not be written"):
        write_bench([row()], tmp_path / "file" / "bench.json")


def test_rows_are_laid_out_as_words_under_a_header() -> None:
    table = format_rows([row()])
    assert table[0] == HEADER
    assert table[1] == (
        "train-step-112",
        "8x1x3x112x112",
        "21",
        "10",
        "images/s",
        "2.10x",
        "plain-fp32-eager",
        "yes",
    )
    assert {len(line) for line in table} == {len(HEADER)}
