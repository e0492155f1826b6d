"""What can be exported: a whole saved model, a backbone, or the pyramid of a detector."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from voxlift.core.errors import ConfigError
from voxlift.core.preprocessing import Preprocessing
from voxlift.core.segmentation_settings import SegmentationSettings
from voxlift.core.types import AXES, Triple
from voxlift.inference.saved_model import SavedModel, find_models, load_model
from voxlift.nets.detector import Detector
from voxlift.nets.encoder import Encoder
from voxlift.nets.factory import create_backbone
from voxlift.weights.file import WeightFile
from voxlift.weights.header import HeadDescription, WeightHeader
from voxlift.weights.source import Source, read_source
from voxlift.weights.target import COMPILED, find_target

FINEST_LEVEL = 2
"""Number of a pyramid's finest map, as in arXiv 1612.03144, where its stride is 2 ** 2."""

NO_BOXES = (
    "the program gives the maps of the detector's pyramid; the head, which makes boxes of them, is "
    "not part of it"
)


class Pyramid(nn.Module):
    """The backbone of a detector and the feature pyramid on it, without the head.

    Args:
        detector: Whose they are.

    Shape:
        `(batch, in_channels, num_slices, height, width)` -> maps as `Detector.pyramid` has them,
        the finest first.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.fpn = detector.fpn
        self.strides = tuple((stride, stride) for stride in detector.strides)

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Compute the maps."""
        planes = {str(i): plane for i, plane in enumerate(self.backbone(volume))}
        return list(self.fpn(planes).values())


class NamedOutputs(nn.Module):
    """A network that gives its outputs by name.

    Args:
        network: A model that gives logits, a backbone that gives its feature maps, or a pyramid.

    Attributes:
        names: Of the outputs.
        strides: Of each output that is a map, relative to the input; the logits have none.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.names: tuple[str, ...] = ("logits",)
        self.strides: dict[str, tuple[int, ...]] = {}
        if isinstance(network, Encoder | Pyramid):
            start, first = ("p", FINEST_LEVEL) if isinstance(network, Pyramid) else ("map", 1)
            ndim = self.backbone.architecture.ndim
            self.strides = {
                f"{start}{number}": tuple(stride[-ndim:])
                for number, stride in enumerate(network.strides, start=first)
            }
            self.names = tuple(self.strides)

    @property
    def backbone(self) -> Encoder:
        """The backbone in the network."""
        inner = self.network if isinstance(self.network, Encoder) else self.network.backbone
        assert isinstance(inner, Encoder)
        return inner

    def forward(self, volume: Tensor) -> dict[str, Tensor]:
        """Compute the outputs."""
        found = self.network(volume)
        outputs = [found] if isinstance(found, Tensor) else list(found)
        return dict(zip(self.names, outputs, strict=True))


@dataclass(frozen=True)
class Exportable:
    """A network to export, and what travels with it.

    Args:
        network: In evaluation mode and float32, on the CPU, apart from the model it was made from.
        header: What is known about it, as in a weight file.
        notes: What was changed about the model.
    """

    network: NamedOutputs
    header: WeightHeader
    notes: tuple[str, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of the volumes: three, or the last two for a planar network."""
        return AXES[-self.header.architecture.ndim :]

    def size(self, size_voxels: Triple | None) -> tuple[int, ...]:
        """Settle the size to export for: the one asked for, else that of the model's input.

        Raises:
            ConfigError: If none is known, it is not a size, or a detector would pad it.
        """
        head, preprocessing = self.header.head, self.header.preprocessing
        if size_voxels is None and preprocessing is not None:
            size_voxels = preprocessing.size_voxels
        if size_voxels is None and head is not None and head.task == "segment":
            size_voxels = SegmentationSettings.model_validate(head.settings).window_voxels
        if size_voxels is None:
            raise ConfigError(
                "Nobody said what size of volume this network is fed. Give the size to export for, "
                "such as --size-voxels 32 64 64 (depth, height, width)."
            )
        if len(size_voxels) != 3 or min(size_voxels) < 1:
            raise ConfigError(
                f"The size to export for is {tuple(size_voxels)}; expected three numbers of voxels "
                "(depth, height, width), each 1 or more."
            )
        if isinstance(self.network.network, Pyramid):
            self._check_multiple(self.network.network, size_voxels)
        return tuple(size_voxels[-len(self.axes) :])

    @staticmethod
    def _check_multiple(pyramid: Pyramid, size_voxels: Triple) -> None:
        multiple = math.lcm(*(stride for stride, _ in pyramid.strides))
        if any(length % multiple for length in size_voxels[1:]):
            raise ConfigError(
                f"The size to export for is {tuple(size_voxels)}; a detector takes a height and a "
                f"width that are multiples of {multiple}, and pads volumes to them with zeros, "
                "below and on the right. Give such a size, and pad likewise."
            )


