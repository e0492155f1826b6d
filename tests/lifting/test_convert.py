"""2D networks made 3D, against the 2D networks themselves."""

import copy
from collections.abc import Callable
from typing import Any, get_args

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from voxlift.core.errors import ConfigError
from voxlift.core.inflation import Mode
from voxlift.lifting.acs import ACSConv
from voxlift.lifting.convert import convert_layers

Randomize = Callable[[nn.Module], nn.Module]
MODES: tuple[Mode, ...] = get_args(Mode)


class Features(nn.Module):
    """The part of a timm network before pooling."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Compute the last map."""
        features: Tensor = self.network.forward_features(image)  # type: ignore[operator]
        return features


def timm_features(name: str, **options: Any) -> nn.Module:
    return Features(timm.create_model(name, pretrained=False, num_classes=0, **options))


def torchvision_features(name: str) -> nn.Module:
    network = torchvision.models.get_model(name, weights=None)
    return nn.Sequential(*list(network.children())[:-2])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "timm resnet18": lambda: timm_features("resnet18", channels=(8, 8, 16, 16)),
    "timm resnet50d": lambda: timm_features(
        "resnet50d", channels=(8, 8, 16, 16), layers=(1, 1, 1, 1), stem_width=4
    ),
    "timm regnetx_002": lambda: timm_features("regnetx_002"),
    "timm densenet121": lambda: timm_features(
        "densenet121", growth_rate=4, block_config=(1, 2, 1, 1)
    ),
    "timm vgg11_bn": lambda: nn.Sequential(
        timm.create_model("vgg11_bn", pretrained=False, mlp_ratio=0.001).features  # type: ignore[arg-type]
    ),
    "torchvision resnet18": lambda: torchvision_features("resnet18"),
    "torchvision resnet50": lambda: torchvision_features("resnet50"),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, randomize: Randomize) -> nn.Module:
    return randomize(NETWORKS[request.param]())


def depth_reach(volume_network: nn.Module) -> int:
    """How many slices away an output can see, at most."""
    return sum(
        module.dilation[0] * (module.kernel_size[0] // 2)
        for module in volume_network.modules()
        if isinstance(module, nn.Conv3d)
    )


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(
        ours, theirs, rtol=1e-6, atol=1e-9 + 1e-6 * float(theirs.detach().abs().max())
    )


def test_mean_inflation_computes_the_planar_network_on_equal_slices(network: nn.Module) -> None:
    inflated = convert_layers(network, mode="i3d", check=False)
    reach = depth_reach(inflated)
    assert reach > 3
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    volume = image[:, :, None].repeat(1, 1, 2 * reach + 1, 1, 1)
    with torch.no_grad():
        maps = inflated(volume)
        assert maps.shape[2] == 2 * reach + 1
        close(maps[:, :, reach], network(image))
        assert (maps[:, :, 0] - maps[:, :, reach]).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["2.5d", "i3d-center"])
def test_slice_by_slice(network: nn.Module, mode: Mode) -> None:
    converted = convert_layers(network, mode=mode, check=False)
    volume = torch.randn(1, 3, 4, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        maps = converted(volume)
        for number in range(4):
            close(maps[:, :, number], network(volume[:, :, number]))


def test_acs_has_no_new_parameters(network: nn.Module) -> None:
    converted = convert_layers(network, mode="acs", check=False)
    theirs = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert {name: tensor.shape for name, tensor in converted.state_dict().items()} == theirs
    with torch.no_grad():
        maps = converted(torch.randn(1, 3, 4, 32, 32, dtype=torch.float64))
        assert maps.shape[2:] == (4, *network(torch.zeros(1, 3, 32, 32).double()).shape[2:])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride_depth", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "seresnet50"])
def test_classifiers_give_one_answer_a_volume(mode: Mode, stride_depth: bool, name: str) -> None:
    options: dict[str, Any] = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1)}
    classifier = timm.create_model(name, pretrained=False, num_classes=5, **options).eval()
    before = copy.deepcopy(classifier.state_dict())
    converted = convert_layers(classifier, mode=mode, stride_depth=stride_depth)
    assert converted(torch.randn(2, 3, 32, 40, 48)).shape == (2, 5)
    torch.testing.assert_close(classifier.state_dict(), before, rtol=0, atol=0)
    assert classifier(torch.randn(1, 3, 40, 48)).shape == (1, 5)


def test_pooled_answers_are_the_planar_ones_on_equal_slices(randomize: Randomize) -> None:
    for pool in ("avg", "fastavg", "fastmax", "fastcatavgmax"):
        for act in ("relu", "hardswish"):
            classifier = randomize(
                timm.create_model(
                    "seresnet50",
                    channels=(8, 8, 16, 16),
                    layers=(1, 1, 1, 1),
                    global_pool=pool,
                    act_layer=act,
                )
            )
            converted = convert_layers(classifier, mode="2.5d")
            image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
            with torch.no_grad():
                answer = converted(image[:, :, None].repeat(1, 1, 3, 1, 1))
                close(answer, classifier(image))


