"""Data sets listed in a CSV file: `path,label[,group][,split][,mask]`.

Paths are relative to the CSV file's folder, or absolute. `group` is what must not be divided, as a
rule the patient; without it each volume stands for itself. `split` is train, val or test.
"""

import csv
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.data.classification_cases import ClassificationCase, ClassificationCases
from voxlift.data.splits import SPLITS

_log = logging.getLogger(__name__)

REQUIRED = ("path", "label")
OPTIONAL = ("group", "split", "mask")
_NO_LABEL = {"", "nan", "na", "n/a", "null", "none", "<na>"}
_SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}


@dataclass(frozen=True)
class _Row:
    """One line of the file; `number` is what an editor or a spreadsheet shows beside it."""

    number: int
    cells: dict[str, str]


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
    columns, rows = _read_rows(path)
    _check_columns(path, columns)
    rows = _existing(path, rows, skip_bad=skip_bad)
    _check_duplicates(path, rows)
    names = [_label(path, row) for row in rows]
    class_names = _class_names(path, names)
    splits = [_split(path, row) for row in rows]
    _check_splits(path, rows, splits)
    cases = []
    for row, name, split in zip(rows, names, splits, strict=True):
        mask = row.cells.get("mask", "")
        cases.append(
            ClassificationCase(
                id=row.cells["path"],
                image=_resolve(path, row.cells["path"]),
                label=class_names.index(name),
                group=_group(path, row, columns=columns),
                split=split,
                mask=_resolve(path, mask) if mask else None,
            )
        )
    _check_groups(path, rows, cases)
    return ClassificationCases(cases=tuple(cases), class_names=class_names, origin=str(path))


def _read_rows(path: Path) -> tuple[tuple[str, ...], list[_Row]]:
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
        raise DataError(f"{path} is empty. Expected a header {_header()} and one row a volume.")
    columns = tuple(cell.strip().lower() for cell in lines[0][1])
    rows = []
    for number, line in lines[1:]:
        if len(line) != len(columns):
            raise DataError(
                f"{path}, row {number}: {len(line)} cells, but the header has {len(columns)}. "
                "Put cells that hold a comma in double quotes."
            )
        cells = {name: cell.strip() for name, cell in zip(columns, line, strict=True)}
        rows.append(_Row(number, cells))
    if not rows:
        raise DataError(f"{path} has a header, but no rows. Add one row a volume: {_header()}.")
    return columns, rows


def _header() -> str:
    return ",".join(REQUIRED) + "".join(f"[,{name}]" for name in OPTIONAL)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for name in REQUIRED:
        if name not in columns:
            raise DataError(
                f"{path}: the column '{name}' is missing; found {', '.join(columns)}. "
                f"Expected a first line {_header()}, separated by commas."
            )
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: the column '{repeated[0]}' is there twice. Leave one of them.")
    ignored = [name for name in columns if name not in REQUIRED + OPTIONAL]
    if ignored:
        _log.warning("%s: columns that have no meaning here: %s", path, ", ".join(ignored))
    if "group" not in columns:
        _log.warning(
            "%s has no column 'group': each volume counts as a patient of its own. If patients "
            "have several volumes, name the patient there, or the test will flatter the network.",
            path,
        )


def _resolve(manifest: Path, text: str) -> Path:
    return (manifest.parent / text).absolute()


def _existing(path: Path, rows: list[_Row], *, skip_bad: bool) -> list[_Row]:
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


def _missing_file(path: Path, row: _Row) -> str | None:
    for column in ("path", "mask"):
        text = row.cells.get(column)
        if column == "path" and not text:
            return f"{path}, row {row.number}: the path is empty."
        if text and not _is_there(_resolve(path, text)):
            return (
                f"{path}, row {row.number}: the file {text} of column '{column}' is not there "
                f"(looked in {path.parent})."
            )
    return None


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # The folder may not be entered, or the name is longer than any file's.
        return False


def _check_duplicates(path: Path, rows: list[_Row]) -> None:
    first: dict[Path, int] = {}
    for row in rows:
        earlier = first.setdefault(_resolve(path, row.cells["path"]).resolve(), row.number)
        if earlier != row.number:
            raise DataError(
                f"{path}, row {row.number}: {row.cells['path']} is the same file as in row "
                f"{earlier}. List each volume once."
            )


def _label(path: Path, row: _Row) -> str:
    """Return the name of the class; whole numbers written as 1.0 are the class 1."""
    text = row.cells["label"]
    if text.lower() in _NO_LABEL:
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


def _group(path: Path, row: _Row, *, columns: Sequence[str]) -> str:
    if "group" not in columns:
        return str(_resolve(path, row.cells["path"]))
    group = row.cells["group"]
    if group.lower() in _NO_LABEL:
        raise DataError(
            f"{path}, row {row.number}: the group is empty. Name the patient (a made-up number "
            "will do) in every row, or leave the column out."
        )
    return group


def _split(path: Path, row: _Row) -> str | None:
    text = row.cells.get("split", "").lower()
    split = _SPLIT_NAMES.get(text, text)
    if split and split not in SPLITS:
        raise DataError(
            f"{path}, row {row.number}: the split is '{text}'; expected one of {', '.join(SPLITS)}."
        )
    return split or None


def _check_splits(path: Path, rows: list[_Row], splits: list[str | None]) -> None:
    without = [row.number for row, split in zip(rows, splits, strict=True) if split is None]
    if without and len(without) < len(rows):
        raise DataError(
            f"{path}, row {without[0]}: the split is empty, but other rows have one. Fill it in "
            "everywhere, or leave the column out to have the splits made."
        )


def _check_groups(path: Path, rows: list[_Row], cases: list[ClassificationCase]) -> None:
    first: dict[str, int] = {}
    for position, case in enumerate(cases):
        earlier = first.setdefault(case.group, position)
        if cases[earlier].split != case.split:
            # The group is not named: it may be a patient's number.
            raise DataError(
                f"{path}, row {rows[position].number}: this row's group is in two splits, "
                f"'{case.split}' here and '{cases[earlier].split}' in row "
                f"{rows[earlier].number}. What a network has seen of a patient in training makes "
                "its test worthless: move the whole group to one split, or leave the column "
                "'split' out to have the splits made."
            )
