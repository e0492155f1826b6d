"""The picture of a volume's candidates, in windows that they are looked at in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxlift.data.ct_windows import CT_WINDOWS_HU
from voxlift.data.orientation import to_canonical
from voxlift.data.volume import Volume
from voxlift.figures.candidates import MOST_CANDIDATES, ShownCandidate, plot_candidates
from voxlift.inference.candidate_places import PlacedCandidate
from voxlift.inference.candidates import Candidate

# In HU: less is air, more than the second is no lung.
_LUNG_HU = (-950.0, -400.0)
_LUNG_SHARE = 0.3
_BONE_HU = 250.0
_BONE_SHARE = 0.3


def write_candidate_overview(
    path: Path,
    candidates: Sequence[Candidate],
    placed: Sequence[PlacedCandidate],
    *,
    volume: Volume,
    is_ct: bool,
    num_found: int | None = None,
    title: str | None = None,
) -> None:
    """Draw the surest candidates of a volume.

    Args:
        path: The figure to write.
        candidates: As found on the canonical order of axes, the surest first.
        placed: The same, from `place_candidates`.
        volume: As it was read.
        is_ct: Whether its values are HU: each candidate is then shown in the window of lung, bone
            or abdomen, by what it lies in; else all in one window that fits the volume.
        num_found: How many candidates there were, if these are not all.
        title: Heading of the figure.

    Raises:
        DataError: If the file cannot be written.
    """
    canonical = to_canonical(volume)
    pairs = zip(candidates, placed, strict=True)
    shown = [
        _shown(candidate, place, canonical, volume, is_ct=is_ct)
        for candidate, place in list(pairs)[:MOST_CANDIDATES]
    ]
    plot_candidates(
        canonical.array,
        shown,
        path,
        spacing_mm=canonical.spacing_mm,
        num_found=len(candidates) if num_found is None else num_found,
        title=title,
    )


def _shown(
    candidate: Candidate,
    placed: PlacedCandidate,
    canonical: Volume,
    volume: Volume,
    *,
    is_ct: bool,
) -> ShownCandidate:
    name = window_name(canonical.array, candidate) if is_ct else None
    return ShownCandidate(
        rank=placed.rank,
        class_name=placed.class_name,
        score=placed.score,
        box=candidate.box,
        position=candidate.position,
        num_slices=candidate.num_slices,
        slice_axis=placed.slice_axis,
        slice_number=placed.key_index + 1,
        num_stored=volume.size_voxels[placed.axis],
        centre_mm=placed.centre_mm,
        window=None if name is None else CT_WINDOWS_HU[name],
        window_name=None if name is None else f"{name} window",
    )


def window_name(array: npt.NDArray[Any], candidate: Candidate) -> str:
    """Choose the CT window for a candidate by what is in its box and around it.

    Args:
        array: The canonical volume in HU.
        candidate: One that was found in it.
    """
    x1, y1, x2, y2 = candidate.box
    key_slice = array[round(candidate.position)]
    inside = _cut(key_slice, (x1, y1, x2, y2))
    # As much again on each side.
    wide, high = (x2 - x1) / 2, (y2 - y1) / 2
    around = _cut(key_slice, (x1 - wide, y1 - high, x2 + wide, y2 + high))
    is_lung = (around > _LUNG_HU[0]) & (around < _LUNG_HU[1])
    if is_lung.mean() >= _LUNG_SHARE:
        return "lung"
    return "bone" if (inside > _BONE_HU).mean() >= _BONE_SHARE else "abdomen"


def _cut(
    plane: npt.NDArray[Any], box: tuple[float, float, float, float]
) -> npt.NDArray[np.floating]:
    """Cut out the pixels that a box touches, at least one."""
    (x1, y1), (x2, y2) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    rows, columns = plane.shape
    top, left = min(max(y1, 0), rows - 1), min(max(x1, 0), columns - 1)
    part: npt.NDArray[np.floating] = plane[top : max(y2, top + 1), left : max(x2, left + 1)]
    return part
