"""Time the search of a whole CT for lesions: every slice in turn as the key slice."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from voxlift.bench.report import BenchRow
from voxlift.bench.setting import Setting
from voxlift.bench.timing import TimingBudget, time_in_turns
from voxlift.core.detection_settings import DetectionSettings, DetectorSettings
from voxlift.core.randomness import numpy_generator
from voxlift.core.types import Triple
from voxlift.data.detection_batches import detection_preprocessing
from voxlift.data.lesion_phantoms import simulate_slices
from voxlift.data.volume import Volume
from voxlift.inference.context_planes import ContextReader
from voxlift.inference.context_windows import detect_slices
from voxlift.inference.detection import the_detector
from voxlift.inference.saved_model import SavedModel
from voxlift.nets.detector import Detector
from voxlift.nets.factory import make_architecture
from voxlift.nets.p3d import P3D
from voxlift.nets.slice_encoder import MP3D
from voxlift.weights.header import HeadDescription

_SEED = 0
_FIELD_MM = 110.0
_SHARED, _ALONE, _FAST = "exact", "every-window-alone", "fast-context"
# Relative, of feature maps in fp32.
_ROUNDING = 1e-4
_BUDGET = TimingBudget(num_warmup=1, num_rounds=5, seconds=20.0)


class UnsharedMP3D(MP3D):
    """The same network, of which every window computes its stem anew."""

    @property
    def stem_sees_one_slice(self) -> bool:
        """Say no, so that nothing is shared."""
        return False


@dataclass(frozen=True)
class ContextCase:
    """A simulated CT searched by MP3D-18 in three ways: exactly, the same unshared, and in a slab.

    The distance of its slices is that of the slices in a context, so that the slab has the same key
    slices. Of a CT with thinner slices it has fewer, and gains more.

    Args:
        name: Name of the rows.
        size_voxels: Size of the CT.
        width: Channels of the network's first stage.
        settings: Of the detector.
        budget: How long to measure.
    """

    name: str
    size_voxels: Triple = (16, 128, 128)
    width: int = 16
    settings: DetectionSettings = field(
        default_factory=lambda: DetectionSettings(
            class_names=("lesion",),
            image_size=128,
            detector=DetectorSettings(fpn_channels=32, head_width=64),
        )
    )
    budget: TimingBudget = _BUDGET

    def rows(self, setting: Setting) -> Iterator[BenchRow]:
        """Time the three in turns, in fp32, and compare their feature maps."""
        interval_mm = self.settings.slice_interval_mm
        assert interval_mm is not None
        volume = simulated_chest(self.size_voxels, interval_mm=interval_mm)
        model = make_detector(MP3D, self.settings, width=self.width, device=setting.device)
        alone = make_detector(UnsharedMP3D, self.settings, width=self.width, device=setting.device)
        alone.networks[0].load_state_dict(model.networks[0].state_dict())
        contestants = {
            _SHARED: partial(detect_slices, model, volume),
            _ALONE: partial(detect_slices, alone, volume),
            _FAST: partial(detect_slices, model, volume, fast_context=True),
        }
        seconds = time_in_turns(contestants, budget=self.budget, synchronize=setting.synchronize)
        num_slices = self.size_voxels[0]
        planes = {
            _SHARED: key_slice_planes(model, volume),
            _ALONE: key_slice_planes(alone, volume),
            _FAST: key_slice_planes(model, volume, fast_context=True),
        }
        for ours, other in ((_SHARED, _ALONE), (_FAST, _SHARED)):
            difference = plane_difference(planes[ours], planes[other])
            yield BenchRow.from_rates(
                self.name,
                shape=(
                    f"{'x'.join(map(str, self.size_voxels))}, windows of "
                    f"{self.settings.num_slices}, {ours}, maps differ by {difference:.1%}"
                ),
                ours=num_slices / seconds[ours],
                baseline=num_slices / seconds[other],
                baseline_name=other,
                same_function=difference < _ROUNDING,
            )


Planes = dict[float, list[Tensor]]
"""The backbone's planes of each key slice, by its position."""


def key_slice_planes(
    model: SavedModel, volume: Volume, *, fast_context: bool = False, batch_size: int = 1
) -> Planes:
    """Compute the planes of every key slice of a small volume."""
    reader = ContextReader(model, the_detector(model), volume, batch_size)
    found: Planes = {}
    with torch.inference_mode():
        for part in reader.of_slab() if fast_context else reader.of_windows():
            for number, position in enumerate(part.positions):
                found[position] = [plane[number].cpu() for plane in part.planes]
    return found


def plane_difference(ours: Planes, other: Planes) -> float:
    """Tell how much planes differ at the key slices that both have.

    Returns:
        The root mean square of the difference in shares of that of the other's planes: the mean
        over the stages.
    """
    common = sorted(ours.keys() & other.keys())
    shares = []
    for stage in range(len(other[common[0]])):
        mine, theirs = (torch.stack([p[key][stage] for key in common]) for p in (ours, other))
        shares.append(math.sqrt((mine - theirs).square().mean() / theirs.square().mean()))
    return sum(shares) / len(shares)


def make_detector(
    kind: type[MP3D], settings: DetectionSettings, *, width: int, device: str
) -> SavedModel:
    """Make a detector on MP3D-18 as it is before training."""
    fields = {**P3D.defaults, "name": "mp3d18", "width": width, "num_slices": settings.num_slices}
    architecture = make_architecture(fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        backbone = kind(architecture, kind.default_geometry(architecture))
        network = Detector(backbone, num_classes=settings.num_classes, settings=settings.detector)
    head = HeadDescription(
        task="detect",
        num_classes=settings.num_classes,
        class_names=settings.class_names,
        settings=settings.model_dump(mode="json"),
    )
    return SavedModel((network.eval().to(device),), head, detection_preprocessing("HU"))


def simulated_chest(size_voxels: Triple, *, interval_mm: float) -> Volume:
    """Simulate a CT with a lesion in its middle."""
    depth, height, width = size_voxels
    pixel_mm = _FIELD_MM / width
    depths_mm = (np.arange(depth) - depth // 2) * interval_mm
    simulated = simulate_slices(
        depths_mm.astype(np.float64),
        size=(height, width),
        spacing_mm=pixel_mm,
        thickness_mm=interval_mm,
        generator=numpy_generator(_SEED, "bench-context"),
    )
    return Volume(np.rint(simulated.array).astype(np.int16), (interval_mm, pixel_mm, pixel_mm))
