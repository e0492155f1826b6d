"""The paper's idea: images read as thin volumes, and 3D layers computed as 2D ones."""

from voxlift.lifting.acs import ACSConv
from voxlift.lifting.convert import convert_layers
from voxlift.lifting.fold import fold_weight, folded_conv3d
from voxlift.lifting.image_to_volume import lift

__all__ = ["ACSConv", "convert_layers", "fold_weight", "folded_conv3d", "lift"]
