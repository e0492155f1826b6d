"""A backbone with a linear head on the globally pooled last feature map."""

from torch import Tensor, nn

from voxlift.core.backbone import Backbone
from voxlift.core.errors import ConfigError
from voxlift.core.types import Logits


class Classifier(nn.Module):
    """Classify whole volumes (or lifted photographs).

    Args:
        backbone: Any backbone.
        num_classes: Classes, at least two.
        dropout: Share of pooled features dropped in training.

    Shape:
        `(batch, in_channels, depth, height, width)` -> `(batch, num_classes)`.

    Raises:
        ConfigError: If there are fewer than two classes.
    """

    def __init__(self, backbone: Backbone, *, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        if num_classes < 2:
            raise ConfigError(f"A classifier needs at least two classes; found {num_classes}.")
        assert isinstance(backbone, nn.Module)
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.backbone.out_channels[-1], num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def features(self, volume: Tensor) -> Tensor:
        """Pool the last feature map to one vector a volume: `(batch, channels)`."""
        last: Tensor = self.backbone(volume)[-1]
        return last.flatten(2).mean(2)

    def forward(self, volume: Tensor) -> Logits:
        """Compute the logits."""
        logits: Tensor = self.head(self.dropout(self.features(volume)))
        return logits
