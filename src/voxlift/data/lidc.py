"""LIDC nodules as the paper's authors and others keep them: one .npz file a nodule.

A folder with, in itself or one folder down:

- one .npz file a nodule with the arrays `voxel` (CT as 8-bit values, 1 mm voxels) and `answer1`
  (the mask of the nodule, 0 and 1);
- a table (.csv) of the nodules with the columns `index` (the file's stem), `malignancy_mode`
  (1 to 5; 0 for a nodule without a rating), and where it is known the patient as `uid` or
  `patient_id`;
- optionally `train_test_split.csv` with the columns `train` and `test` of file names.

Classification: malignancy 1 and 2 is benign, 4 and 5 malignant; 3 and 0 are left out.
Segmentation takes all nodules.

The published split divides nodules, not patients: most patients of its test part are in its
training part, too. It is refused unless the user decides: `keep` it, to compare with published
figures, or `ignore` it and split by patient.

Source:
    The layout of the data of arXiv 2201.01426, section 4.
"""

import csv
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from voxlift.core.errors import ConfigError, DataError
from voxlift.core.label_scheme import BACKGROUND, LabelScheme
from voxlift.core.types import PublishedSplit
from voxlift.data.classification_cases import ClassificationCase, ClassificationCases
from voxlift.data.listing_problems import report_problems
from voxlift.data.npz import NamedArray, npz_names
from voxlift.data.segmentation_cases import SegmentationCase
from voxlift.data.segmentation_listing import SegmentationListing

_log = logging.getLogger(__name__)

CLASS_NAMES = ("benign", "malignant")
SPLIT_TABLE = "train_test_split.csv"
VOLUME, MASK = "voxel", "answer1"
_COLUMNS = ("index", "malignancy_mode")
_GROUP_COLUMNS = ("uid", "patient_id")
_UNRATED, _INDETERMINATE = 0, 3

Indeterminate = Literal["leave out", "benign", "malignant"]


@dataclass(frozen=True)
class _Row:
    number: int
    malignancy: int
    group: str


@dataclass(frozen=True)
class _Nodule:
    id: str
    path: Path
    malignancy: int
    group: str
    split: str | None


def is_lidc(folder: Path) -> bool:
    """Whether a folder has the table of splits or of nodules of the LIDC layout."""
    return bool(_find(folder, SPLIT_TABLE)) or bool(_nodule_tables(folder))


def check_published_split(data: str, published_split: PublishedSplit | None) -> None:
    """Refuse a decision about a published split for data that has none.

    Raises:
        ConfigError: If there is a decision and `data` is not a folder in the LIDC layout.
    """
    folder = Path(data).expanduser()
    if published_split is not None and not (folder.is_dir() and is_lidc(folder)):
        raise ConfigError(
            f"{data} is not a folder in the LIDC layout, which alone has a published split. Leave "
            "--published-split out."
        )


def read_lidc(
    folder: str | Path,
    *,
    indeterminate: Indeterminate = "leave out",
    published_split: PublishedSplit | None = None,
    skip_bad: bool = False,
) -> ClassificationCases:
    """Read a folder of LIDC nodules for the classification benign against malignant.

    Args:
        folder: The folder.
        indeterminate: What nodules of malignancy 3 count as.
        published_split: What becomes of `train_test_split.csv` if it divides patients.
        skip_bad: List and skip nodules without a usable file or a row in the table.

    Raises:
        DataError: If the table of nodules is missing or ambiguous, a nodule has no file or no row,
            a malignancy is not 0 to 5, or the split divides patients.
    """
    cases = []
    left_out = {_UNRATED: 0, _INDETERMINATE: 0}
    for nodule in _list_nodules(Path(folder), published_split=published_split, skip_bad=skip_bad):
        try:
            has_mask = MASK in npz_names(nodule.path)
        except DataError as error:
            if not skip_bad:
                raise
            _log.warning("skipped: %s", error)
            continue
        label = _label(nodule.malignancy, indeterminate)
        if label is None:
            left_out[nodule.malignancy] += 1
            continue
        cases.append(
            ClassificationCase(
                id=nodule.id,
                image=NamedArray(nodule.path, VOLUME),
                label=label,
                group=nodule.group,
                split=nodule.split,
                mask=NamedArray(nodule.path, MASK) if has_mask else None,
            )
        )
    _log.info(
        "%s: left out: %d nodules of malignancy 3, %d without a rating (0)",
        folder,
        left_out[_INDETERMINATE],
        left_out[_UNRATED],
    )
    return ClassificationCases(cases=tuple(cases), class_names=CLASS_NAMES, origin=str(folder))


def read_lidc_masks(
    folder: str | Path, *, published_split: PublishedSplit | None = None, skip_bad: bool = False
) -> SegmentationListing:
    """List LIDC nodules with their masks, whatever their malignancy.

    Args:
        folder: The folder.
        published_split: What becomes of `train_test_split.csv` if it divides patients.
        skip_bad: List and skip nodules without a file or a row in the table.

    Raises:
        DataError: As for `read_lidc`.
    """
    nodules = _list_nodules(Path(folder), published_split=published_split, skip_bad=skip_bad)
    return SegmentationListing(
        cases=tuple(
            SegmentationCase(
                id=nodule.id,
                images=(NamedArray(nodule.path, VOLUME),),
                label=NamedArray(nodule.path, MASK),
                group=nodule.group,
                split=nodule.split,
            )
            for nodule in nodules
        ),
        labels=LabelScheme(names=(BACKGROUND, "nodule"), values=(0, 1)),
        origin=str(folder),
    )


