"""Photographs with boxes in COCO's form: one or more annotation files and a folder of images."""

import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from voxlift.core.errors import ConfigError, DataError
from voxlift.data.box_clipping import clip_boxes
from voxlift.data.coco_annotations import CocoAnnotations, CocoImage, read_coco_annotations
from voxlift.data.detection_cases import (
    ONE_CLASS,
    Boxes,
    DetectionCase,
    DetectionCases,
    Slices,
    Unit,
)
from voxlift.data.images import read_image, read_image_size
from voxlift.data.listing_problems import report_problems
from voxlift.data.splits import SPLITS

_log = logging.getLogger(__name__)

ANNOTATIONS = ("annotations", "annotation")
"""Folders for annotation files; the first that holds any is taken."""

_NUM_THREADS = 4
# So many files are looked for to find out which folder the images are in.
_NUM_PROBED = 50
_LONGEST_NAME = 200


@dataclass(frozen=True)
class PhotographFile:
    """A photograph, whose slices are its colour channels.

    Attributes:
        path: The file.
        size: Height and width that its boxes were drawn for.
    """

    path: Path
    size: tuple[int, int] | None
    unit: Unit = "0-255"

    def read(self, *, num_slices: int, interval_mm: float | None) -> Slices:
        """Read it.

        Raises:
            ConfigError: If other than 3 slices are asked for.
            DataError: If it cannot be read, or has another size than its boxes were drawn for.
        """
        del interval_mm
        if num_slices != 3:
            raise ConfigError(
                f"A photograph has 3 slices, its colour channels; num_slices is {num_slices}. "
                "Give 3 for photographs."
            )
        image = read_image(self.path)
        if self.size is not None and image.shape[:2] != self.size:
            raise DataError(
                f"{self.path} has {image.shape[0]} x {image.shape[1]} pixels (height, width), but "
                f"its boxes were drawn for {self.size[0]} x {self.size[1]}. Give the image that "
                "belongs to the annotations, unscaled and not turned."
            )
        array = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
        return Slices(array, self.unit)


def read_coco(
    data: str | Path,
    *,
    images: str | Path | None = None,
    class_agnostic: bool = False,
    skip_bad: bool = False,
) -> DetectionCases:
    """Read photographs with boxes.

    Categories are numbered from 0 in the order of their ids. Boxes are clipped to their image,
    those without an area dropped; crowds are kept as regions to be ignored, and images without
    boxes as such. The log says how often.

    Args:
        data: An annotation file, or a folder with one, or with one a split (`train`, `val` or
            `test` in their names), in itself, in `annotations/` or in `annotation/`.
        images: The folder that the file names start from; by default it is looked for beside the
            annotations.
        class_agnostic: Take all categories as one.
        skip_bad: List and skip what cannot be used, instead of raising; every image is then read
            once, otherwise its header alone.

    Raises:
        DataError: If annotations or images are missing or cannot be used, an image has another
            size than its boxes were drawn for, or its name leads out of the folder.
    """
    data = Path(data)
    files = find_annotations(data)
    cases: list[DetectionCase] = []
    names: tuple[str, ...] = ()
    for path, split in files:
        annotations = read_coco_annotations(path, skip_bad=skip_bad)
        found = tuple(annotations.categories.values())
        if names and names != found and not class_agnostic:
            raise DataError(
                f"{path} has other categories than {files[0][0]}, so that their boxes cannot be "
                "learnt together. Give the same categories, or take all as one (class_agnostic)."
            )
        names = found
        image_files = _image_files(
            annotations, None if images is None else Path(images), skip_bad=skip_bad
        )
        cases += _cases(annotations, image_files, split)
    _refuse_shared_images(str(data), cases)
    if class_agnostic:
        names = (ONE_CLASS["0-255"],)
        cases = [replace(case, truth=case.truth.of_one_class()) for case in cases]
    return DetectionCases(tuple(cases), names, str(data))


def find_annotations(data: Path) -> tuple[tuple[Path, str], ...]:
    """Find annotation files and the split that each is for, empty for a file that stands alone.

    Raises:
        DataError: If there is none, or it cannot be told which are meant.
    """
    if data.is_file():
        return ((data, ""),)
    if not data.is_dir():
        raise DataError(f"{data} is not there. Check --data.")
    places = (data, *(data / name for name in ANNOTATIONS))
    files = next((found for place in places if (found := sorted(place.glob("*.json")))), [])
    # Beside the boxes, COCO has files of captions and key points.
    files = [path for path in files if path.name.startswith("instances")] or files
    if not files:
        raise DataError(
            f"{data} holds no annotation file (.json), nor does {' or '.join(ANNOTATIONS)} in it. "
            "Give the annotation file itself."
        )
    if len(files) == 1:
        return ((files[0], ""),)
    of_split = {split: [p for p in files if split in p.stem.lower()] for split in SPLITS}
    if any(len(found) > 1 for found in of_split.values()) or not of_split["train"]:
        raise DataError(
            f"{data} holds several annotation files ({', '.join(p.name for p in files[:10])}), and "
            "their names do not say which is for training. Give the file itself, or leave one "
            "with 'train', one with 'val' and one with 'test' in its name."
        )
    return tuple((found[0], split) for split, found in of_split.items() if found)


@dataclass(frozen=True)
class _ImageFile:
    """An image that is there, with the height and width that its header tells."""

    path: Path
    size: tuple[int, int]


