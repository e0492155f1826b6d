"""What `import voxlift` and `voxlift --help` import, seen in a process of their own."""

import subprocess
import sys

import pytest

import voxlift

HEAVY = (
    "SimpleITK", "faster_coco_eval", "huggingface_hub", "lightning", "matplotlib", "monai",
    "nibabel", "pydicom", "scipy.signal", "scipy.stats", "skimage", "sklearn", "sympy", "timm",
    "torchmetrics", "torchvision", "tyro",
)  # fmt: skip
CHILD = f"""
import sys
def show_imported(*more):
    print("imported:", *(name for name in ({HEAVY} + more) if name in sys.modules))
import voxlift
show_imported("torch", "numpy", "pydantic", "rich")
from voxlift.cli import main
main(["--help"])
show_imported()
from voxlift import lift
assert callable(voxlift.metrics.froc)
assert lift is voxlift.lift is sys.modules["voxlift.lifting.image_to_volume"].lift
"""


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=200, check=True
    )
    shown = [line.strip() for line in done.stdout.splitlines() if line.startswith("imported:")]
    assert shown == ["imported:", "imported:"]


def test_every_public_name_can_be_had() -> None:
    assert dir(voxlift) == voxlift.__all__ == sorted(voxlift.__all__)
    for name in voxlift.__all__:
        found = getattr(voxlift, name)
        where = found.__name__ if name == "metrics" else found.__module__
        assert where.startswith("voxlift.")
    with pytest.raises(AttributeError, match="lifts"):
        _ = voxlift.lifts  # type: ignore[attr-defined]