def open_exportable(
    model: Source | SavedModel | nn.Module,
    *,
    backbone_only: bool = False,
    preprocessing: Preprocessing | None = None,
    head: HeadDescription | None = None,
    header: WeightHeader | None = None,
) -> Exportable:
    """Open whatever can be exported.

    Args:
        model: As in `export_model`.
        backbone_only: Leave out what stands behind the backbone.
        preprocessing: Of a module, which cannot tell its own.
        head: Of a module, likewise.
        header: Of a module, likewise: what is known about it beside that.

    Raises:
        ConfigError: If the model is an average of folds, or a description is given for a model that
            has its own.
        WeightsError: If the weights cannot be read, or the module holds no backbone.
    """
    given = (preprocessing, head, header)
    if not isinstance(model, nn.Module) and any(each is not None for each in given):
        raise ConfigError(
            "preprocessing, head and header describe a module in memory; a saved model has its "
            "own. Leave them out."
        )
    provenance: dict[str, JsonValue] = {}
    if isinstance(model, str | Path | WeightFile):
        file, model = _open_source(model, backbone_only=backbone_only)
        header = file.header
        provenance["exported_from"] = file.sha256
    if header is not None:
        provenance = {**header.provenance, **provenance}
        preprocessing, head = preprocessing or header.preprocessing, head or header.head
    if isinstance(model, SavedModel):
        if len(model.networks) > 1:
            raise ConfigError(
                f"The model is the average of {len(model.networks)} folds; one network is "
                "exported at a time. Give the weight file of one fold."
            )
        preprocessing, head = model.preprocessing, model.head
        (model,) = model.networks
    network, notes = _prepared(model, backbone_only=backbone_only)
    target = find_target(network.network)
    travels = WeightHeader(
        architecture=target.architecture,
        geometry=target.geometry,
        preprocessing=preprocessing,
        head=head if "logits" in network.names else None,
        provenance=provenance,
        licence=header.licence if header else None,
        citation=header.citation if header else None,
    )
    return Exportable(network, travels, notes)


def _open_source(
    source: Source, *, backbone_only: bool
) -> tuple[WeightFile, nn.Module | SavedModel]:
    """Read a weight file and rebuild its network."""
    if isinstance(source, WeightFile):
        file = source
    else:
        found = find_models(source)
        if len(found) > 1:
            raise ConfigError(
                f"{source} is the average of {len(found)} folds; one network is exported at a "
                f"time. Give one of them, such as {found[0]}."
            )
        file = read_source(found[0])
        source = found[0]
    if file.header.head is not None and not backbone_only:
        return file, load_model(file.path if isinstance(source, WeightFile) else source)
    architecture = file.header.architecture
    backbone = create_backbone(
        architecture.name, weights=file, in_channels=architecture.in_channels
    )
    return file, backbone.eval()


def _prepared(model: nn.Module, *, backbone_only: bool) -> tuple[NamedOutputs, tuple[str, ...]]:
    """Copy a model into the one form that is exported, and say what was changed."""
    model = _plain(model)
    # Refuses what has no backbone, or no numbers.
    target = find_target(model)
    if backbone_only and target.prefix:
        model = model.backbone  # type: ignore[assignment]
    backbone = model if isinstance(model, Encoder) else _plain(model.backbone)  # type: ignore[arg-type]
    if not isinstance(backbone, Encoder):
        raise ConfigError(
            f"The backbone is a {type(backbone).__name__}; only Voxlift's own, which "
            "voxlift.create_backbone(...) makes, can be exported."
        )
    notes, training = [], model.training
    if isinstance(model, Detector):
        model = Pyramid(model)
        notes.append(NO_BOXES)
    floating = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if floating - {torch.float32}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in floating))
        notes.append(f"its numbers are {names}; exported as float32")
    if training:
        notes.append("it was in training mode; exported in evaluation mode")
    network = copy.deepcopy(model)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            setattr(parent, name, _plain(child))
    network = network.float().cpu().eval().requires_grad_(requires_grad=False)
    for parameter in network.parameters():
        # Of whatever memory format they were.
        parameter.data = parameter.data.contiguous()
    return NamedOutputs(network).eval(), tuple(notes)


def _plain(module: nn.Module) -> nn.Module:
    """Look through what `torch.compile` has wrapped around a module."""
    inner = getattr(module, COMPILED, module)
    assert isinstance(inner, nn.Module)
    return inner
