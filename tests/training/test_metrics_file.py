import errno
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from voxlift.core.errors import DataError
from voxlift.training.metrics_file import MetricsLog, keep_lines, read_metrics


def fake_trainer(step: int, **metrics: float) -> Any:
    groups = [{"lr": 0.1 / step}]
    return SimpleNamespace(
        global_step=step,
        current_epoch=1,
        optimizers=[SimpleNamespace(param_groups=groups)],
        callback_metrics={
            name.replace("_", "/", 1): torch.tensor(value) for name, value in metrics.items()
        },
    )


def test_one_number_a_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", every=5, num_steps=100)
    module: Any = None
    for step in range(3, 7):
        log.on_train_batch_start(fake_trainer(step))
        log.on_train_batch_end(fake_trainer(step + 1, train_loss=0.5, val_top1=0.25))
    log.on_validation_end(fake_trainer(7, train_loss=0.5, val_top1=math.nan), module)
    assert read_metrics(log.path) == [
        # The fifth step, counted from 0, with the rate that it was taken with.
        {"step": 4, "epoch": 1, "split": "train", "name": "lr", "value": 0.1 / 4},
        {"step": 4, "epoch": 1, "split": "train", "name": "loss", "value": 0.5},
        {"step": 6, "epoch": 1, "split": "val", "name": "top1", "value": None},
    ]
    assert log.state_dict() == {"lines": 3}


def test_each_group_of_parameters_has_its_rate(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", every=1, num_steps=1)
    trainer = fake_trainer(1)
    trainer.optimizers[0].param_groups = [{"lr": 0.1}, {"lr": 0.2}]
    log.on_train_batch_start(trainer)
    log.on_train_batch_end(trainer)
    found = [(line["split"], line["name"], line["value"]) for line in read_metrics(log.path)]
    assert found == [("lr", "pg1", 0.1), ("lr", "pg2", 0.2)]


def test_resume_drops_what_will_be_logged_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, every=1, num_steps=100)
    for step in range(1, 7):
        log.write(fake_trainer(step), {"train/loss": step / 2})
        if step == 4:
            saved = log.state_dict()
    with path.open("a") as half:
        half.write('{"step": 6, "epo')
    resumed = MetricsLog(path, every=1, num_steps=100)
    resumed.load_state_dict(saved)
    module: Any = None
    resumed.on_train_start(fake_trainer(4), module)
    resumed.write(fake_trainer(5), {"train/loss": 9.0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    values = [(line["step"], line["value"]) for line in lines]
    assert values == [(0, 0.5), (1, 1.0), (2, 1.5), (3, 2.0), (4, 9.0)]
    assert resumed.state_dict() == {"lines": 5}


def test_lines_that_are_gone_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    keep_lines(path, 0)
    assert not path.exists()
    path.write_text("1\n2\n3")
    keep_lines(path, 2)
    assert path.read_text() == "1\n2\n"
    assert not caplog.records
    keep_lines(path, 5)
    assert path.read_text() == "1\n2\n"
    assert "has 2 lines where the checkpoint has counted 5" in caplog.text


def test_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", every=1, num_steps=1)

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", no_space)
    with pytest.raises(DataError, match=r"metrics\.jsonl .*No space left.*--resume"):
        log.write(fake_trainer(1), {"train/loss": 1.0})


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"[]", b'{"step": "1"}', b'{"value": 1}']
)
def test_damaged_lines_are_refused_but_for_a_cut_off_end(tmp_path: Path, line: bytes) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", every=1, num_steps=1)
    log.write(fake_trainer(2), {"train/loss": 0.5})
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + line)
    assert [each["step"] for each in read_metrics(log.path)] == [1]
    log.path.write_bytes(whole + line + b"\n" + whole)
    with pytest.raises(DataError, match=r"metrics\.jsonl is damaged: line 2 is not a metric"):
        read_metrics(log.path)
