"""DeepLesion: lesions marked in key slices of CT, with the slices about them.

A folder with

- `Images_png/<patient>_<study>_<series>/<slice>.png`, 16-bit, HU + 32768, of each scan the slices
  about its key slices only;
- `DL_info.csv` as published, or annotations in COCO's form, one file a split.

Source:
    Yan, Wang, Lu, Summers, "DeepLesion", Journal of Medical Imaging 5(3), 2018.
"""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from voxlift.core.detection_settings import Noisy
from voxlift.core.errors import DataError
from voxlift.data.box_clipping import clip_boxes
from voxlift.data.coco import find_annotations
from voxlift.data.deeplesion_csv import TABLE, read_lesion_table
from voxlift.data.deeplesion_files import ScanFiles
from voxlift.data.deeplesion_json import read_lesion_annotations
from voxlift.data.deeplesion_pixels import KeySlice, read_png_header, slice_path
from voxlift.data.detection_cases import ONE_CLASS, Boxes, DetectionCase, DetectionCases
from voxlift.data.lesion_images import LesionImage
from voxlift.data.listing_problems import report_problems
from voxlift.data.splits import SPLITS, check_groups

_log = logging.getLogger(__name__)

IMAGES = "Images_png"
NESTED_IMAGES = (IMAGES, f"{IMAGES}/{IMAGES}")
"""The second is where the published archives unpack to in a folder of this name."""

_NUM_THREADS = 4


def is_deeplesion(folder: Path) -> bool:
    """Tell whether a folder has DeepLesion's table or its folder of images."""
    return (folder / TABLE).is_file() or (folder / IMAGES).is_dir()


def read_deeplesion(
    data: str | Path,
    *,
    images: str | Path | None = None,
    noisy: Noisy = "drop",
    class_agnostic: bool = False,
    skip_bad: bool = False,
) -> DetectionCases:
    """Read key slices with lesions, in the official splits.

    Boxes are clipped to their image, those without an area dropped. Where neighbouring slices are
    missing, the nearest one repeats. The log says how often.

    Args:
        data: The folder, or the table or annotation file in it. In a folder, `DL_info.csv` comes
            before annotations in COCO's form.
        images: The folder of the scans' folders; by default `Images_png`, or
            `Images_png` in it, beside the annotations.
        noisy: Boxes marked as possibly wrong are dropped, ignored by training and judgement, or
            kept. A slice that has none but dropped ones is left out.
        class_agnostic: Take all categories as one; the table has but one anyway.
        skip_bad: List and skip what cannot be used, instead of raising; every key slice is then
            read once, and the header of every slice about one: those that cannot be used are taken
            for missing.

    Raises:
        DataError: If annotations or key slices are missing or cannot be used, a key slice has
            another size than its boxes were drawn for, or a patient is in two splits.
    """
    data = Path(data)
    listed, names, counts = _read_listing(data, skip_bad=skip_bad)
    files = ScanFiles(Path(images) if images is not None else _find_images(data))
    listed = _without_noisy(listed, noisy, counts)
    used, problems = _check_key_slices(listed, files, read=skip_bad)
    report_problems(
        str(data),
        problems,
        skip_bad=skip_bad,
        remedy="Complete the images, or correct the annotations.",
    )
    if skip_bad:
        _leave_out_neighbours(str(data), used, files)
    cases = [_case(image, files, counts) for image in used]
    try:
        check_groups([case.split for case in cases], [case.group for case in cases])
    except DataError as error:
        raise DataError(f"{data}: {error}") from error
    broken = [image.name for image in used if files.lacks_neighbours(image)]
    if broken:
        _log.warning(
            "%s: %d key slices lack some of the slices about them, such as %s; the nearest one "
            "that is there repeats.",
            data,
            len(broken),
            broken[0],
        )
    if class_agnostic or len(names) == 1:
        names = (ONE_CLASS["HU"],)
        cases = [replace(case, truth=case.truth.of_one_class()) for case in cases]
    handled = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    _log.info("%s: %d key slices; %s", data, len(cases), handled or "nothing amiss")
    return DetectionCases(tuple(cases), names, str(data))


