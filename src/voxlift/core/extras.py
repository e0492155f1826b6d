"""Packages that are no part of a plain installation, each set of them named by an extra."""

from importlib.util import find_spec

from voxlift.core.errors import ConfigError

PACKAGES = {
    "coco": ("faster_coco_eval",),
    "dicom": ("highdicom",),
    "hub": ("huggingface_hub",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "parquet": ("pyarrow",),
    "swin": ("einops",),
    "tensorboard": ("tensorboard",),
    "timm": ("timm",),
}
"""What is imported from the packages of each extra in pyproject.toml."""


def missing_packages(extra: str) -> list[str]:
    """List the packages of an extra that are not installed."""
    return [name for name in PACKAGES[extra] if find_spec(name) is None]


def require_extra(extra: str, purpose: str, *, otherwise: str = "") -> None:
    """Check that the packages of an extra are installed.

    Args:
        extra: Name of the extra.
        purpose: What needs the packages, as the start of a sentence: "Parquet files".
        otherwise: A sentence on how to do without.

    Raises:
        ConfigError: If one is not.
    """
    if missing := missing_packages(extra):
        raise ConfigError(
            f"{purpose} need {', '.join(missing)}, not installed here: "
            f'pip install "voxlift[{extra}]".{otherwise and " " + otherwise}'
        )
