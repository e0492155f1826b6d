"""Axis order and shape names, written down once.

Every triple, size, stride and spacing in Voxlift is (depth, height, width). Positions in patient
space are (x, y, z) in LPS millimetres, as SimpleITK and DICOM have them.
"""

from typing import Literal

from jaxtyping import Float, Integer, Shaped
from torch import Tensor

Triple = tuple[int, int, int]
"""Whole numbers, one an axis: (depth, height, width)."""

PublishedSplit = Literal["keep", "ignore"]
"""What becomes of a split that a data set was published with, although it divides patients."""

AXES = ("depth", "height", "width")

Images = Shaped[Tensor, "batch 3 height width"]
LiftedImages = Shaped[Tensor, "batch 1 3 height width"]
FeatureMap = Float[Tensor, "batch channels *size"]
Logits = Float[Tensor, "batch classes"]
Labels = Integer[Tensor, "batch"]
