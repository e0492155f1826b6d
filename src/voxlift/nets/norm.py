"""What becomes of batch norm when a pre-trained network meets small batches of volumes.

Batch statistics of 1 to 4 volumes are noise, and running statistics gathered on photographs may
not fit volumes. There is no one right answer, so there are three:

- `train`: keep batch norm as it is. Right for batches of 8 or more.
- `frozen`: normalise by the running statistics of pre-training, which no longer change; the scale
  and shift are still learnt. Right for tiny batches when volumes and photographs are normalised
  alike.
- `group`: replace batch norm by group norm with gcd(32, channels) groups, keeping scale and shift.
  Right for tiny batches and volumes unlike photographs; needs more steps, for the features are
  normalised otherwise than in pre-training.
"""

from typing import Literal, Self

from torch import nn

from voxlift.core.errors import ConfigError
from voxlift.nets.layers import AlwaysBatchNorm3d, GroupNorm, num_groups

NormMode = Literal["train", "frozen", "group"]


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that always uses its running statistics."""

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - the signature of nn.Module
        """Stay in evaluation mode."""
        del mode
        return super().train(mode=False)


class FrozenBatchNorm3d(nn.BatchNorm3d):
    """Batch norm that always uses its running statistics."""

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - the signature of nn.Module
        """Stay in evaluation mode."""
        del mode
        return super().train(mode=False)


def apply_norm_mode(backbone: nn.Module, mode: NormMode) -> None:
    """Change the batch norms of a backbone for fine-tuning, in place.

    Names of parameters stay as they are. A backbone of group norm has what `group` makes.

    Args:
        backbone: A network with an `architecture`.
        mode: `train`, `frozen` or `group`; see the module's documentation for when to use which.

    Raises:
        ConfigError: For an unknown mode, `frozen` where batch norm always uses the batch or
            there is none, or a network of instance norm.
    """
    if mode == "train":
        return
    if mode not in ("frozen", "group"):
        raise ConfigError(f"Unknown norm mode {mode!r}; known are train, frozen and group.")
    if mode == "frozen" and any(isinstance(m, AlwaysBatchNorm3d) for m in backbone.modules()):
        raise ConfigError(
            "norm mode 'frozen' normalises by running statistics, which the norm 'batch_always' of "
            "this network does not use. Build it with norm='batch', or choose 'train' or 'group'."
        )
    has_batch_norm = any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d) for m in backbone.modules())
    norm = getattr(backbone.architecture, "norm", None)
    if not has_batch_norm and (mode == "frozen" or norm == "instance"):
        raise ConfigError(
            f"norm mode {mode!r} is for batch norm; this network has {norm or 'no batch'} norm, "
            "which does not depend on the batch. Leave the norm mode at 'train'."
        )
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d | nn.BatchNorm3d):
                changed = _frozen(child) if mode == "frozen" else _grouped(child)
                setattr(parent, name, changed)
    if mode == "group" and has_batch_norm:
        backbone.architecture = backbone.architecture.model_copy(  # type: ignore[operator, union-attr]
            update={"norm": "group"}
        )


def _frozen(norm: nn.BatchNorm2d | nn.BatchNorm3d) -> nn.Module:
    kind = FrozenBatchNorm2d if isinstance(norm, nn.BatchNorm2d) else FrozenBatchNorm3d
    frozen = kind(norm.num_features, eps=norm.eps)
    frozen.load_state_dict(norm.state_dict())
    return frozen.eval()


def _grouped(norm: nn.BatchNorm2d | nn.BatchNorm3d) -> nn.Module:
    grouped = GroupNorm(num_groups(norm.num_features), norm.num_features, eps=norm.eps)
    grouped.weight.data.copy_(norm.weight.data)
    grouped.bias.data.copy_(norm.bias.data)
    return grouped
