"""Segment one case: from its channels to a mask on the very grid that they came on."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float16
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from voxlift.core.errors import ConfigError
from voxlift.data.orientation import from_canonical, to_canonical
from voxlift.data.prepared_image import prepare_image
from voxlift.data.preprocess import PreprocessingWarning, unit_complaint
from voxlift.data.volume import Volume
from voxlift.inference.decided_mask import DecidedMask
from voxlift.inference.saved_model import SavedModel
from voxlift.inference.scratch import check_scratch, scratch_array
from voxlift.inference.slice_resampling import resample_slices
from voxlift.inference.sliding_window import (
    SliceProbabilities,
    WindowSettings,
    predict_slices,
    slab_bytes,
)

Array = npt.NDArray[Any]

DEFAULT_OVERLAP = 0.5


class SegmentOptions(BaseModel):
    """How a saved segmenter is applied.

    Args:
        overlap: Share of a window's edge, 0 to 1, that it shares with the next one; None takes the
            steps saved with the model, else a half.
        mirror: Average the answers for each window and its mirror images, along the axes that
            training flipped: 2, 4 or 8 times as slow.
        largest_component: Keep only the largest connected piece of each structure.
        batch_size: Windows that the network sees at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    overlap: float | None = Field(default=None, ge=0, lt=1)
    mirror: bool = False
    largest_component: bool = False
    batch_size: PositiveInt = 1


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a segmenter found in one case, all of it on the input's own grid.

    Attributes:
        mask: The values of a mask file.
        structures: The mask of each structure, in full even where another is painted over it.
        volumes_ml: Volume of each structure, by its name.
        probabilities: Of each output; none unless asked for. They lie in a temporary file that is
            gone when the arrays are.
    """

    mask: Volume
    structures: DecidedMask
    volumes_ml: dict[str, float]
    probabilities: tuple[Float16[np.ndarray, "depth height width"], ...]


def segment(
    model: SavedModel,
    channels: Sequence[Volume],
    *,
    options: SegmentOptions | None = None,
    probabilities: bool = False,
    scratch: Path | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_window: Callable[[int, int], None] | None = None,
    name: str = "the image",
) -> Segmentation:
    """Segment one case with a saved model.

    Beside the image and its mask, sums of as many slices are held as a window is deep; where these
    are large, they lie in a temporary file.

    Args:
        model: A segmenter.
        channels: A volume for each channel, all on one grid.
        options: How the model is applied.
        probabilities: Keep the probabilities as well, in a temporary file.
        scratch: Folder for temporary files; by default that of the system.
        autocast: Makes the context in which the network is run, such as one of mixed precision.
        on_window: Called after each window with how many are done and how many there are.
        name: What errors and warnings call the image.

    Raises:
        ConfigError: If the model is no segmenter, or was trained without mirroring.
        DataError: If the channels do not fit the model, or there is no room for temporary files.
        VoxliftError: If the network's answer is not finite.

    Warns:
        PreprocessingWarning: If the numbers do not look like the unit of the training.
    """
    options = options or SegmentOptions()
    settings = window_settings(model, options)
    labels = model.segmentation.labels
    image = prepare_image(channels, model.preprocessing, name=name)
    for channel in channels:
        complaint = unit_complaint(channel, model.preprocessing, name=name)
        if complaint is not None:
            warnings.warn(complaint, PreprocessingWarning, stacklevel=2)
    stored = channels[0]
    canonical = model.preprocessing.orientation == "canonical"
    oriented = to_canonical(stored) if canonical else stored

    def turn_back(array: Array) -> Array:
        volume = replace(oriented, array=array)
        return from_canonical(volume, like=stored).array if canonical else array

    num_kept = labels.num_outputs * stored.array.size * 2 if probabilities else 0
    num_summed = slab_bytes(image.size_voxels, labels.num_outputs, settings)
    check_scratch(num_kept + num_summed, folder=scratch)
    slices = predict_slices(
        model.networks,
        image.read,
        size_voxels=image.size_voxels,
        num_outputs=labels.num_outputs,
        settings=settings,
        overlapping=labels.is_overlapping,
        padding=image.lowest,
        device=next(model.networks[0].parameters()).device,
        autocast=autocast,
        scratch=scratch,
        on_window=on_window,
    )
    slices = resample_slices(slices, grid=image.channels[0], like=oriented)
    kept = None
    if probabilities:
        shape = (labels.num_outputs, *oriented.size_voxels)
        kept = scratch_array(shape, np.dtype(np.float16), folder=scratch)
        slices = _keep(slices, kept)
    found = DecidedMask.of_slices(slices, labels=labels, size_voxels=oriented.size_voxels)
    found = found.turned(turn_back)
    if options.largest_component:
        found.keep_largest_components()
    voxel_ml = math.prod(stored.spacing_mm) / 1000
    counts = zip(labels.structures, found.count_voxels(), strict=True)
    return Segmentation(
        mask=replace(stored, array=found.paint()),
        structures=found,
        volumes_ml={name: count * voxel_ml for name, count in counts},
        probabilities=() if kept is None else tuple(turn_back(part) for part in kept),
    )


def _keep(
    slices: Iterable[SliceProbabilities], kept: npt.NDArray[np.float16]
) -> Iterator[SliceProbabilities]:
    """Hold on to slices as they pass."""
    for number, probabilities in enumerate(slices):
        kept[:, number] = probabilities
        yield probabilities


def window_settings(model: SavedModel, options: SegmentOptions) -> WindowSettings:
    """Say how windows lie over a case.

    Raises:
        ConfigError: If the model is no segmenter, or shall mirror but was trained without.
    """
    if model.head.task != "segment":
        raise ConfigError(
            f"The model was trained to {model.head.task}, not to segment. Fine-tune it on volumes "
            "with masks first: voxlift finetune --task segment --weights MODEL --data ..."
        )
    saved = model.segmentation
    if options.mirror and not saved.mirror_axes:
        raise ConfigError(
            "The model was trained without flipping its patches, so mirrored ones would mislead "
            "it. Leave --mirror out, or train with flips."
        )
    return WindowSettings(
        size_voxels=saved.window_voxels,
        overlap=DEFAULT_OVERLAP if options.overlap is None else options.overlap,
        step_voxels=saved.window_steps if options.overlap is None else None,
        batch_size=options.batch_size,
        mirror_axes=saved.mirror_axes if options.mirror else (),
    )
