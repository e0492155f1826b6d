"""The main job without any package of the extras."""

import subprocess
import sys
from pathlib import Path

from voxlift.core.extras import PACKAGES

CHILD = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # Looks as if it were absent.
from voxlift.cli import main
data, out = sys.argv[2:]
run = ["--weights", "tiny", "--steps", "2", "--batch-size", "4", "--device", "cpu"]
model = f"{out}/run/model.safetensors"
codes = (
    main(["finetune", "--data", f"{data}/nodules.csv", "--out", f"{out}/run", *run]),
    main(["evaluate", model, "--data", f"{data}/nodules.csv", "--out", f"{out}/again"]),
    main(["predict", model, f"{data}/volumes/00.nii.gz", "--out", f"{out}/found"]),
    main(["finetune", "--task", "detect", "--data", "lesions", "--out", f"{out}/lesions"]),
)
print("codes:", *codes)
"""


def test_classification_needs_no_extra(nodule_folder: Path, tmp_path: Path) -> None:
    packages = ",".join(name for names in PACKAGES.values() for name in names)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, packages, nodule_folder, tmp_path],
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    assert "codes: 0 0 0 1" in done.stdout, done.stderr
    assert "Runs of detection need faster_coco_eval" in done.stderr
    assert "voxlift[coco]" in done.stderr
    assert not (tmp_path / "lesions").exists()
    assert not (tmp_path / "run" / "tensorboard").exists()
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert log.count('pip install "voxlift[tensorboard]"') == 1
    assert (tmp_path / "again" / "metrics.json").is_file()
    assert list((tmp_path / "found").iterdir())
