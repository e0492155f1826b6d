"""Volumes and masks listed in a CSV file: `image,label[,id][,group][,split]`.

Paths are relative to the CSV file's folder, or absolute. Several channels are several columns
(`image_0,image_1` or by name, `image_T1,image_FLAIR`), or one cell with the files separated by `;`.
`id` is what logs, tables and written files call the case; without it the name of its first file.
`group` is what must not be divided, as a rule the patient; `split` is train, val or test.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.data.file_pairs import volume_name
from voxlift.data.listing_problems import report_problems
from voxlift.data.manifest_rows import (
    Row,
    check_columns,
    check_splits,
    group_of_row,
    is_there,
    read_rows,
    resolve,
    split_of_row,
)
from voxlift.data.segmentation_cases import SegmentationCase
from voxlift.data.segmentation_listing import SegmentationListing

_log = logging.getLogger(__name__)

_PREFIX = "image_"
_OTHERS = ("label", "id", "group", "split")
_HEADER = "image,label[,id][,group][,split]"
_NOT_IN_FILE_NAMES = re.compile(r'[/\\:*?"<>|]')


def read_segmentation_manifest(path: str | Path, *, skip_bad: bool = False) -> SegmentationListing:
    """Read the list of a data set, checking each row but not yet the volumes themselves.

    Args:
        path: The CSV file: comma separated, UTF-8, with a header.
        skip_bad: List and skip rows whose files are not there, instead of raising.

    Raises:
        DataError: If a column is missing, a file is not there or listed twice, channels are
            missing, an id is there twice, a group is in two splits, or a split is unknown. Rows
            are named by their number, the header's being 1.
    """
    path = Path(path)
    columns, rows = read_rows(path, header=_HEADER)
    image_columns = _image_columns(columns)
    check_columns(
        path, columns, required=("label",) if image_columns else ("image", "label"), header=_HEADER
    )
    _warn(path, columns, image_columns)
    files = [_files(path, row, image_columns) for row in rows]
    rows, files = _existing(path, rows, files, skip_bad=skip_bad)
    _check_files(path, rows, files)
    ids = _ids(path, rows, files, has_ids="id" in columns)
    groups = [group_of_row(path, row) for row in rows] if "group" in columns else ids
    splits = [split_of_row(path, row) for row in rows]
    check_splits(path, rows, splits, groups)
    names = [column.removeprefix(_PREFIX) for column in image_columns]
    return SegmentationListing(
        cases=tuple(
            SegmentationCase(
                id=name,
                images=tuple(resolve(path, image) for image in images),
                label=resolve(path, row.cells["label"]),
                group=group,
                split=split,
            )
            for row, images, name, group, split in zip(
                rows, files, ids, groups, splits, strict=True
            )
        ),
        channel_names=tuple(f"channel {name}" if name.isdecimal() else name for name in names)
        if len(names) > 1
        else None,
        origin=str(path),
    )


def _image_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of images, those with numbers in their order."""
    if "image" in columns:
        return ("image",)
    found = [column for column in columns if column.startswith(_PREFIX)]
    if all(column.removeprefix(_PREFIX).isdecimal() for column in found):
        found.sort(key=lambda column: int(column.removeprefix(_PREFIX)))
    return tuple(found)


def _warn(path: Path, columns: Sequence[str], image_columns: Sequence[str]) -> None:
    ignored = [name for name in columns if name not in (*image_columns, *_OTHERS)]
    if ignored:
        _log.warning("%s: columns that have no meaning here: %s", path, ", ".join(ignored))
    if "group" not in columns:
        _log.warning(
            "%s has no column 'group': each volume counts as a patient of its own. If patients "
            "have several volumes, name the patient there, or the test will flatter the network.",
            path,
        )


def _files(path: Path, row: Row, image_columns: Sequence[str]) -> tuple[str, ...]:
    cells = [row.cells[column] for column in image_columns]
    files = [part.strip() for cell in cells for part in cell.split(";")]
    for what, texts in (("image", files), ("label", [row.cells["label"]])):
        if not all(texts):
            raise DataError(
                f"{path}, row {row.number}: a path of '{what}' is empty. Fill it in, or leave the "
                "row out."
            )
    return tuple(files)


def _existing(
    path: Path, rows: list[Row], files: list[tuple[str, ...]], *, skip_bad: bool
) -> tuple[list[Row], list[tuple[str, ...]]]:
    missing: list[str] = []
    kept = []
    for row, images in zip(rows, files, strict=True):
        gone = [text for text in (*images, row.cells["label"]) if not is_there(resolve(path, text))]
        missing += [f"row {row.number}: {text}" for text in gone]
        if not gone:
            kept.append((row, images))
    report_problems(
        str(path),
        {f"file that is not there (looked in {path.parent})": missing},
        skip_bad=skip_bad,
        remedy="Correct the rows.",
    )
    if not kept:
        raise DataError(f"{path}: no row has all its files there. Check the paths.")
    return [row for row, _ in kept], [images for _, images in kept]


def _check_files(path: Path, rows: list[Row], files: list[tuple[str, ...]]) -> None:
    """Refuse files that are there twice, and rows with another number of channels."""
    first: dict[Path, int] = {}
    for row, images in zip(rows, files, strict=True):
        if len(images) != len(files[0]):
            raise DataError(
                f"{path}, row {row.number}: there are {len(images)} files of channels, but "
                f"{len(files[0])} in row {rows[0].number}. Give each case all channels."
            )
        for text in (*images, row.cells["label"]):
            place = resolve(path, text).resolve()
            if place in first:
                raise DataError(
                    f"{path}, row {row.number}: {text} is the same file as in row {first[place]}. "
                    "List each file once."
                )
            first[place] = row.number


def _ids(path: Path, rows: list[Row], files: list[tuple[str, ...]], *, has_ids: bool) -> list[str]:
    if has_ids:
        for row in rows:
            name = row.cells["id"]
            if not name or name.startswith(".") or _NOT_IN_FILE_NAMES.search(name):
                raise DataError(
                    f"{path}, row {row.number}: the id is '{name}'; files will bear it, so that it "
                    "needs one without / and the like."
                )
        return [row.cells["id"] for row in rows]
    names = [volume_name(resolve(path, images[0])) for images in files]
    if len(set(names)) == len(names):
        return names
    # Where files have equal names, such as ct.nii.gz in a folder of each patient, so have folders.
    counts = Counter(names)
    return [
        name
        if counts[name] == 1
        else _NOT_IN_FILE_NAMES.sub("_", str(Path(images[0]).with_name(name)))
        for name, images in zip(names, files, strict=True)
    ]
