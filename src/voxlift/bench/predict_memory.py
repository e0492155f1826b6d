"""Measure the memory that it takes to segment a large scan, in a process of its own."""

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from voxlift.bench.report import BenchRow
from voxlift.bench.setting import Setting
from voxlift.bench.simulated_ct import write_simulated_ct
from voxlift.core.errors import VoxliftError
from voxlift.core.label_scheme import LabelScheme
from voxlift.core.preprocessing import Preprocessing, window_bounds
from voxlift.core.randomness import derive_seed
from voxlift.core.segmentation_settings import SegmentationSettings
from voxlift.core.types import Triple
from voxlift.nets.factory import create_backbone, create_model
from voxlift.weights.header import HeadDescription
from voxlift.weights.save import save_weights

logger = logging.getLogger(__name__)

_SEED = 0
_PROCESS = "voxlift.bench.predict_memory_process"
_TOLD_PERCENT = 5


@dataclass(frozen=True)
class PredictMemoryCase:
    """A simulated CT through the whole of `voxlift predict`, on the CPU.

    The network is a U-Net on the bundled `tiny` encoder. Its decoder is not trained, which changes
    neither its memory nor its time.

    Args:
        name: Name of the row.
        size_voxels: Size of the scan, of 16-bit numbers.
        window_voxels: Size of the network's window.
        limit_gb: What the peak is compared with.
    """

    name: str
    size_voxels: Triple = (1000, 512, 512)
    window_voxels: Triple = (64, 160, 160)
    limit_gb: float = 6.0

    def rows(self, setting: Setting) -> Iterator[BenchRow]:
        """Segment the scan, and yield the peak of the resident memory beside the limit."""
        del setting
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            logger.info("%s: writing a scan of %s voxels.", self.name, _size(self.size_voxels))
            write_simulated_ct(folder / "scan.nii.gz", size_voxels=self.size_voxels, seed=_SEED)
            save_segmenter(folder / "model.safetensors", window_voxels=self.window_voxels)
            facts = self._measure(folder)
        peak_gb = facts["peak_bytes"] / 1e9
        minutes = facts["seconds"] / 60
        logger.info("%s: %.2f GB at most, %.1f minutes.", self.name, peak_gb, minutes)
        yield BenchRow(
            name=self.name,
            shape=(
                f"{_size(self.size_voxels)} int16, {facts['total']:.0f} windows of "
                f"{_size(self.window_voxels)}, {minutes:.1f} min, "
                f"torch threads: {torch.get_num_threads()}"
            ),
            ours=float(f"{peak_gb:.4g}"),
            baseline=self.limit_gb,
            unit="GB",
            ratio=float(f"{self.limit_gb / peak_gb:.4g}"),
            baseline_name="limit",
            same_function=True,
        )

    def _measure(self, folder: Path) -> dict[str, float]:
        """Run the process, pass on how far it is, and return what it tells."""
        command = [
            *(sys.executable, "-m", _PROCESS),
            str(folder / "model.safetensors"),
            str(folder / "scan.nii.gz"),
            str(folder / "out"),
            str(torch.get_num_threads()),
        ]
        facts: dict[str, float] = {}
        told = 0
        with (
            (folder / "errors.txt").open("w+", encoding="utf-8") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    facts.update(json.loads(line))
                    percent = int(100 * facts["done"] / facts["total"])
                    if percent >= told + _TOLD_PERCENT:
                        told = percent
                        logger.info("%s: %d %% of the windows are done.", self.name, percent)
            except BaseException:
                process.kill()
                raise
            process.wait()
            errors.seek(0)
            said = errors.read().strip().splitlines()
        if "peak_bytes" not in facts:
            raise VoxliftError(
                f"{self.name}: the process that predicts failed: {said[-1] if said else 'no word'}"
            )
        return facts


def save_segmenter(path: Path, *, window_voxels: Triple) -> None:
    """Save a U-Net of two classes on the `tiny` encoder, its decoder as it is made."""
    labels = LabelScheme(names=("background", "structure"), values=(0, 1))
    settings = SegmentationSettings(
        labels=labels, channel_names=("CT",), window_voxels=window_voxels
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(_SEED, "predict-memory"))
        backbone = create_backbone("resnet18", geometry="unet", weights="tiny")
        network = create_model("segment", backbone=backbone, num_classes=labels.num_outputs)
    save_weights(
        network,
        path,
        preprocessing=Preprocessing(
            unit="HU", intensity="window", window=window_bounds(400, 40), mean=0.5, std=0.25
        ),
        head=HeadDescription(
            task="segment",
            num_classes=labels.num_outputs,
            class_names=labels.output_names,
            settings=settings.model_dump(mode="json"),
        ),
    )


def _size(size_voxels: Triple) -> str:
    return "x".join(map(str, size_voxels))
