"""The file `dataset.json` of the Medical Segmentation Decathlon and of nnU-Net.

The Decathlon and nnU-Net 1 write `modality: {"0": "MRI"}` and `labels: {"0": "background", ...}`,
nnU-Net 2 `channel_names: {"0": "T1"}` and `labels: {"background": 0, ...}`, there with regions as
lists of values, painted as `regions_class_order` says, and perhaps the label `ignore`.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import BACKGROUND, LabelScheme, Region

FILE_NAME = "dataset.json"
_IGNORE = "ignore"


@dataclass(frozen=True)
class ListedCase:
    """A case as the file lists it, with paths relative to its folder.

    Attributes:
        images: The file of the volume, or one of each channel.
        label: The file of the mask.
        split: `train` or `val` where both are listed.
        name: What the file calls it, if anything.
    """

    images: tuple[str, ...]
    label: str
    split: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class DatasetDescription:
    """What the file says of the data set; None for what it does not say.

    Attributes:
        path: The file.
        labels: The classes.
        channel_names: What each channel is.
        cases: The cases, where they are listed.
        file_ending: How the names of volumes end.
    """

    path: Path
    labels: LabelScheme | None
    channel_names: tuple[str, ...] | None
    cases: tuple[ListedCase, ...]
    file_ending: str | None


def read_dataset_json(path: str | Path) -> DatasetDescription:
    """Read what the file says of channels, classes and cases.

    Raises:
        DataError: If it is no JSON, or says something that is no such data set.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(
            f"{path} could not be read: {error.strerror or error}. Check the path."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} could not be read as JSON: {error}. Correct the file.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object; expected one with 'labels'.")
    channels = content.get("channel_names", content.get("modality"))
    ending = content.get("file_ending")
    return DatasetDescription(
        path=path,
        labels=None if "labels" not in content else _read_labels(path, content),
        channel_names=None if channels is None else _read_channels(path, channels),
        cases=_read_cases(path, content),
        file_ending=str(ending) if ending else None,
    )


def _read_channels(path: Path, channels: Any) -> tuple[str, ...]:
    """Read the names of channels in the order of their numbers."""
    if not isinstance(channels, dict) or sorted(channels) != sorted(map(str, range(len(channels)))):
        raise DataError(
            f"{path}: the channels are {channels!r}; expected names by numbers from 0, such as "
            '{"0": "T1", "1": "FLAIR"}.'
        )
    names = [str(channels[str(number)]) for number in range(len(channels))]
    # Two channels of one name are told apart by their numbers.
    return tuple(
        name if names.count(name) == 1 else f"{name} {number}" for number, name in enumerate(names)
    )


def _read_labels(path: Path, content: dict[str, Any]) -> LabelScheme:
    labels = content["labels"]
    if not isinstance(labels, dict) or not labels:
        raise DataError(
            f'{path}: the labels are {labels!r}; expected an object such as {{"0": "background", '
            '"1": "liver"} or {"background": 0, "liver": 1}.'
        )
    by_name = {str(name): _values(path, name, value) for name, value in _by_name(labels).items()}
    ignore = by_name.pop(_IGNORE, (None,))[0]
    if BACKGROUND not in by_name:
        by_name = {name: values for name, values in by_name.items() if values != (0,)}
    background = by_name.pop(BACKGROUND, (0,))[0]
    try:
        if any(len(values) > 1 for values in by_name.values()):
            return _region_scheme(path, by_name, background, ignore, content)
        classes = sorted((values[0], name) for name, values in by_name.items())
        return LabelScheme(
            names=(BACKGROUND, *(name for _, name in classes)),
            values=(background, *(value for value, _ in classes)),
            ignore_value=ignore,
        )
    except ValidationError as error:
        raise DataError(
            f"{path}: the labels {labels} cannot be used: {error.errors()[0]['msg']}"
        ) from error


def _by_name(labels: dict[str, Any]) -> dict[str, Any]:
    """Turn `{"1": "liver"}` into `{"liver": 1}`."""
    if not all(str(key).isdecimal() and isinstance(name, str) for key, name in labels.items()):
        return labels
    by_name: dict[str, Any] = {}
    for value, name in labels.items():
        by_name[f"{name} {value}" if name in by_name else name] = value
    return by_name


def _values(path: Path, name: str, value: Any) -> tuple[int, ...]:
    entries = value if isinstance(value, list) else [value]
    try:
        values = tuple(int(entry) for entry in entries)
    except (TypeError, ValueError, OverflowError):
        values = ()
    if not values or any(isinstance(entry, (bool, float)) for entry in entries):
        raise DataError(
            f"{path}: the label '{name}' is {value!r:.100}; expected the number that stands for it "
            "in the masks, or a list of such numbers for a region."
        )
    return values


def _region_scheme(
    path: Path,
    by_name: dict[str, tuple[int, ...]],
    background: int,
    ignore: int | None,
    content: dict[str, Any],
) -> LabelScheme:
    order = content.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(by_name):
        raise DataError(
            f"{path}: there are {len(by_name)} regions ({', '.join(by_name)}), but "
            f"'regions_class_order' is {order!r}; expected the number that is painted into masks "
            "for each of them."
        )
    values = sorted({value for members in by_name.values() for value in members})
    own = {members[0]: name for name, members in by_name.items() if len(members) == 1}
    return LabelScheme(
        names=(BACKGROUND, *(own.get(value, f"class {value}") for value in values)),
        values=(background, *values),
        ignore_value=ignore,
        regions=tuple(
            Region(
                name=name,
                members=tuple(values.index(value) + 1 for value in members),
                value=painted,
            )
            for (name, members), painted in zip(by_name.items(), order, strict=True)
        ),
    )


def _read_cases(path: Path, content: dict[str, Any]) -> tuple[ListedCase, ...]:
    """Read the labelled cases: `training` with perhaps `validation`, or `dataset` of nnU-Net 2."""
    listed = content.get("dataset")
    if isinstance(listed, dict):
        return tuple(
            replace(_read_case(path, entry, None), name=str(name)) for name, entry in listed.items()
        )
    training, validation = content.get("training") or [], content.get("validation") or []
    if not isinstance(training, list) or not isinstance(validation, list):
        raise DataError(f"{path}: 'training' is no list of cases. Correct the file.")
    splits = ("train", "val") if validation else (None, None)
    return tuple(
        _read_case(path, entry, split)
        for entries, split in zip((training, validation), splits, strict=True)
        for entry in entries
    )


def _read_case(path: Path, entry: Any, split: str | None) -> ListedCase:
    images = entry.get("images", entry.get("image")) if isinstance(entry, dict) else None
    images = [images] if isinstance(images, str) else images
    label = entry.get("label") if isinstance(entry, dict) else None
    if not images or not isinstance(images, list) or not isinstance(label, str):
        raise DataError(
            f'{path}: a case is listed as {entry!r}; expected {{"image": "./imagesTr/...", '
            '"label": "./labelsTr/..."}.'
        )
    return ListedCase(tuple(map(str, images)), label, split)
