import errno
import json
import math
from pathlib import Path
from typing import Any

import pytest

from voxlift.core.errors import DataError
from voxlift.training.metrics_file import MetricsFile, read_metrics


def test_one_number_a_line(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.log_hyperparams({"lr": 0.1})
    file.log_metrics({"train/loss": 0.5, "lr": 0.1, "epoch": 1}, step=9)
    file.log_metrics({"val/top1": math.nan}, step=10)
    assert read_metrics(file.path) == [
        {"step": 9, "epoch": 1, "split": "train", "name": "loss", "value": 0.5},
        {"step": 9, "epoch": 1, "split": "train", "name": "lr", "value": 0.1},
        {"step": 10, "epoch": None, "split": "val", "name": "top1", "value": None},
    ]


def test_resume_drops_what_will_be_logged_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for step in range(6):
        file.log_metrics({"train/loss": step / 2}, step=step)
    with path.open("a") as half:
        half.write('{"step": 6, "epo')
    resumed = MetricsFile(path, resume_step=4)
    resumed.log_metrics({"train/loss": 9.0}, step=4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["value"]) for line in lines] == [
        (0, 0.0),
        (1, 0.5),
        (2, 1.0),
        (3, 1.5),
        (4, 9.0),
    ]


def test_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", no_space)
    with pytest.raises(DataError, match=r"metrics\.jsonl .*No space left.*--resume"):
        file.log_metrics({"train/loss": 1.0}, step=0)


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"[]", b'{"step": "1"}', b'{"value": 1}']
)
def test_damaged_lines_are_refused_but_for_a_cut_off_end(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path).log_metrics({"train/loss": 0.5}, step=1)
    whole = path.read_bytes()
    path.write_bytes(whole + line)
    assert [each["step"] for each in read_metrics(path)] == [1]
    path.write_bytes(whole + line + b"\n" + whole)
    with pytest.raises(DataError, match=r"metrics\.jsonl is damaged: line 2 is not a metric"):
        MetricsFile(path, resume_step=1)
