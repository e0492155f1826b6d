"""Make the LIDC layout of LIDC-IDRI as it is published: DICOM series with XML annotations.

Command: `uv run python scripts/prepare_lidc.py --data LIDC-IDRI --out lidc`.

- **Marks.** The contours that up to four readers drew around nodules of 3 mm and more. A contour is
  the first ring of pixels outside the nodule, so a mark is what lies within it; contours that
  exclude (a cavity) are cut out. Smaller nodules, which have a point instead, are left out.
- **Nodules.** Marks that share a voxel are marks of one nodule.
- **Mask** (`answer1`). The voxels that at least half of the readers of the nodule marked.
- **Malignancy.** The rating given most often, of several the lowest, as in the published table; 0
  if no reader rated it.
- **Cubes.** CT (`voxel`) and mask at 1 mm, linearly interpolated, about the middle of the mask;
  what lies outside the scan is air. 48 voxels and a shift of 5 fit into the default size.
- **8 bits.** -1000 to 400 HU become 0 to 255, as of the recipe `lidc-segment`. This window is ours:
  that of the published cubes is not documented.

Nodules are numbered here anew: the published `train_test_split.csv` does not go with them.

Source:
    Armato et al., The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative
    (IDRI), Medical Physics 38(2), 2011.
"""

import csv
import hashlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import multimode
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt
import tyro
from scipy import ndimage
from skimage import draw

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.files import write_aside, write_text
from voxlift.data.dicom_series import choose_series, list_series
from voxlift.data.volume import Volume
from voxlift.data.volumes import read_volume

logger = logging.getLogger("prepare_lidc")

AIR_HU = -1000.0
MOST_READERS = 4
COLUMNS = ("index", "uid", "malignancy_mode", "malignancies", "num_readers")
# In slices: positions are rounded in the annotations.
SLICE_TOLERANCE = 0.2

Mask = npt.NDArray[np.bool_]


@dataclass
class Command:
    """Write one .npz file a nodule, and the table of the nodules.

    Args:
        data: Folder with the DICOM series and the XML annotations, anywhere below it.
        out: Folder to write; it has to be empty.
        size: Edge of the cubes in voxels of 1 mm.
        window: Lowest and highest HU that are kept.
        min_readers: Readers that have to have marked a nodule.
        skip_bad: List scans that cannot be used and go on without them.
    """

    data: Path
    out: Path = Path("lidc")
    size: int = 64
    window: tuple[float, float] = (AIR_HU, 400.0)
    min_readers: int = 1
    skip_bad: tyro.conf.FlagCreatePairsOff[bool] = False


@dataclass(frozen=True)
class Contour:
    """A contour in one slice: its place in mm, its pixels, and whether it excludes."""

    z_mm: float
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    excludes: bool


@dataclass(frozen=True)
class Mark:
    """What one reader drew around one nodule, and how it was rated (0 if it was not)."""

    reader: int
    malignancy: int
    contours: tuple[Contour, ...]


@dataclass(frozen=True, eq=False)
class Nodule:
    """The marks of one nodule, each with its mask in the box that holds all of them.

    Attributes:
        marks: The marks.
        masks: Their masks.
        corner: First voxel of the box.
    """

    marks: list[Mark]
    masks: list[Mask]
    corner: tuple[int, int, int]

    @property
    def num_readers(self) -> int:
        """How many readers marked it."""
        return len({mark.reader for mark in self.marks})

    @property
    def ratings(self) -> list[int]:
        """Malignancy by the readers that rated it."""
        return [mark.malignancy for mark in self.marks if mark.malignancy]

    def consensus(self) -> Mask:
        """Mark the voxels that at least half of its readers marked."""
        of_reader: dict[int, Mask] = {}
        for mark, mask in zip(self.marks, self.masks, strict=True):
            of_reader[mark.reader] = mask | of_reader.get(mark.reader, np.zeros_like(mask))
        agreed: Mask = 2 * np.sum(list(of_reader.values()), axis=0) >= len(of_reader)
        return agreed


def main() -> None:
    """Write the layout."""
    command = tyro.cli(Command)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    prepare(command)


