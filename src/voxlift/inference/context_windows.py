"""Find lesions in a whole volume: every slice in turn is the key slice of a detector."""

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64

from voxlift.core.errors import ConfigError, DataError, VoxliftError
from voxlift.data.orientation import AxisOrder, canonical_order
from voxlift.data.preprocess import PreprocessingWarning, unit_complaint
from voxlift.data.volume import Volume
from voxlift.inference.context_planes import ContextReader, KeySlicePlanes
from voxlift.inference.detection import the_detector
from voxlift.inference.saved_model import SavedModel
from voxlift.nets.detection_head import Detection
from voxlift.nets.detector import Detector
from voxlift.nets.feature_pyramid import pad_volumes

_CANONICAL = AxisOrder(axes=(0, 1, 2), turned=(False, False, False))


@dataclass(frozen=True, eq=False)
class SliceBoxes:
    """Boxes that were found with one slice as the key slice, the best first.

    Attributes:
        position: Place of the key slice along depth, in voxels of the volume; between two slices
            it is no whole number.
        boxes: x1, y1, x2, y2 in pixels of the volume's own grid. Pixel i spans i to i + 1.
        scores: Of each box.
        labels: Class numbers from 0.
    """

    position: float
    boxes: Float32[np.ndarray, "boxes 4"]
    scores: Float32[np.ndarray, " boxes"]
    labels: Int64[np.ndarray, " boxes"]

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.labels)


def without_slivers(found: SliceBoxes) -> SliceBoxes:
    """Leave out boxes with an edge of less than a pixel: what is left of boxes beyond the image."""
    kept = (found.boxes[:, 2:] - found.boxes[:, :2] >= 1).all(1)
    return SliceBoxes(
        position=found.position,
        boxes=found.boxes[kept],
        scores=found.scores[kept],
        labels=found.labels[kept],
    )


def detect_slices(
    model: SavedModel,
    volume: Volume,
    *,
    fast_context: bool = False,
    batch_size: int = 1,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_slice: Callable[[int, int], None] | None = None,
    name: str = "the volume",
) -> list[SliceBoxes]:
    """Find boxes in every slice of a volume.

    Each slice is fed with its context as in training: as many slices at the same distance,
    interpolated where they lie between two of the volume; at its ends the last slice repeats. No
    more is held than a few windows of slices and what is computed of them.

    Args:
        model: A detector that was trained on CT.
        volume: In the canonical orientation if the model was trained so; see `to_canonical`.
        fast_context: Resample the volume to the distance of a context's slices, compute each of
            these once, and take them for key slices. Faster, and not quite the same: convolutions
            see the next slices beyond the ends of a window, where there were zeros in training, and
            group norms are taken over more slices.
        batch_size: Key slices that are computed at once.
        autocast: Makes the context in which the network is run, such as one of mixed precision.
        on_slice: Called after each key slice with how many are done and how many there are.
        name: What errors and warnings call the volume.

    Returns:
        What was found with each key slice, from the first to the last.

    Raises:
        ConfigError: If the model is no detector of CT, or is several.
        DataError: If the volume holds NaN or Inf, or is in another orientation.
        VoxliftError: If the network's answer is not finite.

    Warns:
        PreprocessingWarning: If the numbers do not look like the unit of the training.
    """
    detector = the_detector(model)
    _check_model(model, batch_size)
    _check_volume(volume, model, name)
    complaint = unit_complaint(volume, model.preprocessing, name=name)
    if complaint is not None:
        warnings.warn(complaint, PreprocessingWarning, stacklevel=2)
    reader = ContextReader(model, detector, volume, batch_size)
    total = reader.count(fast_context=fast_context)
    found: list[SliceBoxes] = []
    with torch.inference_mode(), autocast():
        for part in reader.of_slab() if fast_context else reader.of_windows():
            answers = _find(detector, part, size=reader.size, name=name)
            for position, answer in zip(part.positions, answers, strict=True):
                found.append(_on_grid(answer, volume, size=reader.size, position=position))
                if on_slice is not None:
                    on_slice(len(found), total)
    return sorted(found, key=lambda boxes: boxes.position)


def _check_model(model: SavedModel, batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; give 1 or more.")
    if model.detection.slice_interval_mm is None:
        raise ConfigError(
            "The model finds boxes in photographs, whose slices are colours; it does not know what "
            "distance slices of CT should have. Fine-tune it on CT first: voxlift finetune --task "
            "detect --weights MODEL --data ..."
        )
    if model.preprocessing.intensity in ("percentiles", "zscore"):
        raise ConfigError(
            f"The model scales intensities by {model.preprocessing.intensity} of each image, which "
            "volumes are not searched with. Train it with a window of Hounsfield units."
        )


def _check_volume(volume: Volume, model: SavedModel, name: str) -> None:
    if (
        model.preprocessing.orientation == "canonical"
        and canonical_order(volume.direction) != _CANONICAL
    ):
        raise DataError(
            f"{name} is not in the canonical orientation that the model was trained in. Turn it "
            "first, by voxlift.data.orientation.to_canonical."
        )
    try:
        volume.check_finite()
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _find(
    detector: Detector, part: KeySlicePlanes, *, size: tuple[int, int], name: str
) -> list[Detection]:
    """Find boxes in key slices of which the backbone's planes are there."""
    maps = detector.fpn({str(number): plane for number, plane in enumerate(part.planes)})
    # The head looks at the sizes of images alone.
    images = pad_volumes(
        part.planes[0].new_zeros((len(part.positions), 1, 1, *size)),
        multiple=math.lcm(*detector.strides),
    )
    try:
        return detector.find(images, maps)
    except VoxliftError as error:
        raise VoxliftError(
            f"{name}, key slices {part.positions[0]:g} to {part.positions[-1]:g}: {error}"
        ) from error


def _on_grid(
    found: Detection, volume: Volume, *, size: tuple[int, int], position: float
) -> SliceBoxes:
    """Bring boxes from a slice as it was fed to the volume's grid."""
    _, height, width = volume.size_voxels
    scale = np.array([size[1] / width, size[0] / height] * 2)
    boxes = found["boxes"].double().cpu().numpy() / scale
    return SliceBoxes(
        position=position,
        boxes=boxes.clip(0, [width, height, width, height]).astype(np.float32),
        scores=found["scores"].float().cpu().numpy(),
        labels=found["labels"].cpu().numpy().astype(np.int64),
    )