def _label(malignancy: int, indeterminate: Indeterminate) -> int | None:
    if malignancy == _UNRATED:
        return None
    if malignancy == _INDETERMINATE:
        return None if indeterminate == "leave out" else CLASS_NAMES.index(indeterminate)
    return int(malignancy > _INDETERMINATE)


def _list_nodules(
    folder: Path, *, published_split: PublishedSplit | None, skip_bad: bool
) -> list[_Nodule]:
    """List the nodules of the split table, or all where there is none."""
    rows = _read_rows(_one_nodule_table(folder))
    files = _nodule_files(folder)
    splits = _read_splits(folder, published_split)
    wanted = dict.fromkeys([*files, *rows]) if splits is None else splits
    report_problems(
        str(folder),
        {
            "nodule without a file (.npz)": [stem for stem in wanted if stem not in files],
            "nodule without a row in the table": [stem for stem in wanted if stem not in rows],
        },
        skip_bad=skip_bad,
        remedy="Add what is missing, or correct the names.",
    )
    others = len({*files, *rows} - set(wanted))
    if others:
        _log.info("%s: %d nodules are not in %s and are left out", folder, others, SPLIT_TABLE)
    nodules = [
        _Nodule(stem, files[stem], rows[stem].malignancy, rows[stem].group, split)
        for stem, split in wanted.items()
        if stem in files and stem in rows
    ]
    return _decide_on_split(folder, nodules, published_split)


def _decide_on_split(
    folder: Path, nodules: list[_Nodule], published_split: PublishedSplit | None
) -> list[_Nodule]:
    """Drop a split on request; refuse one that divides patients, or keep it with a warning."""
    if published_split == "ignore":
        _log.info("%s: %s is ignored; the splits will be made", folder, SPLIT_TABLE)
        return [replace(nodule, split=None) for nodule in nodules]
    train, test = ({n.group for n in nodules if n.split == split} for split in ("train", "test"))
    divided = len(train & test)
    if not divided:
        return nodules
    found = (
        f"{folder}: in {SPLIT_TABLE}, {divided} of the {len(test)} patients of 'test' are in "
        "'train', too"
    )
    if published_split is None:
        raise DataError(
            f"{found}, so that the test would flatter the network. Split by patient instead with "
            "--published-split ignore; or keep it with --published-split keep, to compare with "
            "figures that were measured on it."
        )
    _log.warning(
        "%s. The split is kept as asked: its figures compare with published ones only, and "
        "overestimate what the network does for new patients.",
        found,
    )
    # A patient is a group of its own in each split: no longer divided, and whole within it.
    return [replace(nodule, group=f"{nodule.split}: {nodule.group}") for nodule in nodules]


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


def _read_rows(path: Path) -> dict[str, _Row]:
    found: dict[str, _Row] = {}
    rows = _read_table(path)
    group_column = next((name for name in _GROUP_COLUMNS if rows and name in rows[0]), None)
    if group_column is None:
        _log.warning(
            "%s has no column '%s': each nodule counts as a patient of its own. Nodules of one "
            "patient may then be in training and test, which flatters the network.",
            path,
            "' or '".join(_GROUP_COLUMNS),
        )
    for number, row in enumerate(rows, start=2):
        stem = row["index"].removesuffix(".npz")
        if stem in found:
            raise DataError(
                f"{path}, row {number}: the nodule {stem} is there already, in row "
                f"{found[stem].number}. List each nodule once."
            )
        group = row[group_column] if group_column else stem
        if not group:
            raise DataError(
                f"{path}, row {number}: {group_column} is empty. Fill it in (a made-up number "
                "will do), or leave the column out."
            )
        found[stem] = _Row(number, _malignancy(path, number, row["malignancy_mode"]), group)
    return found


def _malignancy(path: Path, number: int, text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value not in range(6):
        raise DataError(
            f"{path}, row {number}: malignancy_mode is '{text}'; expected a whole number from 1 "
            "to 5, or 0 for a nodule without a rating. Correct it, or leave the row out."
        )
    return int(value)


def _read_splits(
    folder: Path, published_split: PublishedSplit | None
) -> dict[str, str | None] | None:
    tables = _find(folder, SPLIT_TABLE)
    if not tables:
        _log.info("%s has no %s: the splits will be made.", folder, SPLIT_TABLE)
        return None
    if len(tables) > 1:
        raise DataError(f"{folder}: expected one {SPLIT_TABLE}, found {len(tables)}. Keep one.")
    rows = _read_table(tables[0])
    splits: dict[str, str | None] = {}
    repeated = 0
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
            if splits.get(stem, split) != split and published_split != "ignore":
                raise DataError(
                    f"{tables[0]}, row {number}: the nodule {stem} of '{split}' is in "
                    f"'{splits[stem]}', too. Leave it in one of them, or split by patient with "
                    "--published-split ignore."
                )
            repeated += stem in splits
            splits[stem] = split
    if repeated:
        _log.warning(
            "%s lists %d nodules more than once; each counts once here", tables[0], repeated
        )
    return splits
