"""The network that is timed, as ours and as each alternative has it."""

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxlift.core.architecture import Architecture
from voxlift.core.geometry import named_geometry
from voxlift.nets.classifier import Classifier
from voxlift.nets.resnet import ResNet

logger = logging.getLogger(__name__)

IN_PLANE = (1, 2, 2)
# Our state-dict names, and those of MONAI's and torchvision's networks for the same tensors.
_FOREIGN_NAMES = (("backbone.", ""), ("norm", "bn"), ("head.", "fc."))


class PlainResNet(ResNet):
    """The same network as anyone would write it: its stem is the 3D convolution of torch.

    In the stages our convolutions are torch's anyhow, but where the volume is smaller than their
    kernel; that does not happen at the sizes that are timed.
    """

    def convolve_stem(self, volume: Tensor) -> Tensor:
        """Compute the stem's convolution as torch does."""
        assert isinstance(self.conv1, nn.Conv3d)
        # Not ours, which writes out the padding of thin volumes: that is faster, and not plain.
        return nn.Conv3d.forward(self.conv1, volume)


@dataclass(frozen=True)
class Baseline:
    """An alternative.

    Args:
        name: How rows call it.
        network: The network, with our weights where it can hold them.
        has_our_weights: Whether it does.
        bf16: Compute in bf16 (mixed precision).
    """

    name: str
    network: nn.Module
    has_our_weights: bool
    bf16: bool = False


def our_network(*, width: int = 64, num_classes: int = 1000) -> Classifier:
    """Make ResNet3D-18 as pre-training on photographs has it."""
    return _network(ResNet, width=width, num_classes=num_classes)


def _network(backbone: type[ResNet], *, width: int, num_classes: int) -> Classifier:
    architecture = Architecture(name="resnet18", width=width)
    return Classifier(backbone(architecture, named_geometry("pretrain")), num_classes=num_classes)


def baselines(ours: Classifier, *, device: str) -> Iterator[Baseline]:
    """Make the alternatives that can be made here; say in the log why another cannot.

    All compute eagerly, in contiguous memory and in fp32, as a network does that nothing is done
    for. On CUDA, where bf16 is but one line more, our network is there in plain bf16 too.
    """
    yield Baseline("plain-fp32-eager", plain_network(ours), has_our_weights=True)
    if device == "cuda":
        yield Baseline("plain-bf16-eager", plain_network(ours), has_our_weights=True, bf16=True)
    foreign: dict[str, tuple[Callable[[Classifier], nn.Module], bool]] = {
        "torchvision-r3d_18": (_torchvision_network, False),
        "monai-resnet18": (_monai_network, True),
    }
    for name, (make, has_our_weights) in foreign.items():
        try:
            network = make(ours)
        # A torchvision built for another torch raises RuntimeError when it is imported.
        except (ImportError, RuntimeError) as error:
            logger.warning("No rows against %s: %s", name, error)
            continue
        yield Baseline(name, network, has_our_weights)


def plain_network(ours: Classifier) -> Classifier:
    """Copy our network as eager code without the folded stem."""
    plain = _network(
        PlainResNet,
        width=ours.backbone.architecture.width,
        num_classes=ours.head.out_features,
    )
    plain.load_state_dict(ours.state_dict())
    return plain


def _torchvision_network(ours: Classifier) -> nn.Module:
    """Bring torchvision's network near ours: one channel, pooled stem, no depth stride.

    Its stem stays 3 voxels deep, where ours is 7.
    """
    # Importing torchvision takes seconds, which only its users should wait.
    from torchvision.models.video import r3d_18

    network: nn.Module = r3d_18(num_classes=ours.head.out_features)
    stem = network.get_submodule("stem")
    assert isinstance(stem, nn.Sequential)
    stem[0] = nn.Conv3d(1, 64, (3, 7, 7), stride=IN_PLANE, padding=(1, 3, 3), bias=False)
    stem.append(nn.MaxPool3d(3, stride=IN_PLANE, padding=1))
    return _leave_depth_unstrided(network)


def _monai_network(ours: Classifier) -> nn.Module:
    """Make MONAI's network compute what ours does, with our weights."""
    # Importing MONAI takes many seconds, which only its users should wait.
    from monai.networks.nets import resnet18

    network: nn.Module = resnet18(
        n_input_channels=1,
        num_classes=ours.head.out_features,
        conv1_t_stride=IN_PLANE,
        shortcut_type="B",
        bias_downsample=False,
        widen_factor=ours.backbone.architecture.width / 64,
    )
    network.load_state_dict(
        {_foreign_name(name): tensor for name, tensor in ours.state_dict().items()}
    )
    return _leave_depth_unstrided(network)


def _foreign_name(name: str) -> str:
    for own, foreign in _FOREIGN_NAMES:
        name = name.replace(own, foreign)
    return name


def _leave_depth_unstrided(network: nn.Module) -> nn.Module:
    """Stride in-plane only, as `pretrain` does: a photograph has but three slices."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.MaxPool3d) and module.stride in (2, (2, 2, 2)):
            module.stride = IN_PLANE
    return network


def computes_the_same(ours: nn.Module, other: nn.Module, *, size: int = 32) -> bool:
    """Compare two networks in training mode: logits, running statistics and gradients.

    Copies of them compute in double precision on the CPU, where only another function, and no
    rounding, can tell them apart.

    Args:
        ours: A network.
        other: A network that should be the same function with the same weights.
        size: Edge of the lifted photographs in pixels.
    """
    generator = torch.Generator().manual_seed(0)
    volumes = torch.randn(2, 1, 3, size, size, generator=generator, dtype=torch.float64)
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-8, atol=1e-10)
        for a, b in zip(_results(ours, volumes), _results(other, volumes), strict=True)
    )


def _results(network: nn.Module, volumes: Tensor) -> list[Tensor]:
    network = copy.deepcopy(network).to("cpu", torch.float64).train()
    volumes = volumes.clone().requires_grad_()
    logits = network(volumes)
    loss = functional.cross_entropy(logits, torch.arange(len(volumes)))
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.norm() for p in network.parameters() if p.grad is not None]
    assert volumes.grad is not None
    with torch.no_grad():
        evaluated = network.eval()(volumes)
    return [logits, volumes.grad, torch.stack(gradients).norm(), evaluated]
