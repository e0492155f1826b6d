import logging

import pytest
import torch

from voxlift.bench import setting as setting_module
from voxlift.bench.setting import choose_setting, cpu_threads
from voxlift.core.errors import ConfigError


@pytest.mark.parametrize("fast_bf16", [True, False])
@pytest.mark.parametrize("compiler", [True, False])
def test_what_is_off_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fast_bf16: bool,
    compiler: bool,
) -> None:
    monkeypatch.setattr(setting_module, "choose_device", lambda _config: "cpu")
    monkeypatch.setattr(setting_module, "computes_in_bf16", lambda _device: fast_bf16)
    monkeypatch.setenv("CXX", "sh" if compiler else "/no/such/compiler")
    with caplog.at_level(logging.INFO, logger="voxlift.bench"):
        chosen = choose_setting()
    assert (chosen.bf16, chosen.compiler) == (fast_bf16, compiler)
    assert len(caplog.records) == 1
    assert ("bf16 off" in caplog.text) != fast_bf16
    assert ("torch.compile off" in caplog.text) != compiler
    chosen.synchronize()


def test_threads_are_set_for_the_block_alone() -> None:
    before = torch.get_num_threads()
    with cpu_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with cpu_threads(None):
        assert torch.get_num_threads() == before
    with pytest.raises(ConfigError, match="threads is 0"), cpu_threads(0):
        pass


@pytest.mark.gpu
def test_a_gpu_is_waited_for() -> None:
    chosen = choose_setting()
    assert chosen.device == "cuda"
    chosen.synchronize()
