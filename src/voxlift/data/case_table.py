"""A table beside the folders of a data set that tells whose each case is, and its split.

A file `cases.csv` or `labels.csv` with the columns

- `name` (or `id`, `case`): the name of the case, with or without the suffix of its file;
- `patient_id` (or `patient`, `group`): what must not be divided;
- `split`: train, val or test.

One of the last two may be missing; further columns are passed over.
"""

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.data.file_pairs import volume_name
from voxlift.data.listing_problems import report_problems
from voxlift.data.manifest_rows import Row, check_splits, group_of_row, read_rows, split_of_row
from voxlift.data.segmentation_listing import SegmentationListing

_log = logging.getLogger(__name__)

TABLES = ("cases.csv", "labels.csv")
_NAMES = ("name", "id", "case")
_GROUPS = ("patient_id", "patient", "group")
_HEADER = "name,patient_id[,split]"


def apply_case_table(
    listing: SegmentationListing, folder: Path, *, skip_bad: bool = False
) -> SegmentationListing:
    """Take groups and splits from the table in a folder, if there is one; the log says so.

    Args:
        listing: The cases.
        folder: Where the table may be.
        skip_bad: List and skip cases that have no row.

    Raises:
        DataError: If the table cannot be read, a case has no row or two, a group is empty or in
            two splits, or a split is unknown.
    """
    path = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if path is None:
        return listing
    columns, rows = read_rows(path, header=_HEADER)
    name_column = next((name for name in _NAMES if name in columns), None)
    group_column = next((name for name in _GROUPS if name in columns), None)
    if name_column is None or (group_column is None and "split" not in columns):
        _log.warning(
            "%s is not used: it has no columns name and patient_id or split, but %s",
            path,
            ", ".join(columns),
        )
        return listing
    ids = {case.id for case in listing.cases}
    row_of_case = _rows_by_name(path, rows, name_column, ids)
    report_problems(
        str(path),
        {"case without a row": [case.id for case in listing.cases if case.id not in row_of_case]},
        skip_bad=skip_bad,
        remedy="Add the rows, or remove the table.",
    )
    known = [case for case in listing.cases if case.id in row_of_case]
    own_rows = [row_of_case[case.id] for case in known]
    groups = [case.group for case in known]
    if group_column is not None:
        groups = [group_of_row(path, row, column=group_column) for row in own_rows]
    splits = [case.split for case in known]
    if "split" in columns:
        splits = [split_of_row(path, row) for row in own_rows]
        check_splits(path, own_rows, splits, groups)
    used = [name for name in (group_column, "split") if name in columns]
    _log.info(
        "%s: %s of %d cases taken from there, in %d groups; %d rows are of no case here",
        path,
        " and ".join(used),
        len(known),
        len(set(groups)),
        len(row_of_case) - len(known),
    )
    return replace(
        listing,
        cases=tuple(
            replace(case, group=group, split=split)
            for case, group, split in zip(known, groups, splits, strict=True)
        ),
    )


def _rows_by_name(path: Path, rows: list[Row], column: str, ids: Collection[str]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        text = row.cells[column]
        name = text if text in ids else volume_name(Path(text))
        earlier = found.setdefault(name, row)
        if earlier is not row:
            raise DataError(
                f"{path}, row {row.number}: {text} is the same case as in row {earlier.number}. "
                "Give each case one row."
            )
    return found
