"""Backbones and models by name: the one place where networks meet weight files."""



from voxlift.core.architecture import Architecture
from voxlift.core.geometry import Geometry
from voxlift.nets.resnet import RESNETS, ResNet


def list_backbones() -> list[str]:
    """Names that `create_backbone` knows."""
    return list(RESNETS)


def build_backbone(
    architecture: Architecture,
    geometry: Geometry,
    *,
    zero_init_residual: bool = False,
    checkpointing: bool = False,
) -> ResNet:
    """Make a backbone with fresh weights."""
    return ResNet(
        architecture,
        geometry,
        zero_init_residual=zero_init_residual,
        checkpointing=checkpointing,
    )
