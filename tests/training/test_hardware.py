import logging
import shutil

import pytest
import torch
from torch import nn

from voxlift.config import MachineConfig
from voxlift.core.cpu import cpu_flags
from voxlift.core.errors import ConfigError
from voxlift.nets.factory import create_backbone
from voxlift.training import hardware
from voxlift.training.hardware import (
    autocast,
    choose_device,
    choose_precision,
    compile_backbone,
    computes_in_bf16,
    prepare_memory_format,
)


@pytest.fixture(autouse=True)
def _forget_what_was_said() -> None:
    hardware._say_once.cache_clear()
    cpu_flags.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, *, cuda: bool = False, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def test_auto_takes_the_best_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, best in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        pretend(monkeypatch, cuda=cuda, mps=mps)
        assert choose_device(MachineConfig()) == best
        assert choose_device(MachineConfig(device="cpu")) == "cpu"


def test_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    with pytest.raises(ConfigError, match="--device cuda is not available here; available: cpu"):
        choose_device(MachineConfig(device="cuda"))


@pytest.mark.parametrize("bf16", [True, False])
def test_auto_takes_bf16_only_where_it_pays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bf16: bool
) -> None:
    flags = frozenset({"avx512f", "avx512_bf16"} if bf16 else {"avx2"})
    monkeypatch.setattr(hardware, "cpu_flags", lambda: flags)
    caplog.set_level(logging.INFO)
    assert computes_in_bf16("cpu") == bf16
    for _ in range(2):
        chosen = choose_precision(MachineConfig(), "cpu")
        assert chosen == ("bf16-mixed" if bf16 else "32-true")
    assert len(caplog.records) == 1


def test_explicit_precision_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "computes_in_bf16", lambda device: device == "cuda")
    assert choose_precision(MachineConfig(precision="fp32"), "cuda") == "32-true"
    assert choose_precision(MachineConfig(precision="bf16"), "cpu") == "bf16-mixed"
    assert choose_precision(MachineConfig(precision="fp16"), "cuda") == "16-mixed"
    with pytest.raises(ConfigError, match="fp16 needs CUDA"):
        choose_precision(MachineConfig(precision="fp16"), "cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_autocast_follows_the_precision(precision: str, dtype: torch.dtype) -> None:
    config = MachineConfig.model_validate({"precision": precision})
    with autocast(config, "cpu"):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == dtype


def test_weights_are_laid_out_channels_last() -> None:
    model = nn.Sequential(nn.Conv3d(2, 4, 3), nn.Conv2d(2, 4, 3), nn.Linear(4, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert prepare_memory_format(model, "cpu") is model
    volume, image, _ = (layer.weight for layer in model if isinstance(layer.weight, torch.Tensor))
    assert volume.is_contiguous(memory_format=torch.channels_last_3d)
    assert image.is_contiguous(memory_format=torch.channels_last)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    untouched = nn.Conv3d(2, 4, 3)
    prepare_memory_format(untouched, "mps")
    assert untouched.weight.is_contiguous()


def test_compile_is_off_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiled: list[nn.Module] = []

    def note(module: nn.Module) -> None:
        compiled.append(module)

    monkeypatch.setattr(nn.Module, "compile", note)
    task = nn.Module()
    task.model = nn.Module()
    with pytest.raises(ConfigError, match="with a backbone only"):
        compile_backbone(task)
    task.model.backbone = nn.Linear(1, 1)
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    compile_backbone(task)
    assert compiled == []
    assert "no C++ compiler" in caplog.text
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    compile_backbone(task)
    assert compiled == [task.model.backbone]


def test_a_backbone_that_recomputes_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    task = nn.Module()
    task.model = nn.Module()
    task.model.backbone = create_backbone("resnet10", width=4, stem=3, checkpointing=True)
    with pytest.raises(ConfigError, match=r"--compile and --checkpointing exclude .* Leave one"):
        compile_backbone(task)
