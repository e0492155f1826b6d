"""Annotation files in COCO's form: which images there are, and what is marked in each.

Nothing of the images themselves is read here.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from voxlift.core.errors import DataError
from voxlift.data.listing_problems import report_problems

Entry = Mapping[str, Any]

FARTHEST = 2.0**31
"""Coordinates beyond this, in pixels, are in no image."""


@dataclass(frozen=True, eq=False)
class CocoImage:
    """One image of an annotation file.

    Attributes:
        name: Its file, as listed.
        size: Height and width, if they are listed.
        entry: All that the file says of the image.
        annotations: All that the file says of each box; every one has a finite `bbox` and a known
            category.
    """

    name: str
    size: tuple[int, int] | None
    entry: Entry
    annotations: tuple[Entry, ...]

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """The boxes as x1, y1, x2, y2, as they stand in the file."""
        boxes = np.array([one["bbox"] for one in self.annotations], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    @property
    def crowd(self) -> npt.NDArray[np.bool_]:
        """Which boxes are crowds."""
        return np.array([bool(one.get("iscrowd", 0)) for one in self.annotations], dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class CocoAnnotations:
    """An annotation file.

    Attributes:
        path: The file.
        images: Its images in the order of the file.
        categories: The names of the classes by their ids in the file, ascending.
        counts: How often something had to be put right, by what it was.
    """

    path: Path
    images: tuple[CocoImage, ...]
    categories: Mapping[int, str]
    counts: Counter[str] = field(default_factory=Counter)

    def labels(self, image: CocoImage) -> npt.NDArray[np.int64]:
        """Number the classes of an image's boxes from 0, without gaps."""
        numbers = {category: number for number, category in enumerate(self.categories)}
        return np.array([numbers[one["category_id"]] for one in image.annotations], dtype=np.int64)


def read_coco_annotations(path: str | Path, *, skip_bad: bool = False) -> CocoAnnotations:
    """Read an annotation file in COCO's form.

    Repeated entries count once, annotations of images that are not listed do not count; both are
    counted in `counts`. Boxes of different content with the same id are all kept.

    Args:
        path: The file.
        skip_bad: List and leave out what cannot be used, instead of raising.

    Raises:
        DataError: If the file is not of this form, an image has no file name, two images have one
            id or one file, or a box is no four numbers or of an unknown category.
    """
    path = Path(path)
    content = _read_json(path)
    categories = _categories(path, content)
    problems: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    entries = _images(content["images"], problems, counts)
    annotations = _annotations(content["annotations"], entries, categories, problems, counts)
    report_problems(str(path), problems, skip_bad=skip_bad, remedy="Correct the file.")
    images = tuple(
        CocoImage(
            name=entry["file_name"],
            size=_size(entry),
            entry=entry,
            annotations=tuple(annotations.get(number, ())),
        )
        for number, entry in entries.items()
    )
    if not images:
        raise DataError(f"{path} lists no images that can be used.")
    return CocoAnnotations(path, images, categories, counts)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} could not be read: {error.strerror or error}.") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply for COCO's form. Correct it.") from error
    except ValueError as error:
        what = "is empty" if not path.stat().st_size else f"is no JSON: {error}"
        raise DataError(f"{path} {what}. Give an annotation file in COCO's form.") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(
                f"{path} has no list of {key}. Give an annotation file in COCO's form, with "
                "images, annotations and categories."
            )
    for key in ("images", "annotations"):
        if not content[key]:
            raise DataError(f"{path} is empty: its list of {key} has no entry.")
    return dict(content)


def _categories(path: Path, content: Entry) -> dict[int, str]:
    names: dict[int, str] = {}
    listed = content.get("categories") or []
    for entry in listed if isinstance(listed, list) else []:
        number = entry.get("id") if isinstance(entry, dict) else None
        if not _is_whole(number):
            raise DataError(f"{path}: a category has the id {number!r}; expected a whole number.")
        name = str(entry.get("name", number))
        if names.setdefault(int(number), name) != name:
            raise DataError(
                f"{path}: the categories '{names[int(number)]}' and '{name}' have the same id "
                f"{number}, so that their boxes cannot be told apart. Give each its own."
            )
    if not names:
        raise DataError(f"{path} has no categories. List them, each with id and name.")
    return dict(sorted(names.items()))


def _images(
    entries: list[Any], problems: dict[str, list[str]], counts: Counter[str]
) -> dict[Any, Entry]:
    images: dict[Any, Entry] = {}
    of_file: dict[str, Any] = {}
    unusable: set[Any] = set()
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not entry.get("file_name"):
            problems.setdefault("image without id or file_name", []).append(f"entry {position}")
            continue
        number, name = entry["id"], entry["file_name"]
        if not isinstance(name, str):
            problems.setdefault("file_name that is no text", []).append(f"entry {position}")
            continue
        if number in images:
            if images[number] == entry:
                counts["images listed twice"] += 1
            else:
                problems.setdefault("image id of two images", []).append(f"{number} ({name})")
                unusable.add(number)
        elif of_file.setdefault(name, number) != number:
            problems.setdefault("file under two image ids", []).append(name)
        else:
            images[number] = entry
    return {number: entry for number, entry in images.items() if number not in unusable}


def _annotations(
    entries: list[Any],
    images: dict[Any, Entry],
    categories: Mapping[int, str],
    problems: dict[str, list[str]],
    counts: Counter[str],
) -> dict[Any, list[Entry]]:
    of_image: dict[Any, list[Entry]] = {}
    seen: dict[Any, Entry] = {}
    for position, entry in enumerate(entries):
        name = f"entry {position}"
        if not isinstance(entry, dict) or not _is_id(entry.get("image_id")):
            problems.setdefault("annotation without image_id", []).append(name)
            continue
        number = entry.get("id")
        if _is_id(number):
            name = f"annotation {number}"
            earlier = seen.setdefault(number, entry)
            if earlier is not entry:
                if earlier == entry:
                    counts["annotations given twice"] += 1
                    continue
                counts["annotation ids of two boxes"] += 1
        if entry["image_id"] not in images:
            counts["annotations of images not listed"] += 1
        elif not _is_box(entry.get("bbox")):
            problems.setdefault("annotation without a bbox of 4 numbers", []).append(name)
        elif not _is_whole(entry.get("category_id")) or entry["category_id"] not in categories:
            problems.setdefault("annotation of an unknown category", []).append(name)
        else:
            of_image.setdefault(entry["image_id"], []).append(entry)
    return of_image


def _size(entry: Entry) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    if _is_whole(height) and _is_whole(width) and height > 0 and width > 0:
        return int(height), int(width)
    return None


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


def _is_whole(value: Any) -> TypeGuard[float]:
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        # Whole numbers in JSON may be too large for a float, and what is no number fails as well.
        and all(isinstance(one, int | float) and abs(one) <= FARTHEST for one in value)
    )
