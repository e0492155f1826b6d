"""Layers of timm that are more than torch's, for volumes.

They are known by their names, so that timm is not imported for a network that has none of them.
"""

from typing import Any

from torch import Tensor, nn

from voxlift.lifting.layer_conversion import Converter, Plan, copy_norm

SPACE = (2, 3, 4)


class BatchNormAct3d(nn.BatchNorm3d):
    """Batch norm and what timm puts behind it: `drop` and `act`."""

    drop: nn.Module
    act: nn.Module

    def forward(self, volume: Tensor) -> Tensor:
        """Normalise and activate."""
        activated: Tensor = self.act(self.drop(super().forward(volume)))
        return activated


class SqueezeExcitation(nn.Module):
    """Weigh channels by what is in the whole volume, as timm does for images.

    Args:
        planar: The layer of timm, whose parts it takes over.

    Source:
        arXiv 1709.01507.
    """

    def __init__(self, planar: nn.Module) -> None:
        super().__init__()
        self.add_maxpool = bool(planar.add_maxpool)
        for name, part in planar.named_children():
            self.add_module(name, part)

    def forward(self, volume: Tensor) -> Tensor:
        """Compute the weights of the channels, and weigh them."""
        squeezed = volume.mean(SPACE, keepdim=True)
        if self.add_maxpool:
            squeezed = 0.5 * squeezed + 0.5 * volume.amax(SPACE, keepdim=True)
        gate: Tensor = squeezed
        for part in self.children():
            gate = part(gate)
        return volume * gate


def _norm_act(norm: Any, plan: Plan) -> nn.Module:
    del plan
    made: BatchNormAct3d = copy_norm(norm, BatchNormAct3d)
    made.drop, made.act = norm.drop, norm.act
    return made


def _squeeze_excitation(layer: nn.Module, plan: Plan) -> nn.Module:
    del plan
    return SqueezeExcitation(layer)


def _fast_pool(pool: Any, plan: Plan) -> nn.Module:
    del plan
    for name in ("dim", "dim_reduce"):
        if hasattr(pool, name):
            setattr(pool, name, SPACE)
    return pool  # type: ignore[no-any-return]


TIMM_CONVERTERS: dict[str, Converter] = {
    "timm.layers.norm_act.BatchNormAct2d": _norm_act,
    "timm.layers.squeeze_excite.SEModule": _squeeze_excitation,
    "timm.layers.squeeze_excite.EffectiveSEModule": _squeeze_excitation,
    **{
        f"timm.layers.adaptive_avgmax_pool.FastAdaptive{kind}Pool": _fast_pool
        for kind in ("Avg", "Max", "AvgMax", "CatAvgMax")
    },
}
"""The layers of timm that are replaced, by module and name."""


def timm_converter(layer: nn.Module) -> Converter | None:
    """Find what replaces a layer of timm; None if it is none that is known."""
    kind = type(layer)
    return TIMM_CONVERTERS.get(f"{kind.__module__}.{kind.__qualname__}")