def prepare(command: Command) -> None:
    """Write a folder in the LIDC layout.

    Raises:
        ConfigError: If the window is empty.
        DataError: If a scan or its annotations cannot be used (and are not to be skipped), there is
            no nodule, or the folder is not empty.
    """
    if not command.window[0] < command.window[1]:
        raise ConfigError(f"The window is {command.window}, but low has to be below high.")
    if command.out.exists() and any(command.out.iterdir()):
        raise DataError(f"{command.out} is not empty. Choose another folder with --out.")
    series = find_series(command.data)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    done: set[str] = set()
    count = 0
    for path in sorted(command.data.rglob("*.xml")):
        try:
            rows = prepare_scan(path, series, done, command)
        except DataError as error:
            if not command.skip_bad:
                raise
            logger.warning("skipped: %s", error)
            continue
        writer.writerows(rows)
        count += len(rows)
        logger.info("%s: %d nodules", path, len(rows))
    if not count:
        raise DataError(f"{command.data}: there is no annotated nodule. Check --data.")
    write_text(command.out / "nodules.csv", table.getvalue())
    logger.info("%s: %d nodules of %d scans", command.out, count, len(done))


def find_series(folder: Path) -> dict[str, Path]:
    """Find the folder of each DICOM series below a folder, by its UID."""
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    return {summary.uid: each for each in folders for summary in list_series(each)}


def prepare_scan(
    path: Path, series: dict[str, Path], done: set[str], command: Command
) -> list[tuple[object, ...]]:
    """Write the nodules of one scan; return their rows of the table, none for a radiograph."""
    uid, marks = read_annotations(path)
    if not marks:
        return []
    if uid not in series:
        raise DataError(f"{path}: its series {uid} is not among the DICOM files. Add it.")
    if uid in done:
        raise DataError(f"{path}: its series {uid} has other annotations, too. Keep one of them.")
    patient = str(choose_series(series[uid], uid)[0].tags.get("PatientID") or "")
    if not patient:
        raise DataError(f"{path}: its series has no PatientID, by which nodules are grouped.")
    volume = read_volume(series[uid], series_uid=uid)
    rows: list[tuple[object, ...]] = []
    name = hashlib.sha256(uid.encode()).hexdigest()[:10]
    for nodule in find_nodules(path, marks, volume):
        if nodule.num_readers < command.min_readers:
            continue
        index = f"{name}-{len(rows) + 1:02d}"
        voxel, mask = cut_cube(volume, nodule, size=command.size, window=command.window)
        with write_aside(command.out / "nodule" / f"{index}.npz") as aside:
            np.savez_compressed(aside, voxel=voxel, answer1=mask)
        ratings = sorted(nodule.ratings)
        mode = min(multimode(ratings), default=0)
        rows.append((index, patient, mode, " ".join(map(str, ratings)), nodule.num_readers))
    done.add(uid)
    return rows


def read_annotations(path: Path) -> tuple[str, list[Mark]]:
    """Read the series that an XML file annotates, and the marks of all its readers.

    Raises:
        DataError: If the file cannot be read as annotations of LIDC-IDRI.
    """
    try:
        root = ElementTree.parse(path).getroot()
        sessions = root.findall("{*}readingSession")
        marks = [
            mark
            for reader, session in enumerate(sessions)
            for nodule in session.findall("{*}unblindedReadNodule")
            if (mark := _read_mark(nodule, reader)).contours
        ]
        uid = _text(root, ".//{*}SeriesInstanceUid") if sessions else ""
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise DataError(
            f"{path} could not be read as annotations of LIDC-IDRI: {error}. Copy it again."
        ) from error
    if len(sessions) > MOST_READERS:
        raise DataError(
            f"{path} holds {len(sessions)} reading sessions; expected at most {MOST_READERS}."
        )
    return uid, marks


def _read_mark(nodule: Element, reader: int) -> Mark:
    contours = (_read_contour(roi) for roi in nodule.findall("{*}roi"))
    return Mark(
        reader=reader,
        malignancy=int(nodule.findtext("{*}characteristics/{*}malignancy", "0")),
        # Nodules below 3 mm have a single point.
        contours=tuple(contour for contour in contours if len(contour.rows) > 1),
    )


def _read_contour(roi: Element) -> Contour:
    points = roi.findall("{*}edgeMap")
    return Contour(
        z_mm=float(_text(roi, "{*}imageZposition")),
        rows=tuple(int(_text(point, "{*}yCoord")) for point in points),
        columns=tuple(int(_text(point, "{*}xCoord")) for point in points),
        excludes=_text(roi, "{*}inclusion").upper() == "FALSE",
    )