def test_modes_of_training_and_frozen_parameters_are_kept() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    network[0].requires_grad_(requires_grad=False)
    network[1].eval()
    converted = convert_layers(network, mode="i3d")
    assert [m.training for m in converted] == [True, False, True]  # type: ignore[attr-defined]
    assert [p.requires_grad for p in converted.parameters()] == [False, False, True, True]
    assert network.training
    assert not network[1].training


def test_a_layer_that_is_used_twice_stays_one() -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1)
    network = nn.Sequential(conv, nn.ReLU(), conv)
    converted = convert_layers(network, mode="i3d")
    assert isinstance(converted, nn.Sequential)
    assert converted[0] is converted[2]
    assert len(list(converted.parameters())) == 2


def test_gradients_arrive(randomize: Randomize) -> None:
    for mode in MODES:
        network = randomize(timm_features("resnet18", channels=(4, 4, 4, 4)))
        converted = convert_layers(network, mode=mode, check=False)
        converted(torch.randn(1, 3, 3, 32, 32).double()).square().sum().backward()
        for name, parameter in converted.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        assert all(parameter.grad is None for parameter in network.parameters())


def test_kinds_of_convolutions() -> None:
    layer = nn.Conv2d(1, 3, 3)
    assert isinstance(convert_layers(layer, mode="acs"), ACSConv)
    inflated = convert_layers(layer, mode="i3d")
    assert isinstance(inflated, nn.Conv3d)
    close(inflated.weight.sum(2), layer.weight)
    centred = convert_layers(layer, mode="i3d-center").get_parameter("weight")
    close(centred[:, :, 1], layer.weight)
    assert centred[:, :, ::2].count_nonzero() == 0
    assert convert_layers(layer, mode="2.5d").get_parameter("weight").shape == (3, 1, 1, 3, 3)


class Odd(nn.Conv2d):
    """A convolution that does something else."""

    def forward(self, image: Tensor) -> Tensor:
        """Convolve by half."""
        return super().forward(image) / 2


class Renamed(nn.Conv2d):
    """A convolution under another name."""

    def __init__(self) -> None:
        super().__init__(1, 1, 3)


class Scale(nn.Module):
    """A layer with a parameter that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, 1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Scale."""
        return image * self.gamma


def hooked() -> nn.Module:
    layer = nn.Conv2d(1, 1, 3)
    layer.register_forward_hook(lambda *_: None)
    return layer


def patched() -> nn.Module:
    layer = nn.Conv2d(1, 1, 3)
    layer.forward = lambda image: image  # type: ignore[method-assign, assignment]
    return layer


REFUSED: list[tuple[Callable[[], nn.Module], str]] = [
    (lambda: Odd(1, 1, 3), r"1\.0 \(Odd\) cannot be converted: it derives from Conv2d"),
    (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3)), "derives from Conv2d"),
    (lambda: nn.LazyConv2d(1, 3), r"LazyConv2d\) cannot be converted"),
    (Scale, r"1\.0 \(Scale\) .* tensors of its own \(gamma\).*Replace it in the 2D network"),
    (hooked, "hooks hang on it"),
    (patched, "computes something of its own"),
    (lambda: nn.PixelShuffle(1), "PixelShuffle.* nothing is known that does the same"),
    (lambda: nn.FractionalMaxPool2d(2, output_size=2), "made for images"),
    (lambda: nn.MaxPool2d(2, return_indices=True), "places of its maxima"),
    (lambda: nn.AdaptiveMaxPool2d(2, return_indices=True), "places of its maxima"),
    (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), "'bicubic' interpolation"),
    (lambda: nn.Upsample(size=8), "give it a scale_factor"),
    (lambda: nn.Conv3d(1, 1, 3), "tensors of its own"),
    (lambda: torch.jit.script(nn.ReLU()), "TorchScript"),
]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_cannot_be_converted_is_named(make: Callable[[], nn.Module], message: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sequential(make()))
    with pytest.raises(ConfigError, match=message):
        convert_layers(network, mode="i3d", check=False)


def test_a_subclass_that_changes_nothing_is_converted() -> None:
    assert isinstance(convert_layers(Renamed(), mode="i3d"), nn.Conv3d)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnetblur18", r"maxpool\.1 \(BlurPool2d\) cannot be converted"),
        ("convnext_atto", r"stem\.1 \(LayerNorm2d\) cannot be converted"),
        ("tf_efficientnet_lite0", r"conv_stem \(Conv2dSame\) cannot be converted"),
        ("vit_tiny_patch16_224", r"A VisionTransformer cannot be converted.*cls_token"),
    ],
)
def test_layers_of_timm_that_cannot_be_converted_are_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert_layers(timm.create_model(name, pretrained=False), mode="i3d")


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown mode '3d'; known are i3d, i3d-center, acs"):
        convert_layers(nn.Conv2d(1, 1, 1), mode="3d")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no layer for images"):
        convert_layers(nn.Sequential(nn.Linear(2, 2)), mode="i3d")
    with torch.device("meta"):
        unreal = nn.Conv2d(1, 1, 1)
    with pytest.raises(ConfigError, match=r"meta device.*check=False"):
        convert_layers(unreal, mode="i3d")
    with pytest.raises(ConfigError, match="no convolution that says how many channels"):
        convert_layers(nn.BatchNorm2d(3), mode="i3d")
