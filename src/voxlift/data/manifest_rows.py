"""The rows of a CSV file that lists cases, with what all such lists have in common.

Paths are relative to the CSV file's folder, or absolute. Rows are named by the number that an
editor or a spreadsheet shows beside them, the header's being 1.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.data.splits import SPLITS

NO_VALUE = {"", "nan", "na", "n/a", "null", "none", "<na>"}
_SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}


@dataclass(frozen=True)
class Row:
    """One line of the file; `number` is what an editor or a spreadsheet shows beside it."""

    number: int
    cells: dict[str, str]


def read_rows(path: Path, *, header: str) -> tuple[tuple[str, ...], list[Row]]:
    """Read the columns, in small letters, and the rows of a CSV file; empty lines are passed over.

    Args:
        path: The file: comma separated, UTF-8, with a header.
        header: What messages say that the header should be.

    Raises:
        DataError: If it cannot be read as CSV, has no rows, a row of another length than the
            header, or a column twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [
                (reader.line_num, line) for line in reader if any(cell.strip() for cell in line)
            ]
    except OSError as error:
        raise DataError(
            f"{path} could not be read: {error.strerror or error}. Check the path."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} could not be read as CSV: {error}. Save it as comma-separated UTF-8 text."
        ) from error
    if not lines:
        raise DataError(f"{path} is empty. Expected a header {header} and one row a volume.")
    columns = tuple(cell.strip().lower() for cell in lines[0][1])
    rows = []
    for number, line in lines[1:]:
        if len(line) != len(columns):
            raise DataError(
                f"{path}, row {number}: {len(line)} cells, but the header has {len(columns)}. "
                "Put cells that hold a comma in double quotes."
            )
        cells = {name: cell.strip() for name, cell in zip(columns, line, strict=True)}
        rows.append(Row(number, cells))
    if not rows:
        raise DataError(f"{path} has a header, but no rows. Add one row a volume: {header}.")
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: the column '{repeated[0]}' is there twice. Leave one of them.")
    return columns, rows


def check_columns(
    path: Path, columns: Sequence[str], *, required: Sequence[str], header: str
) -> None:
    """Refuse a list that lacks a column.

    Raises:
        DataError: If it does.
    """
    for name in required:
        if name not in columns:
            raise DataError(
                f"{path}: the column '{name}' is missing; found {', '.join(columns)}. "
                f"Expected a first line {header}, separated by commas."
            )


def resolve(manifest: Path, text: str) -> Path:
    """Return the path that a cell names."""
    return (manifest.parent / text).absolute()


def is_there(path: Path) -> bool:
    """Tell whether there is such a file or folder."""
    try:
        return path.exists()
    except OSError:
        # The folder may not be entered, or the name is longer than any file's.
        return False


def group_of_row(path: Path, row: Row, *, column: str = "group") -> str:
    """Return the group in a row.

    Raises:
        DataError: If it is empty.
    """
    group = row.cells[column]
    if group.lower() in NO_VALUE:
        raise DataError(
            f"{path}, row {row.number}: the {column.replace('_', ' ')} is empty. Name the patient "
            "(a made-up number will do) in every row, or leave the column out."
        )
    return group


def split_of_row(path: Path, row: Row) -> str | None:
    """Return the split in a row, None if there is none.

    Raises:
        DataError: If it is unknown.
    """
    text = row.cells.get("split", "").lower()
    split = _SPLIT_NAMES.get(text, text)
    if split and split not in SPLITS:
        raise DataError(
            f"{path}, row {row.number}: the split is '{text}'; expected one of {', '.join(SPLITS)}."
        )
    return split or None


def check_splits(
    path: Path, rows: Sequence[Row], splits: Sequence[str | None], groups: Sequence[str]
) -> None:
    """Refuse splits that are there in some rows only, or that divide a group.

    Raises:
        DataError: If they are.
    """
    without = [row.number for row, split in zip(rows, splits, strict=True) if split is None]
    if without and len(without) < len(rows):
        raise DataError(
            f"{path}, row {without[0]}: the split is empty, but other rows have one. Fill it in "
            "everywhere, or leave the column out to have the splits made."
        )
    first: dict[str, int] = {}
    for position, group in enumerate(groups):
        earlier = first.setdefault(group, position)
        if splits[earlier] != splits[position]:
            # The group is not named: it may be a patient's number.
            raise DataError(
                f"{path}, row {rows[position].number}: this row's group is in two splits, "
                f"'{splits[position]}' here and '{splits[earlier]}' in row "
                f"{rows[earlier].number}. What a network has seen of a patient in training makes "
                "its test worthless: move the whole group to one split, or leave the column "
                "'split' out to have the splits made."
            )
