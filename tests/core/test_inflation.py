import pytest
import torch

from voxlift.core.inflation import MODES, describe_inflation, inflate


def test_mean_inflation_adds_up_to_the_kernel() -> None:
    kernel = torch.randn(4, 3, 5, 5)
    inflated = inflate(kernel, mode="i3d", depth=5)
    assert inflated.shape == (4, 3, 5, 5, 5)
    torch.testing.assert_close(inflated.sum(2), kernel)
    torch.testing.assert_close(inflated[:, :, 0], inflated[:, :, 4], rtol=0, atol=0)


@pytest.mark.parametrize(("depth", "middle"), [(1, 0), (2, 0), (3, 1), (7, 3)])
def test_centre_inflation_has_the_kernel_in_one_slice(depth: int, middle: int) -> None:
    kernel = torch.randn(4, 3, 3, 3)
    inflated = inflate(kernel, mode="i3d-center", depth=depth)
    assert inflated.shape == (4, 3, depth, 3, 3)
    torch.testing.assert_close(inflated[:, :, middle], kernel, rtol=0, atol=0)
    assert inflated.count_nonzero() == kernel.count_nonzero()


def test_the_other_modes_keep_the_numbers() -> None:
    kernel = torch.randn(4, 3, 3, 3)
    assert inflate(kernel, mode="acs", depth=3) is kernel
    torch.testing.assert_close(inflate(kernel, mode="2.5d", depth=3)[:, :, 0], kernel)


def test_every_mode_is_described() -> None:
    described = {describe_inflation(mode, depth=7) for mode in MODES}
    assert len(described) == 4
    assert "over 7 slices" in describe_inflation("i3d", depth=7)
