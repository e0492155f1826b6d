"""Volumes sorted into one folder a class, perhaps within `train`, `val` and `test`."""

import logging
from pathlib import Path

from voxlift.core.errors import DataError
from voxlift.data.classification_cases import ClassificationCase, ClassificationCases
from voxlift.data.splits import SPLITS
from voxlift.data.volumes import is_volume_path

_log = logging.getLogger(__name__)


def read_volume_folders(folder: str | Path) -> ClassificationCases:
    """List the volumes of a tree `FOLDER[/SPLIT]/CLASS/VOLUME`.

    A volume is a file that `read_volume` knows, or the folder of a DICOM series. Each stands for
    itself; where a patient has several, list them in a manifest with a column `group`.

    Raises:
        DataError: If the folder cannot be read, has fewer than two classes, the splits have not
            the same classes, or a class is empty.
    """
    folder = Path(folder)
    children = {path.name: path for path in _folders(folder)}
    splits = [name for name in SPLITS if name in children]
    if splits and set(children) != set(splits):
        others = ", ".join(sorted(set(children) - set(splits)))
        raise DataError(
            f"{folder} holds {', '.join(splits)} and beside them {others}. Expected only "
            f"{', '.join(SPLITS)}, or only one folder a class."
        )
    roots: list[tuple[str | None, Path]] = [(name, children[name]) for name in splits]
    classes = {
        root: [path.name for path in _folders(root)] for _, root in roots or [(None, folder)]
    }
    class_names = tuple(sorted({name for names in classes.values() for name in names}))
    if len(class_names) < 2:
        raise DataError(
            f"{folder} holds {len(class_names)} class folder(s) ({', '.join(class_names)}); "
            "expected one folder for each of two or more classes, with the volumes in it."
        )
    cases = []
    for split, root in roots or [(None, folder)]:
        for label, class_name in enumerate(class_names):
            volumes = _volumes(root / class_name)
            cases += [
                ClassificationCase(
                    id=path.relative_to(folder).as_posix(),
                    image=path,
                    label=label,
                    group=str(path),
                    split=split,
                )
                for path in volumes
            ]
    return ClassificationCases(cases=tuple(cases), class_names=class_names, origin=str(folder))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"{folder} could not be read: {error.strerror or error}. Check the path and the right "
            "to read it."
        ) from error


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _volumes(folder: Path) -> list[Path]:
    entries = _entries(folder)
    volumes = [path for path in entries if is_volume_path(path)]
    if not volumes:
        raise DataError(
            f"{folder} holds no volume that can be read ({len(entries)} other entries). Put "
            "NIfTI, NRRD, MetaImage or NumPy files or DICOM folders there, or remove the folder."
        )
    if len(volumes) < len(entries):
        others = [path.name for path in entries if path not in set(volumes)]
        _log.warning(
            "%s: %d entries are no volumes and are ignored, such as %s",
            folder,
            len(others),
            others[0],
        )
    return volumes