def _image_files(
    annotations: CocoAnnotations, folder: Path | None, *, skip_bad: bool
) -> dict[str, _ImageFile]:
    """Find the image of each file name; those that cannot be used are left out."""
    origin = str(annotations.path)
    outside = [image.name for image in annotations.images if _leads_outside(image.name)]
    report_problems(
        origin,
        {"file_name that leads out of the folder of images": [_short(name) for name in outside]},
        skip_bad=skip_bad,
        remedy="Give names within that folder, without '..'.",
    )
    sizes = {image.name: image.size for image in annotations.images}
    for name in outside:
        del sizes[name]
    if not sizes:
        raise DataError(f"{origin} lists no images that can be used.")
    root, keeps_folders = _find_images(annotations.path, list(sizes), folder)
    paths = {name: _place(root, name, keeps_folders=keeps_folders) for name in sizes}
    there = {name: path for name, path in paths.items() if _is_file(path)}
    problems = {
        f"image listed but not in {root}": [_short(name) for name in paths if name not in there]
    }
    files: dict[str, _ImageFile] = {}
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        found = threads.map(lambda path: _check(path, read=skip_bad), there.values())
        for (name, path), size in zip(there.items(), found, strict=True):
            if isinstance(size, str):
                problems.setdefault("image that cannot be read", []).append(size)
            elif size != (sizes[name] or size):
                problems.setdefault(
                    "image of another size (height x width) than its boxes were drawn for", []
                ).append(f"{name} ({_text(size)} instead of {_text(sizes[name] or size)})")
            else:
                files[name] = _ImageFile(path, size)
    report_problems(
        origin,
        problems,
        skip_bad=skip_bad,
        remedy="Give the folder of the images, or the annotations that belong to it.",
    )
    return files


def _check(path: Path, *, read: bool) -> tuple[int, int] | str:
    """Return height and width of an image, or why it cannot be read."""
    try:
        if read:
            read_image(path, draft_size=32)
        size = read_image_size(path)
    except DataError as error:
        return str(error)
    if _is_deep_grey(path):
        return (
            f"{path} is grey with 16 bits, as CT is stored, of which 8 would be left. CT with its "
            "neighbouring slices is read in the layout of DeepLesion"
        )
    return size


def _is_deep_grey(path: Path) -> bool:
    """Tell whether an image is a PNG of one channel with 16 bits, by its header."""
    with path.open("rb") as file:
        header = file.read(26)
    return header.startswith(b"\x89PNG") and tuple(header[24:26]) == (16, 0)


def _cases(
    annotations: CocoAnnotations, files: dict[str, _ImageFile], split: str
) -> Iterator[DetectionCase]:
    counts: Counter[str] = Counter(annotations.counts)
    for image in annotations.images:
        if image.name in files:
            yield _case(annotations, image, files[image.name], split, counts)
    handled = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    _log.info("%s: %d images; %s", annotations.path, len(files), handled or "nothing amiss")


def _case(
    annotations: CocoAnnotations,
    image: CocoImage,
    file: _ImageFile,
    split: str,
    counts: Counter[str],
) -> DetectionCase:
    clipped = clip_boxes(image.corners, size=file.size)
    truth = Boxes(
        boxes=clipped.boxes,
        labels=annotations.labels(image)[clipped.kept],
        crowd=image.crowd[clipped.kept],
    )
    counts.update(clipped.counts)
    counts["crowds to be ignored"] += int(truth.crowd.sum())
    counts["images without boxes"] += not len(truth)
    return DetectionCase(
        id=f"{split}/{image.name}" if split else image.name,
        group=str(file.path),
        split=split,
        size=file.size,
        truth=truth,
        source=PhotographFile(file.path, file.size),
        facts={"image_id": image.entry["id"]},
    )


def _refuse_shared_images(origin: str, cases: list[DetectionCase]) -> None:
    first: dict[str, DetectionCase] = {}
    for case in cases:
        earlier = first.setdefault(case.group, case)
        if earlier is not case:
            raise DataError(
                f"{origin}: {earlier.id} and {case.id} are the same file. What a network has seen "
                "in training makes its test worthless: list each image in one split."
            )


def _find_images(annotations: Path, names: list[str], folder: Path | None) -> tuple[Path, bool]:
    """Find the folder of the images, and whether the folders within the file names count.

    Of the usual places, the one with most of the listed images.
    """
    beside = annotations.absolute().parent
    # COCO calls the folder of `instances_train2017.json` `train2017`.
    part = annotations.stem.removeprefix("instances").strip("_")
    if folder is not None:
        folders = [folder]
    else:
        bases = [base / inner for base in (beside, beside.parent) for inner in ("", "images")]
        folders = [base / part for base in bases if part] + bases
    probed = names[:: max(1, len(names) // _NUM_PROBED)]
    places = [(place, keeps) for keeps in (True, False) for place in folders]

    def num_found(place: tuple[Path, bool]) -> int:
        root, keeps = place
        return sum(_is_file(_place(root, name, keeps_folders=keeps)) for name in probed)

    best = max(places, key=num_found)
    if not num_found(best):
        looked = ", ".join(str(place) for place in folders)
        raise DataError(
            f"{annotations}: none of {len(probed)} images looked for, such as {_short(probed[0])}, "
            f"is there. Looked in {looked}. Give the folder of the images."
        )
    if not best[1]:
        _log.info("%s: images are in %s by their names alone", annotations, best[0])
    return best


def _leads_outside(name: str) -> bool:
    # Of all systems: a file that is harmless on one may be read on another.
    parts = PureWindowsPath(name)
    return bool(parts.anchor) or ".." in parts.parts


def _place(root: Path, name: str, *, keeps_folders: bool) -> Path:
    return root / (name if keeps_folders else PurePosixPath(name).name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Such as a name longer than any file's.
        return False


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
