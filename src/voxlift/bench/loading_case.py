"""Time the loading of photographs against torchvision's ImageFolder in torch's DataLoader."""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from voxlift.bench.machine import num_cores
from voxlift.bench.report import BenchRow
from voxlift.bench.setting import Setting
from voxlift.bench.synthetic_images import write_synthetic_jpegs
from voxlift.bench.timing import TimingBudget, time_in_turns
from voxlift.data.epoch_order import ResumableLoader
from voxlift.data.image_augmentation import ImageAugmentation
from voxlift.data.image_batches import ImageBatch, image_loader
from voxlift.data.image_source import FolderSource

logger = logging.getLogger(__name__)

_MAX_WORKERS = 8
_SHUFFLE_SEED = 0
_BUDGET = TimingBudget(num_warmup=1, num_rounds=5, seconds=20.0)


@dataclass(frozen=True)
class LoadingCase:
    """An epoch of photographs, from JPEG files to augmented uint8 batches.

    Args:
        name: Name of the rows.
        num_images: Photographs in an epoch.
        stored_size: (height, width) of the files in pixels.
        size: Edge of the loaded images in pixels.
        batch_size: Photographs in a batch.
        crop: `random-resized`, or `pad` for files that are of the size wanted.
        cache_gb: Memory that our side may keep decoded photographs in. The set made here is small,
            so 0 stands for one that would not fit. Decoding into the cache, which is done once a
            run, is not timed.
        budget: How long to measure.
    """

    name: str
    num_images: int
    stored_size: tuple[int, int]
    size: int
    batch_size: int
    crop: Literal["random-resized", "pad"]
    cache_gb: float
    budget: TimingBudget = _BUDGET

    def rows(self, setting: Setting) -> Iterator[BenchRow]:
        """Time epochs in turns, without worker processes and with as many as there are cores."""
        del setting
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_synthetic_jpegs(folder, num_images=self.num_images, size=self.stored_size)
            try:
                same = self._loads_the_same(folder)
            # A torchvision built for another torch raises RuntimeError when it is imported.
            except (ImportError, RuntimeError) as error:
                logger.warning("No rows for %s, for torchvision is missing: %s", self.name, error)
                return
            for workers in (0, min(num_cores(), _MAX_WORKERS)):
                yield self._row(folder, workers=workers, same_function=same)

    def _row(self, folder: Path, *, workers: int, same_function: bool) -> BenchRow:
        ours = self._our_loader(folder, ImageAugmentation(crop=self.crop), workers=workers)
        theirs = self._their_loader(folder, workers=workers)
        seconds = time_in_turns(
            {"ours": lambda: _load_all(ours), "theirs": lambda: _load_all(theirs)},
            budget=self.budget,
        )
        return BenchRow.from_rates(
            self.name,
            shape=f"{self.batch_size}x3x{self.size}x{self.size}",
            ours=self.num_images / seconds["ours"],
            baseline=self.num_images / seconds["theirs"],
            baseline_name=f"torchvision-imagefolder-{workers}-workers",
            same_function=same_function,
        )

    def _our_loader(
        self, folder: Path, augmentation: ImageAugmentation, *, workers: int, shuffle: bool = True
    ) -> ResumableLoader[ImageBatch]:
        return image_loader(
            FolderSource(folder),
            batch_size=self.batch_size,
            size=self.size,
            augmentation=augmentation,
            seed=_SHUFFLE_SEED,
            workers=workers,
            shuffle=shuffle,
            cache_gb=self.cache_gb,
        )

    def _their_loader(
        self, folder: Path, *, workers: int, augment: bool = True, shuffle: bool = True
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        # Importing torchvision takes seconds, which only its users should wait.
        from torchvision import datasets, transforms

        steps: list[Any] = [transforms.PILToTensor()]
        if augment:
            crop = (
                transforms.RandomCrop(
                    self.size, padding=ImageAugmentation().pad_pixels, padding_mode="reflect"
                )
                if self.crop == "pad"
                else transforms.RandomResizedCrop(self.size)
            )
            steps = [crop, transforms.RandomHorizontalFlip(), *steps]
        return DataLoader(
            datasets.ImageFolder(str(folder), transforms.Compose(steps)),
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
        )

    def _loads_the_same(self, folder: Path) -> bool:
        """Whether both sides differ by nothing but the random numbers they draw.

        Scaled crops do differ: ours come from JPEGs that are decoded at the scale needed.
        """
        theirs = self._their_loader(folder, workers=0, augment=False, shuffle=False)
        if self.crop != "pad":
            return False
        ours = self._our_loader(
            folder, ImageAugmentation.for_evaluation(), workers=0, shuffle=False
        )
        return all(
            torch.equal(batch["image"], images) and torch.equal(batch["label"], labels)
            for batch, (images, labels) in zip(ours, theirs, strict=True)
        )


def _load_all(loader: Iterable[object]) -> None:
    for _ in loader:
        pass
