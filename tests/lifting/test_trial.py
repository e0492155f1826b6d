"""What only shows when the converted network runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.errors import ConfigError
from voxlift.lifting.convert import convert_layers


class Flow(nn.Module):
    """A network whose own forward does things that no type tells."""

    def __init__(self, step: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
        self.step = step

    def forward(self, image: Tensor) -> Any:
        """Take a step between two layers."""
        return self.second(self.step(self.first(image)))


@pytest.mark.parametrize(
    "step",
    [
        lambda x: functional.max_pool2d(x, 2),
        lambda x: x * x.mean((2, 3), keepdim=True),
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: x.flatten(2).mean(2)[:, :, None, None],
        lambda x: x.permute(0, 1, 3, 2) if x.ndim == 4 else x,
        lambda x: functional.interpolate(x, scale_factor=2.0, mode="bilinear"),
        lambda x: functional.pad(x, (1, 1)) if x.ndim == 5 else x,
    ],
)
def test_forwards_that_work_on_images_only_are_named(step: Callable[[Tensor], Any]) -> None:
    network = nn.Sequential(nn.Identity(), Flow(step))
    with pytest.raises(ConfigError, match=r"Made 3D, .*What 1 \(Flow\) does in its own forward"):
        convert_layers(network, mode="i3d")


def test_forwards_that_fit_volumes_pass() -> None:
    network = Flow(lambda x: functional.relu(x) + x.mean(tuple(range(2, x.ndim)), keepdim=True))
    assert convert_layers(network, mode="i3d")(torch.ones(1, 3, 8, 8, 8)).shape == (1, 2, 8, 6, 6)


def test_functions_behind_a_layer_are_blamed_on_who_calls_it() -> None:
    network = torchvision.models.DenseNet(growth_rate=4, block_config=(1, 1, 1, 1))
    with pytest.raises(ConfigError, match=r"What the network itself \(DenseNet\) does"):
        convert_layers(network, mode="i3d")
    convert_layers(network.features, mode="i3d")


def test_the_check_can_be_switched_off_and_given_an_image() -> None:
    fixed = nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d((None, 6)), nn.Flatten())
    fixed.append(nn.Linear(36, 2))
    with pytest.raises(ConfigError, match=r"itself fails at 3 \(Linear\).*image="):
        convert_layers(fixed, mode="i3d")
    converted = convert_layers(fixed, mode="i3d", image=torch.zeros(1, 1, 8, 8))
    assert converted(torch.zeros(2, 1, 5, 8, 8)).shape == (2, 2)
    assert isinstance(convert_layers(fixed, mode="i3d", check=False), nn.Sequential)
    with pytest.raises(ConfigError, match="expected \\(batch, channels, height, width\\)"):
        convert_layers(fixed, mode="i3d", image=torch.zeros(1, 8, 8))


def test_a_network_that_only_fails_with_depth_strided_is_named() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1, stride=32), nn.ReflectionPad2d(1))
    convert_layers(network, mode="i3d")
    with pytest.raises(ConfigError, match=r"1 \(ReflectionPad3d\) fails in a trial on a volume"):
        convert_layers(network, mode="i3d", stride_depth=True)


def test_the_check_leaves_random_numbers_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Dropout(0.5))
    state = torch.get_rng_state()
    convert_layers(network, mode="acs")
    assert torch.equal(torch.get_rng_state(), state)
