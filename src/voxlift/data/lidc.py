"""LIDC nodules as the paper's authors and others keep them: one .npz file a nodule.

A folder with, in itself or one folder down:

- one .npz file a nodule with the arrays `voxel` (CT as 8-bit values, 1 mm voxels) and `answer1`
  (the mask of the nodule);
- a table (.csv) of the nodules with the columns `index` (the file's stem) and `malignancy_mode`
  (1 to 5), and where it is known `patient_id`;
- optionally `train_test_split.csv` with the columns `train` and `test` of file names.

Malignancy 1 and 2 is benign, 4 and 5 malignant; 3 is left out.

Source:
    The layout of the data of arXiv 2201.01426, section 4.
"""

import csv
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxlift.core.errors import DataError
from voxlift.data.classification_cases import ClassificationCase, ClassificationCases, NamedArray
from voxlift.data.npz import npz_names

_log = logging.getLogger(__name__)

CLASS_NAMES = ("benign", "malignant")
SPLIT_TABLE = "train_test_split.csv"
VOLUME, MASK = "voxel", "answer1"
_COLUMNS = ("index", "malignancy_mode")
_GROUP_COLUMN = "patient_id"

Indeterminate = Literal["leave out", "benign", "malignant"]


@dataclass(frozen=True)
class _Nodule:
    row: int
    malignancy: int
    group: str


def is_lidc(folder: Path) -> bool:
    """Tell whether a folder has the table of splits or of nodules of the LIDC layout."""
    return bool(_find(folder, SPLIT_TABLE)) or bool(_nodule_tables(folder))


def read_lidc(
    folder: str | Path, *, indeterminate: Indeterminate = "leave out", skip_bad: bool = False
) -> ClassificationCases:
    """Read a folder of LIDC nodules for the classification benign against malignant.

    Args:
        folder: The folder.
        indeterminate: What nodules of malignancy 3 count as.
        skip_bad: List and skip nodules without a usable file or a row in the table.

    Raises:
        DataError: If the table of nodules is not there, two could be it, a nodule has no file or
            no row, or a malignancy is not 1 to 5.
    """
    folder = Path(folder)
    nodules = _read_nodules(_one_nodule_table(folder))
    files = _nodule_files(folder)
    split_of_stem = _read_splits(folder)
    if split_of_stem is None:
        _log.info("%s has no %s: the splits will be made.", folder, SPLIT_TABLE)
        wanted: dict[str, str | None] = dict.fromkeys(files)
    else:
        wanted = dict(split_of_stem)
    cases, left_out = [], 0
    for stem, split in wanted.items():
        problem = _problem(folder, stem, nodules, files)
        if problem is not None:
            if not skip_bad:
                raise DataError(f"{problem} Mend it, or skip such nodules with --skip-bad.")
            _log.warning("skipped: %s", problem)
            continue
        label = _label(nodules[stem].malignancy, indeterminate)
        if label is None:
            left_out += 1
            continue
        has_mask = MASK in npz_names(files[stem])
        cases.append(
            ClassificationCase(
                id=stem,
                image=NamedArray(files[stem], VOLUME),
                label=label,
                group=nodules[stem].group,
                split=split,
                mask=NamedArray(files[stem], MASK) if has_mask else None,
            )
        )
    _log.info("%s: %d nodules of malignancy 3 left out", folder, left_out)
    return ClassificationCases(cases=tuple(cases), class_names=CLASS_NAMES, origin=str(folder))


def _label(malignancy: int, indeterminate: Indeterminate) -> int | None:
    if malignancy == 3:
        return None if indeterminate == "leave out" else CLASS_NAMES.index(indeterminate)
    return int(malignancy > 3)


def _problem(
    folder: Path, stem: str, nodules: dict[str, _Nodule], files: dict[str, Path]
) -> str | None:
    if stem not in files:
        return f"{folder}: the nodule {stem} of {SPLIT_TABLE} has no file {stem}.npz."
    if stem not in nodules:
        return f"{folder}: the nodule {stem} has no row in the table of nodules."
    try:
        names = npz_names(files[stem])
    except DataError as error:
        return str(error)
    if VOLUME not in names:
        return f"{files[stem]} holds no array '{VOLUME}', but {', '.join(names) or 'none'}."
    return None


