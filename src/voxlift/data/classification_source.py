"""Open whatever holds labelled volumes: a manifest, MedMNIST, LIDC nodules, a folder a class."""

import logging
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.core.types import PublishedSplit
from voxlift.data.case_checks import check_cases
from voxlift.data.classification_cases import ClassificationCase, ClassificationCases
from voxlift.data.lidc import Indeterminate, is_lidc, read_lidc
from voxlift.data.manifest import read_manifest
from voxlift.data.medmnist import read_medmnist
from voxlift.data.volume_folders import read_volume_folders

__all__ = ["ClassificationCase", "ClassificationCases", "open_classification"]

_log = logging.getLogger(__name__)


def open_classification(
    data: str | Path,
    *,
    skip_bad: bool = False,
    indeterminate: Indeterminate = "leave out",
    published_split: PublishedSplit | None = None,
) -> ClassificationCases:
    """Open labelled volumes, deciding by what `data` is, and check every one of them.

    Args:
        data: A manifest (.csv), a MedMNIST-3D file (.npz), a folder of LIDC nodules, or a folder
            with one folder a class.
        skip_bad: List and skip what cannot be read, instead of raising.
        indeterminate: What LIDC nodules of malignancy 3 count as.
        published_split: Of the LIDC layout: `keep` its split although it divides patients, or
            `ignore` it; None refuses a split that divides patients.

    Returns:
        The cases, in the splits that the data set came with, if any; complete them by
        `with_splits`.

    Raises:
        DataError: If `data` is none of these, a volume cannot be read, or the splits leak.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        if is_lidc(path):
            cases = read_lidc(
                path,
                indeterminate=indeterminate,
                published_split=published_split,
                skip_bad=skip_bad,
            )
        else:
            cases = read_volume_folders(path)
    elif not path.exists():
        raise DataError(f"{path} is not there. Check --data.")
    elif path.suffix.lower() == ".csv":
        cases = read_manifest(path, skip_bad=skip_bad)
    elif path.suffix.lower() == ".npz":
        cases = read_medmnist(path)
    else:
        raise DataError(
            f"{path} is no data set for classification. Expected a manifest (.csv with "
            "path,label[,group][,split]), a MedMNIST-3D file (.npz), a folder of LIDC nodules, or "
            "a folder with one folder of volumes a class."
        )
    cases = check_cases(cases, skip_bad=skip_bad)
    _log.info("%s: %s", cases.origin, cases.describe())
    return cases
