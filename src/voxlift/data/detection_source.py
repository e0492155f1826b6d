"""Open whatever holds images with boxes: COCO's form, or DeepLesion's."""

import json
import logging
from pathlib import Path
from typing import Any

from voxlift.core.detection_settings import Noisy
from voxlift.core.errors import DataError
from voxlift.data.coco import find_annotations, read_coco
from voxlift.data.deeplesion import is_deeplesion, read_deeplesion
from voxlift.data.deeplesion_json import is_lesion_annotations
from voxlift.data.detection_cases import Boxes, DetectionCase, DetectionCases, Slices

__all__ = ["Boxes", "DetectionCase", "DetectionCases", "Slices", "open_detection"]

_log = logging.getLogger(__name__)


def open_detection(
    data: str | Path,
    *,
    images: str | Path | None = None,
    class_agnostic: bool = False,
    noisy: Noisy = "drop",
    skip_bad: bool = False,
) -> DetectionCases:
    """Open images with boxes, deciding by what `data` is.

    Args:
        data: A folder of DeepLesion or its `DL_info.csv`; a folder with annotations in COCO's form;
            or such an annotation file, of photographs or of DeepLesion.
        images: The folder of the images, where it is not beside the annotations.
        class_agnostic: Take all classes as one.
        noisy: What to do with boxes that DeepLesion marks as possibly wrong.
        skip_bad: List and skip what cannot be used, instead of raising.

    Returns:
        The cases, in the splits that the data set came with, if any; complete them by
        `with_splits`.

    Raises:
        DataError: If `data` is none of these, or an image or box cannot be used.
    """
    path = Path(data).expanduser()
    if not path.exists():
        raise DataError(f"{path} is not there. Check --data.")
    if path.is_file() and path.suffix.lower() not in (".json", ".csv"):
        raise DataError(
            f"{path} is no data set for detection. Expected a folder of DeepLesion or its "
            "DL_info.csv, or annotations in COCO's form (.json) beside a folder of images."
        )
    if _is_deeplesion(path):
        cases = read_deeplesion(
            path, images=images, noisy=noisy, class_agnostic=class_agnostic, skip_bad=skip_bad
        )
    else:
        cases = read_coco(path, images=images, class_agnostic=class_agnostic, skip_bad=skip_bad)
    _log.info("%s: %s", cases.origin, cases.describe())
    return cases


def _is_deeplesion(path: Path) -> bool:
    if path.is_dir() and is_deeplesion(path):
        return True
    if path.suffix.lower() == ".csv":
        return True
    first, _ = find_annotations(path)[0]
    return is_lesion_annotations(_first_image(first))


def _first_image(path: Path) -> dict[str, Any]:
    """Return the first image listed; empty where there is none, which the reader then says."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        first = content["images"][0]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return {}
    return first if isinstance(first, dict) else {}
