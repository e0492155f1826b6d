"""Photographs with boxes in COCO's form: one or more annotation files and a folder of images."""

import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

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
from voxlift.data.images import read_image
from voxlift.data.listing_problems import report_problems
from voxlift.data.splits import SPLITS

_log = logging.getLogger(__name__)

_NUM_THREADS = 4
# So many files are looked for to find out which folder the images are in.
_NUM_PROBED = 50


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
            `test` in their names), in itself or in `annotations/`.
        images: The folder that the file names start from; by default it is looked for beside the
            annotations.
        class_agnostic: Take all categories as one.
        skip_bad: List and skip what cannot be used, instead of raising; every image is then read
            once.

    Raises:
        DataError: If annotations or images are missing or cannot be used.
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
        paths = _image_paths(
            annotations, None if images is None else Path(images), skip_bad=skip_bad
        )
        cases += _cases(annotations, paths, split)
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
    files = sorted(data.glob("*.json")) or sorted(data.glob("annotations/*.json"))
    # Beside the boxes, COCO has files of captions and key points.
    files = [path for path in files if path.name.startswith("instances")] or files
    if not files:
        raise DataError(
            f"{data} holds no annotation file (.json), nor does {data / 'annotations'}. "
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


def _image_paths(
    annotations: CocoAnnotations, folder: Path | None, *, skip_bad: bool
) -> dict[str, Path]:
    """Find the image of each file name; those that cannot be used are left out."""
    root, keeps_folders = _find_images(annotations, folder)
    paths = {
        image.name: root / (image.name if keeps_folders else PurePosixPath(image.name).name)
        for image in annotations.images
    }
    problems = {
        f"image listed but not in {root}": [n for n, path in paths.items() if not path.is_file()]
    }
    there = {name: path for name, path in paths.items() if path.is_file()}
    if skip_bad:
        unreadable = _unreadable(there)
        problems["image that cannot be read"] = list(unreadable.values())
        there = {name: path for name, path in there.items() if name not in unreadable}
    report_problems(
        str(annotations.path),
        problems,
        skip_bad=skip_bad,
        remedy="Give the folder of the images, or the annotations that belong to it.",
    )
    return there


def _cases(
    annotations: CocoAnnotations, paths: dict[str, Path], split: str
) -> Iterator[DetectionCase]:
    counts: Counter[str] = Counter(annotations.counts)
    for image in annotations.images:
        if image.name in paths:
            yield _case(annotations, image, paths[image.name], split, counts)
    handled = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    _log.info("%s: %d images; %s", annotations.path, len(paths), handled or "nothing amiss")


def _case(
    annotations: CocoAnnotations,
    image: CocoImage,
    path: Path,
    split: str,
    counts: Counter[str],
) -> DetectionCase:
    height, width = image.size or read_image(path).shape[:2]
    clipped = clip_boxes(image.corners, size=(height, width))
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
        group=str(path),
        split=split,
        size=(height, width),
        truth=truth,
        source=PhotographFile(path, (height, width)),
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


def _find_images(annotations: CocoAnnotations, folder: Path | None) -> tuple[Path, bool]:
    """Find the folder of the images, and whether the folders within the file names count.

    Of the usual places, the one with most of the listed images.
    """
    beside = annotations.path.absolute().parent
    # COCO calls the folder of `instances_train2017.json` `train2017`.
    part = annotations.path.stem.removeprefix("instances").strip("_")
    if folder is not None:
        folders = [folder]
    else:
        bases = [base / inner for base in (beside, beside.parent) for inner in ("", "images")]
        folders = [base / part for base in bases if part] + bases
    names = [image.name for image in annotations.images]
    probed = names[:: max(1, len(names) // _NUM_PROBED)]
    places = [(place, keeps) for keeps in (True, False) for place in folders]

    def num_found(place: tuple[Path, bool]) -> int:
        root, keeps = place
        return sum((root / (n if keeps else PurePosixPath(n).name)).is_file() for n in probed)

    best = max(places, key=num_found)
    if not num_found(best):
        looked = ", ".join(str(place) for place in folders)
        raise DataError(
            f"{annotations.path}: none of {len(probed)} images looked for, such as {probed[0]}, is "
            f"there. Looked in {looked}. Give the folder of the images."
        )
    if not best[1]:
        _log.info("%s: images are in %s by their names alone", annotations.path, best[0])
    return best


def _unreadable(paths: dict[str, Path]) -> dict[str, str]:
    """Read every image; the messages of those that cannot be, by their names."""

    def problem(path: Path) -> str:
        try:
            read_image(path, draft_size=32)
        except DataError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        problems = zip(paths, threads.map(problem, paths.values()), strict=True)
        return {name: text for name, text in problems if text}
