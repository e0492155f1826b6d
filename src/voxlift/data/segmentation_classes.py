"""The classes of a data set: stated by it, found in its masks, or named by the user."""

from collections.abc import Collection, Mapping, Sequence

from voxlift.core.errors import DataError
from voxlift.core.label_scheme import BACKGROUND, MAX_CLASSES, LabelScheme

_HIGHEST_VALUE = 65535


def adapt_classes(
    stated: LabelScheme | None,
    *,
    ignore_value: int | None = None,
    class_names: Sequence[str] = (),
    regions: Mapping[str, Sequence[int]] | None = None,
) -> LabelScheme | None:
    """Let the user say otherwise than the data set does.

    Args:
        stated: What the data set says; None, which is returned, if that is nothing.
        ignore_value: What stands in masks where nobody labelled; no longer a class then.
        class_names: Other names, in the order of the values, without the background.
        regions: Overlapping regions to be found instead; see `LabelScheme.with_regions`.

    Raises:
        DataError: If the number of names is another, or a region has no such class.
    """
    if stated is None:
        return None
    labels = stated
    if ignore_value is not None and ignore_value != labels.ignore_value:
        if labels.regions:
            raise DataError(
                f"The data set states regions; that {ignore_value} is not labelled has to be said "
                "there, too (in dataset.json as the label 'ignore')."
            )
        kept = [
            (name, value)
            for name, value in zip(labels.names, labels.values, strict=True)
            if value != ignore_value
        ]
        names, values = zip(*kept, strict=True)
        labels = make_scheme(names, values, ignore_value=ignore_value)
    if class_names:
        if len(class_names) != len(labels.names) - 1:
            raise DataError(
                f"There are {len(class_names)} class names ({', '.join(class_names)}), but the "
                f"data set states {len(labels.names) - 1} classes besides the background "
                f"({', '.join(labels.names[1:])}). Name each of them, without the background."
            )
        renamed = make_scheme(
            (labels.names[0], *class_names), labels.values, ignore_value=labels.ignore_value
        )
        labels = labels.model_copy(update={"names": renamed.names})
    return labels.with_regions(regions) if regions else labels


def find_classes(
    found: Collection[int],
    *,
    ignore_value: int | None = None,
    class_names: Sequence[str] = (),
    regions: Mapping[str, Sequence[int]] | None = None,
) -> LabelScheme:
    """Make classes of the values that stand in masks; 0 is the background.

    Args:
        found: The values.
        ignore_value: That of voxels that nobody labelled.
        class_names: Names in the order of the values, without the background. If there are more
            names than values, they are the names of the values 1, 2, 3 and so on.
        regions: Overlapping regions to be found instead; see `LabelScheme.with_regions`.

    Raises:
        DataError: If there are too many classes, another number than named, or a region has no
            such class.
    """
    values = sorted({0, *found} - {ignore_value})
    if len(values) > MAX_CLASSES:
        raise DataError(
            f"The masks hold {len(values)} different values; expected one a class, at most "
            f"{MAX_CLASSES}. Are they images?"
        )
    if class_names:
        if len(class_names) > len(values) - 1 and values[-1] <= len(class_names):
            values = [v for v in range(len(class_names) + 1) if v != ignore_value]
        if len(class_names) != len(values) - 1:
            raise DataError(
                f"There are {len(class_names)} class names ({', '.join(class_names)}), but the "
                f"masks hold {len(values) - 1} values besides the background "
                f"({', '.join(map(str, values[1:21]))}). Name each of them, without the background."
            )
        labels = make_scheme((BACKGROUND, *class_names), values, ignore_value=ignore_value)
    else:
        labels = LabelScheme.of_values(values, ignore_value=ignore_value)
    return labels.with_regions(regions) if regions else labels


def make_scheme(
    names: Sequence[str], values: Sequence[int], *, ignore_value: int | None
) -> LabelScheme:
    """Make a scheme of names that a user gave.

    Raises:
        DataError: If a name is there twice.
    """
    if len(set(names)) < len(names):
        raise DataError(
            f"The class names are {', '.join(names)}; each may be there once only, and the first "
            "is that of the background."
        )
    return LabelScheme(names=tuple(names), values=tuple(values), ignore_value=ignore_value)


def check_unnamed_values(found: Collection[int], *, ignore_value: int | None) -> None:
    """Refuse values of a mask that cannot be classes, where nothing says which classes there are.

    Raises:
        DataError: If there are too many, or one is beyond what masks hold.
    """
    if len(found) > MAX_CLASSES + 1:
        raise DataError(
            f"the mask holds {len(found)} different values; expected one a class, at most "
            f"{MAX_CLASSES}. Is it an image?"
        )
    wrong = [v for v in found if not 0 <= v <= _HIGHEST_VALUE and v != ignore_value]
    if wrong:
        raise DataError(
            f"the mask holds the value {wrong[0]}; expected classes from 0 to {_HIGHEST_VALUE}. If "
            f"it marks voxels that nobody labelled, say so with --ignore-value {wrong[0]}."
        )