def _read_listing(
    data: Path, *, skip_bad: bool
) -> tuple[list[LesionImage], tuple[str, ...], Counter[str]]:
    """Read the annotations, of whichever form."""
    table = data / TABLE if (data / TABLE).is_file() else data
    if table.suffix.lower() == ".csv":
        images, counts = read_lesion_table(table, skip_bad=skip_bad)
        return list(images), (ONE_CLASS["HU"],), counts
    listed: list[LesionImage] = []
    all_counts: Counter[str] = Counter()
    names: tuple[str, ...] = ()
    for path, given_split in find_annotations(data):
        split = given_split or next((s for s in SPLITS if s in path.stem.lower()), "")
        images, found, counts = read_lesion_annotations(path, split=split, skip_bad=skip_bad)
        if names and names != found:
            raise DataError(f"{path} has other categories than the files beside it.")
        names = found
        listed += images
        all_counts += counts
    return listed, names, all_counts


def _find_images(data: Path) -> Path:
    folder = data if data.is_dir() else data.absolute().parent
    places = [above / inside for above in (folder, folder.parent) for inside in NESTED_IMAGES]
    for place in (*places, folder):
        if place.is_dir() and any(place.glob("*_*_*/*.png")):
            return place
    raise DataError(
        f"{data}: found no {IMAGES} with folders of scans in {folder} or above it. "
        "Give the folder of the images."
    )


def _without_noisy(
    listed: list[LesionImage], noisy: Noisy, counts: Counter[str]
) -> list[LesionImage]:
    """Do with possibly wrong boxes what was asked for."""
    num_noisy = sum(int(image.noisy.sum()) for image in listed)
    if noisy == "keep":
        counts["noisy boxes kept"] += num_noisy
        return listed
    if noisy == "ignore":
        counts["noisy boxes to be ignored"] += num_noisy
        return [replace(image, crowd=image.crowd | image.noisy) for image in listed]
    counts["noisy boxes dropped"] += num_noisy
    # With its only lesion dropped, a slice would pass for one without lesions.
    kept = [image for image in listed if not len(image.noisy) or not image.noisy.all()]
    counts["slices left out, for all their boxes are noisy"] += len(listed) - len(kept)
    return [image.chosen(~image.noisy) if image.noisy.any() else image for image in kept]


def _check_key_slices(
    listed: list[LesionImage], files: ScanFiles, *, read: bool
) -> tuple[list[LesionImage], dict[str, list[str]]]:
    """Find the key slices that can be used, and by what is the matter with them the others."""
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        found = list(threads.map(lambda image: files.check(image, read=read), listed))
    problems: dict[str, list[str]] = {}
    for image, problem in zip(listed, found, strict=True):
        if problem is not None:
            problems.setdefault(problem.kind, []).append(f"{image.name}{problem.more}")
    return [
        image for image, problem in zip(listed, found, strict=True) if problem is None
    ], problems


def _leave_out_neighbours(origin: str, used: list[LesionImage], files: ScanFiles) -> None:
    """Take slices that cannot be used for missing, so that none stops a training."""
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        bad = sorted(set().union(*threads.map(files.leave_out_unusable, used)))
    report_problems(
        origin,
        {"slice about a key slice that is no 16-bit grey PNG of its size": bad},
        skip_bad=True,
        remedy="",
    )


def _case(image: LesionImage, files: ScanFiles, counts: Counter[str]) -> DetectionCase:
    folder = files.folder / image.series
    header = read_png_header(slice_path(folder, image.number))
    clipped = clip_boxes(image.corners, size=(header.height, header.width))
    inside = image.chosen(clipped.kept)
    counts.update(clipped.counts)
    counts["slices without boxes"] += not len(clipped.boxes)
    first, last = files.run(image)
    return DetectionCase(
        id=image.name,
        group=image.series.split("_")[0],
        split=image.split,
        size=(header.height, header.width),
        truth=Boxes(boxes=clipped.boxes, labels=inside.labels, crowd=inside.crowd),
        source=KeySlice(
            folder=folder,
            number=image.number,
            first=first,
            last=last,
            interval_mm=image.interval_mm,
            spacing_mm=image.spacing_mm,
        ),
        facts={
            "spacing_mm": image.spacing_mm,
            "interval_mm": image.interval_mm,
            "window_hu": image.window_hu,
            "lesion_type": inside.lesion_types,
            "diameters_mm": inside.diameters_mm,
        },
    )
