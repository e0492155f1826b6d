"""Data sets listed in a CSV file: `path,label[,group][,split][,mask]`.

Paths are relative to the CSV file's folder, or absolute. `group` is what must not be divided, as a
rule the patient; without it each volume stands for itself. `split` is train, val or test.
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.data.classification_cases import ClassificationCase, ClassificationCases
from voxlift.data.manifest_rows import (
    NO_VALUE,
    Row,
    check_columns,
    check_splits,
    group_of_row,
    is_there,
    read_rows,
    resolve,
    split_of_row,
)

_log = logging.getLogger(__name__)

REQUIRED = ("path", "label")
OPTIONAL = ("group", "split", "mask")
_HEADER = ",".join(REQUIRED) + "".join(f"[,{name}]" for name in OPTIONAL)


def read_manifest(path: str | Path, *, skip_bad: bool = False) -> ClassificationCases:
    """Read the list of a data set, checking each row but not yet the volumes themselves.

    Args:
        path: The CSV file: comma separated, UTF-8, with a header.
        skip_bad: List and skip rows whose file is not there, instead of raising.

    Raises:
        DataError: If a column is missing, a file is not there or listed twice, a label is missing
            or the only one, a group is in two splits, or a split is unknown. Rows are named by
            their number, the header's being 1.
    """
    path = Path(path)
    columns, rows = read_rows(path, header=_HEADER)
    check_columns(path, columns, required=REQUIRED, header=_HEADER)
    _warn(path, columns)
    rows = _existing(path, rows, skip_bad=skip_bad)
    _check_duplicates(path, rows)
    names = [_label(path, row) for row in rows]
    class_names = _class_names(path, names)
    groups = [_group(path, row, columns=columns) for row in rows]
    splits = [split_of_row(path, row) for row in rows]
    check_splits(path, rows, splits, groups)
    cases = []
    for row, name, group, split in zip(rows, names, groups, splits, strict=True):
        mask = row.cells.get("mask", "")
        cases.append(
            ClassificationCase(
                id=row.cells["path"],
                image=resolve(path, row.cells["path"]),
                label=class_names.index(name),
                group=group,
                split=split,
                mask=resolve(path, mask) if mask else None,
            )
        )
    return ClassificationCases(cases=tuple(cases), class_names=class_names, origin=str(path))


def _warn(path: Path, columns: Sequence[str]) -> None:
    ignored = [name for name in columns if name not in REQUIRED + OPTIONAL]
    if ignored:
        _log.warning("%s: columns that have no meaning here: %s", path, ", ".join(ignored))
    if "group" not in columns:
        _log.warning(
            "%s has no column 'group': each volume counts as a patient of its own. If patients "
            "have several volumes, name the patient there, or the test will flatter the network.",
            path,
        )


def _existing(path: Path, rows: list[Row], *, skip_bad: bool) -> list[Row]:
    kept = []
    for row in rows:
        problem = _missing_file(path, row)
        if problem is None:
            kept.append(row)
        elif skip_bad:
            _log.warning("skipped: %s", problem)
        else:
            raise DataError(f"{problem} Correct the row, or skip such rows with --skip-bad.")
    if not kept:
        raise DataError(f"{path}: none of its {len(rows)} files is there. Check the paths.")
    return kept


def _missing_file(path: Path, row: Row) -> str | None:
    for column in ("path", "mask"):
        text = row.cells.get(column)
        if column == "path" and not text:
            return f"{path}, row {row.number}: the path is empty."
        if text and not is_there(resolve(path, text)):
            return (
                f"{path}, row {row.number}: the file {text} of column '{column}' is not there "
                f"(looked in {path.parent})."
            )
    return None


def _check_duplicates(path: Path, rows: list[Row]) -> None:
    first: dict[Path, int] = {}
    for row in rows:
        earlier = first.setdefault(resolve(path, row.cells["path"]).resolve(), row.number)
        if earlier != row.number:
            raise DataError(
                f"{path}, row {row.number}: {row.cells['path']} is the same file as in row "
                f"{earlier}. List each volume once."
            )


def _label(path: Path, row: Row) -> str:
    """Return the name of the class; whole numbers written as 1.0 are the class 1."""
    text = row.cells["label"]
    if text.lower() in NO_VALUE:
        raise DataError(
            f"{path}, row {row.number}: the label is missing ('{text}'). Fill it in, or leave "
            "the row out. If that is the name of a class, choose another, such as 'normal'."
        )
    try:
        number = float(text.replace("_", "?"))
    except ValueError:
        return text
    if not math.isfinite(number) or number != int(number):
        raise DataError(
            f"{path}, row {row.number}: the label is {text}, a measurement rather than a class. "
            "Give a class name or a whole number."
        )
    return str(int(number))


def _class_names(path: Path, labels: list[str]) -> tuple[str, ...]:
    names = sorted(set(labels), key=lambda name: (not _is_number(name), _order(name)))
    if len(names) < 2:
        raise DataError(
            f"{path}: all {len(labels)} rows have the label '{names[0]}'. To learn to tell "
            "classes apart, list volumes of two or more."
        )
    return tuple(names)


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if _is_number(name) else (0, name)


def _group(path: Path, row: Row, *, columns: Sequence[str]) -> str:
    if "group" not in columns:
        return str(resolve(path, row.cells["path"]))
    return group_of_row(path, row)