def _text(element: Element, name: str) -> str:
    text = (element.findtext(name) or "").strip()
    if not text:
        raise ValueError(f"<{name.rpartition('}')[2]}> is missing or empty")
    return text


def find_nodules(path: Path, marks: Sequence[Mark], volume: Volume) -> Iterator[Nodule]:
    """Put the marks that share a voxel together.

    Raises:
        DataError: If a contour is outside the scan.
    """
    drawn = [(mark, draw_mark(path, mark, volume)) for mark in marks]
    empty = sum(not len(voxels) for _, voxels in drawn)
    if empty:
        logger.warning("%s: %d marks enclose no pixel and are left out", path, empty)
    groups: list[list[tuple[Mark, npt.NDArray[np.int64]]]] = []
    for one in drawn:
        if not len(one[1]):
            continue
        touched = [group for group in groups if any(_share(one[1], voxels) for _, voxels in group)]
        groups = [group for group in groups if not any(group is other for other in touched)]
        groups.append([*(each for group in touched for each in group), one])
    for group in groups:
        places = [np.stack(np.unravel_index(v, volume.size_voxels)) for _, v in group]
        corner = np.min([place.min(axis=1) for place in places], axis=0)
        shape = np.max([place.max(axis=1) for place in places], axis=0) - corner + 1
        masks = [np.zeros(shape, dtype=bool) for _ in group]
        for mask, place in zip(masks, places, strict=True):
            mask[tuple(place - corner[:, None])] = True
        depth, height, width = corner.tolist()
        yield Nodule([mark for mark, _ in group], masks, (depth, height, width))


def _share(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> bool:
    return len(np.intersect1d(one, other, assume_unique=True)) > 0


def draw_mark(path: Path, mark: Mark, volume: Volume) -> npt.NDArray[np.int64]:
    """Number the voxels within the contours of a mark, as in the flat volume.

    Raises:
        DataError: If a contour is outside the scan.
    """
    size = volume.size_voxels
    step_mm = volume.spacing_mm[0] * volume.direction[2, 2]
    within: dict[bool, list[npt.NDArray[np.int64]]] = {False: [], True: []}
    for contour in mark.contours:
        place = (contour.z_mm - volume.origin_mm[2]) / step_mm if step_mm else np.nan
        if not abs(place - np.round(place)) <= SLICE_TOLERANCE or not (
            0 <= round(place) < size[0]
            and 0 <= min(contour.rows) <= max(contour.rows) < size[1]
            and 0 <= min(contour.columns) <= max(contour.columns) < size[2]
        ):
            raise DataError(
                f"{path}: a contour at z = {contour.z_mm:g} mm lies on no slice of its series, or "
                "outside of it. The annotations belong to another series, or slices are missing."
            )
        plane = np.zeros(size[1:], dtype=bool)
        plane[draw.polygon(contour.rows, contour.columns, plane.shape)] = True
        plane[draw.polygon_perimeter(contour.rows, contour.columns, plane.shape)] = False
        rows, columns = np.nonzero(plane)
        numbers = np.ravel_multi_index((np.full_like(rows, round(place)), rows, columns), size)
        within[contour.excludes].append(numbers)
    included, excluded = (
        np.unique(np.concatenate([*within[kind], np.empty(0, np.int64)])) for kind in (False, True)
    )
    return np.setdiff1d(included, excluded, assume_unique=True)


def cut_cube(
    volume: Volume, nodule: Nodule, *, size: int, window: tuple[float, float]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Cut a cube of 1 mm voxels about the middle of a nodule: the CT in 8 bits, and the mask."""
    agreed = nodule.consensus()
    there = np.argwhere(agreed)
    middle = np.array(nodule.corner) + (there.min(axis=0) + there.max(axis=0)) / 2
    step = 1 / np.array(volume.spacing_mm)
    start = middle - step * (size - 1) / 2
    image, mask = (
        ndimage.affine_transform(
            array, step, offset, (size,) * 3, np.float32, order=1, cval=outside
        )
        for array, offset, outside in (
            (volume.array, start, AIR_HU),
            (np.pad(agreed, 1).astype(np.float32), start - nodule.corner + 1, 0.0),
        )
    )
    low, high = window
    scaled = np.round((image.clip(low, high) - low) / (high - low) * 255)
    return scaled.astype(np.uint8), (mask >= 0.5).astype(np.uint8)


if __name__ == "__main__":
    main()
