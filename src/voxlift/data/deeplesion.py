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
from voxlift.data.deeplesion_json import read_lesion_annotations
from voxlift.data.deeplesion_pixels import (
    KeySlice,
    read_hounsfield,
    read_png_header,
    slice_name,
    slice_path,
)
from voxlift.data.detection_cases import ONE_CLASS, Boxes, DetectionCase, DetectionCases
from voxlift.data.lesion_images import LesionImage
from voxlift.data.listing_problems import report_problems
from voxlift.data.slice_context import unbroken_run
from voxlift.data.splits import SPLITS, check_groups

_log = logging.getLogger(__name__)

IMAGES = "Images_png"
# DeepLesion gives so much of a scan to either side of a key slice.
_CONTEXT_MM = 30.0
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
        images: The folder of the scans' folders; by default `Images_png` beside the annotations.
        noisy: Boxes marked as possibly wrong are dropped, ignored by training and judgement, or
            kept. A slice that has none but dropped ones is left out.
        class_agnostic: Take all categories as one; the table has but one anyway.
        skip_bad: List and skip what cannot be used, instead of raising; every key slice is then
            read once.

    Raises:
        DataError: If annotations or key slices are missing or cannot be used, or a patient is in
            two splits.
    """
    data = Path(data)
    listed, names, counts = _read_listing(data, skip_bad=skip_bad)
    files = _ScanFiles(Path(images) if images is not None else _find_images(data))
    listed = _without_noisy(listed, noisy, counts)
    problems = _problems(listed, files, read=skip_bad)
    report_problems(
        str(data),
        problems,
        skip_bad=skip_bad,
        remedy="Complete the images, or correct the annotations.",
    )
    left_out = {name for names_found in problems.values() for name in names_found}
    used = [image for image in listed if image.name not in left_out]
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
    for place in (folder / IMAGES, folder.parent / IMAGES, folder):
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


class _ScanFiles:
    """Which slices of which scan are there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers: dict[str, set[int]] = {}

    def numbers(self, series: str) -> set[int]:
        """Return the numbers of the slices of a scan."""
        if series not in self._numbers:
            try:
                names = [path.name for path in (self.folder / series).iterdir()]
            except (FileNotFoundError, NotADirectoryError):
                names = []
            except OSError as error:
                raise DataError(
                    f"{self.folder / series} could not be read: {error.strerror or error}."
                ) from error
            stems = {name[:-4] for name in names if name.endswith(".png")}
            found = {int(stem) for stem in stems if stem.isascii() and stem.isdigit()}
            self._numbers[series] = {n for n in found if slice_name(n)[:-4] in stems}
        return self._numbers[series]

    def lacks_neighbours(self, image: LesionImage) -> bool:
        """Tell whether slices are missing that belong to the surroundings of a key slice."""
        numbers = self.numbers(image.series)
        if image.slice_range is not None:
            return not numbers.issuperset(range(image.slice_range[0], image.slice_range[1] + 1))
        reach = int(_CONTEXT_MM / image.interval_mm)
        first = max(min(numbers), image.number - reach)
        last = min(max(numbers), image.number + reach)
        return not numbers.issuperset(range(first, last + 1))


def _problems(listed: list[LesionImage], files: _ScanFiles, *, read: bool) -> dict[str, list[str]]:
    """Find key slices that cannot be used, by what is the matter with them."""
    problems: dict[str, list[str]] = {}

    def check(image: LesionImage) -> str:
        path = slice_path(files.folder / image.series, image.number)
        try:
            header = read_png_header(path)
            if not header.is_hounsfield:
                return f"key slice of {header.describe()} where 16 bits of grey are due"
            if read:
                read_hounsfield(path)
        except DataError:
            return "key slice that is damaged"
        return ""

    there = []
    for image in listed:
        if image.number in files.numbers(image.series):
            there.append(image)
        else:
            problems.setdefault(f"key slice not in {files.folder}", []).append(image.name)
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        for image, problem in zip(there, threads.map(check, there), strict=True):
            if problem:
                problems.setdefault(problem, []).append(image.name)
    return problems


def _case(image: LesionImage, files: _ScanFiles, counts: Counter[str]) -> DetectionCase:
    folder = files.folder / image.series
    header = read_png_header(slice_path(folder, image.number))
    clipped = clip_boxes(image.corners, size=(header.height, header.width))
    inside = image.chosen(clipped.kept)
    counts.update(clipped.counts)
    counts["slices without boxes"] += not len(clipped.boxes)
    first, last = unbroken_run(files.numbers(image.series), image.number)
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