def _find(folder: Path, pattern: str) -> list[Path]:
    return sorted([*folder.glob(pattern), *folder.glob(f"*/{pattern}")])


def _nodule_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in _find(folder, "*.npz"):
        other = files.setdefault(path.stem, path)
        if other != path:
            raise DataError(
                f"{folder}: {other} and {path} have the same name, so that the table cannot tell "
                "them apart. Leave one of them."
            )
    if not files:
        raise DataError(f"{folder} holds no .npz file. Give the folder of the nodules.")
    return files


def _nodule_tables(folder: Path) -> list[Path]:
    tables = []
    for path in _find(folder, "*.csv"):
        try:
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                header = [cell.strip().strip('"') for cell in file.readline().split(",")]
        except OSError as error:
            raise DataError(f"{path} could not be read: {error.strerror or error}.") from error
        if path.name != SPLIT_TABLE and set(_COLUMNS) <= set(header):
            tables.append(path)
    return tables


def _one_nodule_table(folder: Path) -> Path:
    tables = _nodule_tables(folder)
    if len(tables) != 1:
        found = ", ".join(str(path) for path in tables) or "none"
        raise DataError(
            f"{folder}: expected one table of nodules, a .csv file with the columns "
            f"{' and '.join(_COLUMNS)}; found {found}."
        )
    return tables[0]


def _read_table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [
                {str(name).strip(): (cell or "").strip() for name, cell in row.items() if name}
                for row in csv.DictReader(file, strict=True)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} could not be read as CSV: {error}. Save it as comma-separated UTF-8 text."
        ) from error


def _read_nodules(path: Path) -> dict[str, _Nodule]:
    nodules: dict[str, _Nodule] = {}
    rows = _read_table(path)
    if rows and _GROUP_COLUMN not in rows[0]:
        _log.warning(
            "%s has no column '%s': each nodule counts as a patient of its own. Nodules of one "
            "patient may then be in training and test, which flatters the network.",
            path,
            _GROUP_COLUMN,
        )
    for number, row in enumerate(rows, start=2):
        stem = row["index"].removesuffix(".npz")
        if stem in nodules:
            raise DataError(
                f"{path}, row {number}: the nodule {stem} is there already, in row "
                f"{nodules[stem].row}. List each nodule once."
            )
        group = row.get(_GROUP_COLUMN, stem)
        if not group:
            raise DataError(
                f"{path}, row {number}: {_GROUP_COLUMN} is empty. Fill it in (a made-up number "
                "will do), or leave the column out."
            )
        nodules[stem] = _Nodule(number, _malignancy(path, number, row["malignancy_mode"]), group)
    return nodules


def _malignancy(path: Path, number: int, text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value not in (1.0, 2.0, 3.0, 4.0, 5.0):
        raise DataError(
            f"{path}, row {number}: malignancy_mode is '{text}'; expected a whole number from 1 "
            "to 5. Correct it, or leave the row out."
        )
    return int(value)


def _read_splits(folder: Path) -> dict[str, str] | None:
    tables = _find(folder, SPLIT_TABLE)
    if not tables:
        return None
    if len(tables) > 1:
        raise DataError(f"{folder}: expected one {SPLIT_TABLE}, found {len(tables)}. Keep one.")
    rows = _read_table(tables[0])
    splits: dict[str, str] = {}
    for split in ("train", "test"):
        if not rows or split not in rows[0]:
            raise DataError(
                f"{tables[0]}: the column '{split}' is missing; expected train and test, with "
                "file names. Leave the file out to have the splits made."
            )
        for number, row in enumerate(rows, start=2):
            # Columns of unequal length are filled up with blanks.
            stem = Path(row[split]).name.removesuffix(".npz")
            if not stem or stem.lower() == "nan":
                continue
            if stem in splits:
                raise DataError(
                    f"{tables[0]}, row {number}: the nodule {stem} of '{split}' is listed before, "
                    f"in '{splits[stem]}'. List each nodule once."
                )
            splits[stem] = split
    return splits
