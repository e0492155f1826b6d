"""Which mask belongs to which image, by their names.

Names without the suffix are compared. A mask belongs to the image of the same name; else one word
that says what the file is may stand at the beginning or at the end of a name, such as `_seg`,
`_mask`, `_label`, or `img0001` for the image and `label0001` for the mask.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from voxlift.data.listing_problems import report_problems

IMAGE_WORDS = ("image", "img", "volume", "vol", "scan", "ct", "mr")
LABEL_WORDS = ("segmentation", "seg", "mask", "label", "labels", "gt")


def volume_name(path: Path) -> str:
    """Return the name of a volume's file without its suffix, of a folder the whole name."""
    if path.is_dir():
        return path.name
    return path.name[:-7] if path.name.lower().endswith(".nii.gz") else path.stem


def pair_names(images: Mapping[str, Path], labels: Mapping[str, Path]) -> dict[str, str]:
    """Find the name of the mask for each name of an image; what has none is left out."""
    pairs = {name: name for name in images if name in labels}
    trimmed_images = _trim([name for name in images if name not in pairs], IMAGE_WORDS)
    trimmed_labels = _trim([name for name in labels if name not in pairs], LABEL_WORDS)
    for key, name in trimmed_images.items():
        if key in trimmed_labels:
            pairs[name] = trimmed_labels[key]
    return {name: pairs[name] for name in images if name in pairs}


def report_unpaired(
    origin: str,
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    pairs: Mapping[str, str],
    *,
    skip_bad: bool,
) -> None:
    """Refuse images without a mask and masks without an image, or list them as skipped.

    Raises:
        DataError: If there are any.
    """
    used = set(pairs.values())
    report_problems(
        origin,
        {
            "image without mask": [name for name in images if name not in pairs],
            "mask without image": [name for name in labels if name not in used],
        },
        skip_bad=skip_bad,
        remedy="Add what is missing, or correct the names.",
    )


def _trim(names: list[str], words: tuple[str, ...]) -> dict[str, str]:
    """Take a word off the names; those that become equal are no longer told apart and left out."""
    either = "|".join(words)
    pattern = re.compile(rf"^(?:{either})(?:[-_. ]+|(?=\d))|[-_. ]+(?:{either})$", re.IGNORECASE)
    trimmed = {name: pattern.sub("", name, count=1) for name in names}
    counts = Counter(trimmed.values())
    return {short: name for name, short in trimmed.items() if counts[short] == 1}
