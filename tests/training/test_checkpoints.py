import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from voxlift.config import PretrainConfig
from voxlift.core.architecture import Architecture
from voxlift.core.errors import ConfigError, DataError
from voxlift.core.geometry import named_geometry
from voxlift.training.checkpoints import BestCheckpoint, WholeCheckpoints, read_checkpoint
from voxlift.weights.header import WeightHeader

HEADER = WeightHeader(
    architecture=Architecture(name="resnet10"), geometry=named_geometry("pretrain")
)


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every write end half-way, as on a full disk."""

    def write_half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)


def test_checkpoints_are_written_and_read(tmp_path: Path) -> None:
    saved = {"state_dict": {"weight": torch.arange(3.0)}, "global_step": 7}
    WholeCheckpoints(HEADER).save_checkpoint(saved, tmp_path / "new" / "last.ckpt")
    loaded = read_checkpoint(tmp_path / "new" / "last.ckpt")
    assert loaded["global_step"] == 7
    torch.testing.assert_close(loaded["state_dict"]["weight"], torch.arange(3.0))


def test_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    WholeCheckpoints(HEADER).save_checkpoint({"global_step": 1}, path)
    before = path.read_bytes()
    fill_disk(monkeypatch)
    with pytest.raises(DataError, match=r"last\.ckpt.*No space left"):
        WholeCheckpoints(HEADER).save_checkpoint({"global_step": 2}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_stops_the_run_with_the_file_and_the_remedy(
    small_config: PretrainConfig, run_small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config.model_copy(update={"checkpoint_steps": 2})
    fill_disk(monkeypatch)
    with pytest.raises(DataError, match=r"last\.ckpt.*No space left.*--out"):
        run_small(config)
    assert list((config.out / "checkpoints").iterdir()) == []


def test_missing_and_broken_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no checkpoint"):
        read_checkpoint(tmp_path / "last.ckpt")
    whole = tmp_path / "whole.ckpt"
    WholeCheckpoints(HEADER).save_checkpoint({"state_dict": torch.zeros(100)}, whole)
    data = whole.read_bytes()
    for broken in (b"", b"no checkpoint at all", data[: len(data) // 2]):
        (tmp_path / "last.ckpt").write_bytes(broken)
        with pytest.raises(ConfigError, match=r"last\.ckpt cannot be read.*--overwrite"):
            read_checkpoint(tmp_path / "last.ckpt")


class FakeTrainer(SimpleNamespace):
    """A trainer that notes what it was asked to save."""

    def save_checkpoint(self, path: Path, *, weights_only: bool) -> None:
        assert not weights_only
        self.saved.append(self.callback_metrics["val/loss"])


@pytest.mark.parametrize(
    ("higher_is_better", "kept"), [(True, [2.0, 3.0]), (False, [2.0, 1.0, 0.5])]
)
def test_only_better_ones_are_kept_across_a_resume(
    higher_is_better: bool, kept: list[float]
) -> None:
    trainer: Any = FakeTrainer(saved=[])
    module: Any = None
    nan = float("nan")
    best = BestCheckpoint(Path("best"), metric="val/loss", higher_is_better=higher_is_better)
    for score in (2.0, 1.0, 3.0, nan):
        trainer.callback_metrics = {"val/loss": score}
        best.on_validation_end(trainer, module)
    resumed = BestCheckpoint(Path("best"), metric="val/loss", higher_is_better=higher_is_better)
    resumed.load_state_dict(best.state_dict())
    for score in (2.5, 0.5):
        trainer.callback_metrics = {"val/loss": score}
        resumed.on_validation_end(trainer, module)
    assert trainer.saved == kept


def test_a_first_score_of_nan_is_beaten_by_any_other() -> None:
    trainer: Any = FakeTrainer(saved=[])
    module: Any = None
    best = BestCheckpoint(Path("best"), metric="val/loss", higher_is_better=True)
    for score in (float("nan"), -1.0, -2.0):
        trainer.callback_metrics = {"val/loss": score}
        best.on_validation_end(trainer, module)
    assert len(trainer.saved) == 2


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"global_step": 1}, [1], 5])
def test_other_content_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match="it is damaged or cut off, or it is none of"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_every_changed_byte_is_refused_or_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    saved = {"state_dict": {"weight": torch.arange(30.0)}, "global_step": 7, "name": "é"}
    WholeCheckpoints(HEADER).save_checkpoint(saved, path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 0x80
        path.write_bytes(changed)
        try:
            loaded = read_checkpoint(path)
        except ConfigError:
            continue
        assert loaded["global_step"] == 7
        torch.testing.assert_close(loaded["state_dict"]["weight"], torch.arange(30.0))
